/**
 * Direct Preference Optimization and what differs from it by the function of the margin D = (s_w - ref_w) - (s_l - ref_l).
 * @module
 */
import { z } from "zod";
import { beta, labelSmoothing } from "./options.ts";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/**
 * DPO: -(1-e) log sigmoid(beta D) - e log sigmoid(-beta D). Eq. 7, arXiv 2305.18290; label smoothing e > 0 is
 * conservative DPO.
 */
export const dpo: PairLoss = definePairLoss({
  name: "dpo",
  head: "dpo",
  options: z.strictObject({ beta: beta(0.1), labelSmoothing: labelSmoothing(0) }),
  // -(1-e) log(1/2) - e log(1/2).
  initialLoss: () => Math.LN2,
});

/**
 * Robust DPO: [-(1-e) log sigmoid(beta D) + e log sigmoid(-beta D)] / (1-2e), unbiased where labels flip with
 * probability e. arXiv 2403.00409.
 */
export const robust: PairLoss = definePairLoss({
  name: "robust",
  head: "robust",
  options: z.strictObject({ beta: beta(0.1), labelSmoothing: labelSmoothing(0.1) }),
  initialLoss: () => Math.LN2,
});

/**
 * EXO on pairs: the reverse KL divergence from (1-e, e) of the distribution that beta D gives. Eq. 16, arXiv 2402.00856.
 * Without smoothing it is infinite: e must be above 0.
 */
export const exoPair: PairLoss = definePairLoss({
  name: "exo_pair",
  head: "exo_pair",
  options: z.strictObject({ beta: beta(0.1), labelSmoothing: z.number().positive().lt(0.5).default(1e-3) }),
  initialLoss: ({ labelSmoothing: e }) => -Math.LN2 - (Math.log1p(-e) + Math.log(e)) / 2,
});

/**
 * DiscoPOP: with z = beta D and m = sigmoid(z / tau), -(1-m) log sigmoid(z) + m e^-z. Eq. 5, arXiv 2406.08414.
 */
export const discopop: PairLoss = definePairLoss({
  name: "discopop",
  head: "discopop",
  options: z.strictObject({ beta: beta(0.1), discopopTau: z.number().positive().default(0.05) }),
  numbers: ({ beta, discopopTau }) => ({ beta, tau: discopopTau }),
  initialLoss: () => (Math.LN2 + 1) / 2,
});

/** DPO on log-ratios averaged over tokens: -log sigmoid(beta (c/n_w - r/n_l)). TRL's sigmoid_norm; arXiv 2411.15124. */
export const sigmoidNorm: PairLoss = definePairLoss({
  name: "sigmoid_norm",
  head: "sigmoid_norm",
  options: z.strictObject({ beta: beta(0.1) }),
  initialLoss: () => Math.LN2,
});
