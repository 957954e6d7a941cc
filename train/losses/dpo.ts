/**
 * Direct Preference Optimization: -(1-e) log sigmoid(beta D) - e log sigmoid(-beta D), D = (s_w - ref_w) - (s_l - ref_l).
 * Eq. 7, arXiv 2305.18290; label smoothing e > 0 is conservative DPO.
 * @module
 */
import { z } from "zod";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/** DPO with a sigmoid. */
export const dpo: PairLoss = definePairLoss({
  name: "dpo",
  options: z.strictObject({
    beta: z.number().positive().default(0.1),
    labelSmoothing: z.number().min(0).lt(0.5).default(0),
  }),
  needsReference: true,
  head: ({ beta, labelSmoothing }) => ({ loss: "dpo", beta, option: labelSmoothing }),
  // At policy = reference: -(1-e) log(1/2) - e log(1/2).
  initialLoss: () => Math.LN2,
});
