/**
 * Losses that tests go through: every loss with settings at which all its parts act on pairs of a few nats' difference.
 *
 * @module
 */
import type { PairLossKind, TermKind } from "./pair_loss.ts";

/** Every loss that looks at one pair at a time, by a name of the case. */
export const SINGLE_KINDS: Record<string, TermKind> = {
  "dpo": { loss: "dpo", beta: 0.1 },
  "dpo, smoothed": { loss: "dpo", beta: 0.3, labelSmoothing: 0.2 },
  "dpo, forward KL": { loss: "dpo", beta: 0.3, divergence: "forward_kl" },
  "dpo, JS": { loss: "dpo", beta: 0.3, divergence: "js_divergence" },
  "dpo, alpha": { loss: "dpo", beta: 0.3, divergence: "alpha_divergence", divergenceAlpha: 0.4 },
  "dpo, reference-free": { loss: "dpo", beta: 0.1, referenceFree: true },
  "robust": { loss: "robust", beta: 0.3, labelSmoothing: 0.1 },
  "hinge": { loss: "hinge", beta: 0.2 },
  "ipo": { loss: "ipo", beta: 0.1 },
  "ipo over sums": { loss: "ipo", beta: 0.1, lengthNormalize: false },
  "exo_pair": { loss: "exo_pair", beta: 0.3, labelSmoothing: 1e-3 },
  "nca_pair": { loss: "nca_pair", beta: 0.3 },
  "bco_pair": { loss: "bco_pair", beta: 0.3 },
  "sppo_hard": { loss: "sppo_hard", beta: 0.2 },
  "apo_zero": { loss: "apo_zero", beta: 0.3 },
  "apo_down": { loss: "apo_down", beta: 0.3 },
  "robust, JS": { loss: "robust", beta: 0.3, labelSmoothing: 0.1, divergence: "js_divergence" },
  "discopop": { loss: "discopop", beta: 0.1, tau: 0.4 },
  "sigmoid_norm": { loss: "sigmoid_norm", beta: 0.7 },
  "cpo": { loss: "cpo", beta: 0.1, labelSmoothing: 0.1, cpoAlpha: 0.6 },
  "simpo": { loss: "simpo", beta: 2, gammaBetaRatio: 0.5 },
  "alphapo": { loss: "alphapo", beta: 2, gammaBetaRatio: 0.5, alpha: 0.25 },
  "dpop": { loss: "dpop", beta: 0.1, lambda: 0.7 },
  "rdpo": { loss: "rdpo", beta: 0.1, alpha: 0.2 },
  "cal_dpo": { loss: "cal_dpo", beta: 0.2 },
  "orpo": { loss: "orpo", beta: 0.4 },
};

/** Every loss whose pairs depend on each other. */
export const BATCH_KINDS: Record<string, TermKind> = {
  "aot": { loss: "aot", beta: 0.2, labelSmoothing: 0.1 },
  "aot_unpaired": { loss: "aot_unpaired", beta: 0.2, labelSmoothing: 0.1 },
  "alphadpo": { loss: "alphadpo", beta: 2.5, gammaBetaRatio: 0.6, alpha: 0.2 },
  "beta_dpo": { loss: "beta_dpo", beta: 0.2, alpha: 0.6 },
};

/** Weighted sums. */
export const SUM_KINDS: Record<string, PairLossKind> = {
  "mpo": {
    terms: [
      { loss: "dpo", beta: 0.1, weight: 0.8 },
      { loss: "bco_pair", beta: 0.1, weight: 0.2 },
      { loss: "sft", weight: 1 },
    ],
  },
  "sft first, then odds and sorts": {
    terms: [
      { loss: "sft", weight: 0.3 },
      { loss: "orpo", beta: 0.4, weight: 0.5 },
      { loss: "aot_unpaired", beta: 0.2, labelSmoothing: 0.1, weight: 0.7 },
      { loss: "aot", beta: 0.3, weight: 0.4 },
    ],
  },
};
