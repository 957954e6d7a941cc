/**
 * Losses with a negative log-likelihood of the chosen answers, a token mean over the step's batch.
 * @module
 */
import { z } from "zod";
import { beta, labelSmoothing } from "./options.ts";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/** CPO: -log sigmoid(beta (s_w - s_l)) + alpha NLL(chosen), no reference. arXiv 2401.08417. */
export const cpo: PairLoss = definePairLoss({
  name: "cpo",
  head: "cpo",
  options: z.strictObject({
    beta: beta(0.1),
    labelSmoothing: labelSmoothing(0),
    cpoAlpha: z.number().min(0).default(1),
  }),
});

/**
 * ORPO: NLL - beta log sigmoid(log odds(a_w) - log odds(a_l)), a = s/n, no reference; beta is the paper's lambda.
 * arXiv 2403.07691. The NLL is of prompt and chosen answer where the prompts' log-probs are at hand, as TRL has it.
 */
export const orpo: PairLoss = definePairLoss({
  name: "orpo",
  head: "orpo",
  options: z.strictObject({ beta: beta(0.1) }),
});

/** Cross entropy of the chosen answers, as a term of a sum; alone, `--loss sft` needs no pairs. */
export const sft: PairLoss = definePairLoss({ name: "sft", head: "sft", options: z.strictObject({}) });
