/**
 * Identity Preference Optimization: (c/n_w - r/n_l - 1/(2 beta))^2, log-ratios averaged over tokens (as TRL does) or
 * summed (as Eq. 17 of arXiv 2310.12036 has them).
 * @module
 */
import { z } from "zod";
import { beta } from "./options.ts";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/** IPO. */
export const ipo: PairLoss = definePairLoss({
  name: "ipo",
  head: "ipo",
  options: z.strictObject({ beta: beta(0.1), lengthNormalize: z.boolean().default(true) }),
  initialLoss: ({ beta }) => 1 / (4 * beta ** 2),
});
