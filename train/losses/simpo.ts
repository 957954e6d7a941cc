/**
 * Simple Preference Optimization, without a reference: -log sigmoid(beta (s_w/n_w - s_l/n_l) - gamma).
 * Eq. 6, arXiv 2405.14734; gamma is given as a share of beta, as its authors do.
 * @module
 */
import { z } from "zod";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/** SimPO. */
export const simpo: PairLoss = definePairLoss({
  name: "simpo",
  options: z.strictObject({
    beta: z.number().positive().default(2),
    gammaBetaRatio: z.number().min(0).default(0.5),
  }),
  needsReference: false,
  head: ({ beta, gammaBetaRatio }) => ({ loss: "simpo", beta, option: beta * gammaBetaRatio }),
});
