/**
 * Metrics and weights from the statistics of the output head: see {@link tokenLogpsWithStatistics}.
 * @module
 */
import { SEGMENT_WORKGROUP } from "../../shaders/reduce.ts";
import {
  pairWeights as pairWeightsKernel,
  sequenceStatistics as sequenceStatisticsKernel,
  type StatisticsMetric,
  statisticsMetrics,
} from "../../shaders/sequence_statistics.ts";
import { derive, flagScalar, type Scalar } from "../queue.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { empty, type Tensor } from "../tensor.ts";
import type { MetricSlot } from "./scaled_sum.ts";
import type { TokenStatistics } from "./token_logps.ts";

export type { StatisticsMetric };

/**
 * Sums of the tokens' statistics over each sequence. Not differentiable.
 *
 * @param tokens of `tokenLogpsWithStatistics`, R rows
 * @param offsets `[S + 1]`: sequence s holds rows offsets[s] to offsets[s + 1]
 * @returns `[S, 4]`: entropy, mean logit, hits, and log p - log sum of p^2
 * @throws {ShapeError} when the statistics are not those of as many rows
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, upload } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const logps = fromHost(gpu, Float32Array.of(-1, -2), { shape: [2] });
 * const statistics = fromHost(gpu, Float32Array.of(0.5, 3, 1, -4, 0.25, 5, 0, -8), { shape: [2, 4] });
 * const sums = sequenceStatistics({ logps, statistics }, upload(gpu, Uint32Array.of(0, 2)));
 * assert.deepEqual([...await toHost(sums)], [0.75, 8, 1, 9]); // -1 + 4 - 2 + 8
 * ```
 */
export function sequenceStatistics({ logps, statistics }: TokenStatistics, offsets: Tensor): Tensor {
  expectShape("sequence_statistics", "logps", logps.shape, [-1]);
  expectShape("sequence_statistics", "statistics", statistics.shape, [logps.shape[0], 4]);
  const count = offsets.shape[0] - 1;
  const sums = empty(logps.gpu, [count, 4]);
  logps.gpu.dispatch(sequenceStatisticsKernel, {
    constants: {},
    bindings: {
      logps: logps.range,
      statistics: statistics.range,
      offsets: offsets.range,
      sums: sums.range,
    },
    params: { segments: count },
    workgroups: count,
  });
  return sums;
}

/** Where metrics of the statistics go, and what they are means over. */
export interface StatisticsReport {
  /** Which, one after the other from `metric` on. */
  readonly names: readonly StatisticsMetric[];
  /** Which sequences are chosen: the first so many, or those whose label in `[S]` is not 0. */
  readonly chosen: number | Tensor;
  /** Completion tokens of the whole step, on both sides. */
  readonly tokens: { readonly chosen: Scalar; readonly rejected: Scalar };
  /** Of the first. */
  readonly metric: MetricSlot;
}

/**
 * Writes means over a step's tokens into a row of metrics; micro-batches add up exactly.
 *
 * @param sums `[S, 4]` of {@link sequenceStatistics}
 * @param report which means, over which tokens, and where they go
 * @throws {ShapeError} when there is not a label for each sequence
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sums = fromHost(gpu, Float32Array.of(6, 2, 1, 0, 2, 8, 0, 0), { shape: [2, 4] }); // a chosen, a rejected answer
 * const metrics = fromHost(gpu, new Float32Array(2), { shape: [2] });
 * reportStatistics(sums, {
 *   names: ["entropy", "mean_token_accuracy"],
 *   chosen: 1,
 *   tokens: { chosen: 4, rejected: 12 },
 *   metric: { metrics, index: 0, accumulate: false },
 * });
 * assert.deepEqual([...await toHost(metrics)], [0.5, 0.25]);
 * ```
 */
export function reportStatistics(sums: Tensor, report: StatisticsReport): void {
  const { gpu, shape: [count] } = sums;
  const { names, chosen, tokens, metric } = report;
  const labels = typeof chosen === "number" ? undefined : chosen;
  if (labels) expectShape("statistics_metrics", "chosen", labels.shape, [count]);
  gpu.dispatch(statisticsMetrics, {
    constants: { metrics: names, labelled: labels !== undefined },
    bindings: {
      sums: sums.range,
      ...(labels ? { desirable: labels.range } : {}),
      metrics: metric.metrics.range,
    },
    params: {
      segments: count,
      chosen: typeof chosen === "number" ? chosen : 0,
      inverse_tokens: derive([tokens.chosen, tokens.rejected], (a, b) => inverseOrZero(a + b)),
      inverse_chosen: derive([tokens.chosen], inverseOrZero),
      inverse_rejected: derive([tokens.rejected], inverseOrZero),
      metric: metric.index,
      accumulate: flagScalar(metric.accumulate),
    },
    workgroups: 1,
  });
}

/** What a sum over so many is multiplied by: a mean over nothing is 0. */
export function inverseOrZero(count: number): number {
  return count > 0 ? 1 / count : 0;
}

/**
 * WPO's weights (arXiv 2406.11827): w_w w_l, w = exp(mean over an answer's tokens of log p - log sum of p^2), which is 1 a
 * token where the policy is certain. No gradient.
 *
 * @param sums `[2P, 4]` of {@link sequenceStatistics}, the chosen of all pairs first
 * @param offsets `[2P + 1]` that they were made with
 * @returns `[P]`
 * @throws {ShapeError} when the sums are not those of pairs
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, upload } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sums = fromHost(gpu, Float32Array.of(0, 0, 0, -2, 0, 0, 0, -3), { shape: [2, 4] });
 * const [weight] = await toHost(pairWeights(sums, upload(gpu, Uint32Array.of(0, 4, 10)))); // of 4 and 6 tokens
 * assert(Math.abs(weight - Math.exp(-0.5) * Math.exp(-0.5)) < 1e-6);
 * ```
 */
export function pairWeights(sums: Tensor, offsets: Tensor): Tensor {
  const { gpu, shape: [sequences] } = sums;
  if (sequences % 2 !== 0) {
    throw new ShapeError(`Cannot run pair_weights: expected the sums of pairs, found those of ${sequences}`);
  }
  expectShape("pair_weights", "offsets", offsets.shape, [sequences + 1]);
  const pairs = sequences / 2;
  const weights = empty(gpu, [pairs]);
  gpu.dispatch(pairWeightsKernel, {
    constants: {},
    bindings: { sums: sums.range, offsets: offsets.range, weights: weights.range },
    params: { pairs },
    workgroups: Math.ceil(pairs / SEGMENT_WORKGROUP),
  });
  return weights;
}
