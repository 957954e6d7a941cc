/**
 * Losses that change what DPO's sigmoid sees: a penalty, a length term, a beta of the batch, an order over the batch.
 * @module
 */
import { z } from "zod";
import { beta, labelSmoothing } from "./options.ts";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/**
 * DPO-Positive: -log sigmoid(beta (D - lambda max(0, -c))), c = s_w - ref_w: a chosen answer that became less likely
 * counts against the margin. arXiv 2402.13228.
 */
export const dpop: PairLoss = definePairLoss({
  name: "dpop",
  head: "dpop",
  options: z.strictObject({ beta: beta(0.1), dpopLambda: z.number().min(0).default(50) }),
  numbers: ({ beta, dpopLambda }) => ({ beta, lambda: dpopLambda }),
  initialLoss: () => Math.LN2,
});

/** R-DPO: -log sigmoid(beta D + alpha (n_w - n_l)), lengths in tokens. arXiv 2403.19159. */
export const rdpo: PairLoss = definePairLoss({
  name: "rdpo",
  head: "rdpo",
  options: z.strictObject({ beta: beta(0.1), alpha: z.number().default(0.1) }),
});

/**
 * beta-DPO: DPO at max(0.001, beta (1 + alpha (M - M0))), M the batch's mean margin D, M0 its moving mean (0.9), both
 * detached. arXiv 2407.08639, without its data filter. Pairs of a batch depend on each other.
 */
export const betaDpo: PairLoss = definePairLoss({
  name: "beta_dpo",
  head: "beta_dpo",
  options: z.strictObject({ beta: beta(0.1), alpha: z.number().min(0).default(0.6) }),
  initialLoss: () => Math.LN2,
});

/**
 * AOT on paired data: DPO's loss of sort(s_w - s_l) - sort(ref_w - ref_l), both sorted over the batch. arXiv 2406.05882;
 * today's name in TRL.
 */
export const aot: PairLoss = definePairLoss({
  name: "aot",
  head: "aot",
  options: z.strictObject({ beta: beta(0.1), labelSmoothing: labelSmoothing(0) }),
  initialLoss: () => Math.LN2,
});

/** AOT on unpaired data: DPO's loss of sort(c) - sort(r), both sorted over the batch. arXiv 2406.05882. */
export const aotUnpaired: PairLoss = definePairLoss({
  name: "aot_unpaired",
  head: "aot_unpaired",
  options: z.strictObject({ beta: beta(0.1), labelSmoothing: labelSmoothing(0) }),
  initialLoss: () => Math.LN2,
});
