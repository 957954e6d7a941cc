/**
 * Losses on length-averaged log-probs a = s/n with a target margin, which is given as a share of beta, as their authors do.
 * @module
 */
import { z } from "zod";
import { beta } from "./options.ts";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/** Simple Preference Optimization: -log sigmoid(beta (a_w - a_l) - gamma). Eq. 6, arXiv 2405.14734. */
export const simpo: PairLoss = definePairLoss({
  name: "simpo",
  head: "simpo",
  options: z.strictObject({ beta: beta(2), gammaBetaRatio: z.number().min(0).default(0.5) }),
  numbers: ({ beta, gammaBetaRatio }) => ({ beta, gamma: beta * gammaBetaRatio }),
});

/** AlphaPO: SimPO on rewards beta (1 - p^-alpha) / alpha with p = e^a. arXiv 2501.03884; alpha 0 is SimPO. */
export const alphapo: PairLoss = definePairLoss({
  name: "alphapo",
  head: "alphapo",
  options: z.strictObject({
    beta: beta(2),
    gammaBetaRatio: z.number().min(0).default(0.5),
    alpha: z.number().refine((alpha) => alpha !== 0, "a number other than 0, which is simpo").default(0.25),
  }),
  numbers: ({ beta, gammaBetaRatio, alpha }) => ({ beta, gamma: beta * gammaBetaRatio, alpha }),
});

/**
 * AlphaDPO: SimPO whose target margin is gamma/beta + alpha z, z the pair's margin over the reference, length-averaged,
 * less its moving mean over the batches and over its moving deviation (0.9), all detached. arXiv 2410.10148. Pairs of a
 * batch depend on each other.
 */
export const alphadpo: PairLoss = definePairLoss({
  name: "alphadpo",
  head: "alphadpo",
  options: z.strictObject({
    beta: beta(2.5),
    gammaBetaRatio: z.number().min(0).default(0.6),
    alpha: z.number().min(0).default(0.2),
  }),
  numbers: ({ beta, gammaBetaRatio, alpha }) => ({ beta, gamma: beta * gammaBetaRatio, alpha }),
});
