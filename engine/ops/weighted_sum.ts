/**
 * A sum with a weight for each number: the mean of length-normalised log-likelihoods.
 * @module
 */
import { weightedSum as weightedSumKernel } from "../../shaders/lower_level.ts";
import { scaleByScalar, SEGMENT_WORKGROUP } from "../../shaders/reduce.ts";
import { flagScalar, type Scalar } from "../queue.ts";
import { expectShape } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, type Tensor } from "../tensor.ts";
import type { MetricSlot } from "./scaled_sum.ts";

/**
 * y = scale * sum of weights[r] x[r]. With x = summed log-probs of sequences, weights = 1 / lengths and scale =
 * -1 / (sequences of the whole batch) it is SPO's lower level G, which adds up over micro-batches.
 *
 * @param x `[R]`
 * @param options.weights `[R]`; no gradient
 * @param options.scale the factor
 * @param options.metric also written there
 * @returns `[1]`
 * @throws {ShapeError} when x is not a vector, or the weights are not as many
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const vector = (...values: number[]) => fromHost(gpu, Float32Array.from(values), { shape: [values.length] });
 * const metric = { metrics: vector(0), index: 0, accumulate: false };
 * const sum = weightedSum(vector(-2, -6), { weights: vector(1 / 2, 1 / 4), scale: -1 / 2, metric });
 * assert.deepEqual([...await toHost(sum)], [1.25]);
 * ```
 */
export function weightedSum(
  x: Tensor,
  options: { weights: Tensor; scale: Scalar; metric: MetricSlot },
): Tensor {
  expectShape("weighted_sum", "x", x.shape, [-1]);
  const { gpu, shape: [rows] } = x;
  const { weights, scale, metric } = options;
  expectShape("weighted_sum", "weights", weights.shape, [rows]);
  const y = empty(gpu, [1]);
  gpu.dispatch(weightedSumKernel, {
    constants: {},
    bindings: { x: x.range, weights: weights.range, y: y.range, metrics: metric.metrics.range },
    params: { rows, scale, metric: metric.index, accumulate: flagScalar(metric.accumulate) },
    workgroups: 1,
  });
  return record(gpu, {
    name: "weighted_sum",
    inputs: [x],
    output: y,
    // y = scale sum(w x): dX = scale dY w
    backward: (dY, sink) => {
      const dX = sink.into(x);
      if (!dX) return;
      gpu.dispatch(scaleByScalar, {
        constants: { saved: true },
        bindings: { d_y: dY.range, factor: weights.range, d_x: dX.tensor.range },
        params: { rows, scale, accumulate: dX.accumulate ? 1 : 0 },
        workgroups: Math.ceil(rows / SEGMENT_WORKGROUP),
      });
    },
  });
}
