/**
 * What a row of the metrics buffer holds.
 * @module
 */
import { headName, headOf, type PairHeadChoice } from "./pair_heads.ts";

/** Floats per row of the metrics buffer. */
export const METRICS_STRIDE = 64;

/** Where the gradient norm goes in a metrics row. */
export const GRAD_NORM_METRIC = METRICS_STRIDE - 1;

/** Index in a metrics row of the loss scale of f16 training; the count of skipped steps follows it. */
export const LOSS_SCALE_METRIC = METRICS_STRIDE - 3;

/** Sums over pairs that every preference run reports. Names are TRL's, and SPO.md's displacement panel's. */
const SUMMED = [
  "loss",
  "preference_loss",
  "rewards/chosen",
  "rewards/rejected",
  "rewards/accuracies",
  "rewards/margins",
  "logps/chosen",
  "logps/rejected",
  "displacement/chosen_delta",
  "displacement/rejected_delta",
  "displacement/fraction",
  "spo/lower_level",
  "spo/improvement",
] as const;

/** The metric of one term of a weighted sum, its weight not in it. */
export function termMetric(loss: PairHeadChoice): string {
  return `loss/${headName(loss)}`;
}

/** The metrics that are sums over pairs, in the order of the kernel's numbers. */
export function summedPairMetrics(terms: readonly { readonly loss: PairHeadChoice }[]): readonly string[] {
  const heads = terms.map(({ loss }) => headOf(loss));
  return [
    ...SUMMED,
    ...(terms.length > 1 ? terms.map(({ loss }) => termMetric(loss)) : []),
    ...(heads.some(({ nll }) => nll) ? ["nll_loss"] : []),
    ...(heads.some(({ hasLogOdds }) => hasLogOdds) ? ["log_odds_ratio", "log_odds_chosen"] : []),
  ];
}

/**
 * Names of the numbers that the pairwise kernel writes at the start of a row, each a mean over pairs (`nll_loss` over
 * tokens), in order.
 *
 * @param terms of the loss; a term of several has its own value in `loss/<name>`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const names = pairMetrics([{ loss: "dpo" }, { loss: "sft" }]);
 * assert.equal(names[0], "loss");
 * assert(names.includes("loss/dpo") && names.includes("nll_loss"));
 * ```
 */
export function pairMetrics(terms: readonly { readonly loss: PairHeadChoice }[]): readonly string[] {
  return [...summedPairMetrics(terms), "spo/gap", "spo/lambda"];
}
