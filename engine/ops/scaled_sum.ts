/**
 * The mean negative log-likelihood and other scaled sums.
 * @module
 */
import { scaleByScalar, scaledSum as scaledSumKernel, SEGMENT_WORKGROUP } from "../../shaders/reduce.ts";
import { type Flag, flagScalar, type Scalar } from "../queue.ts";
import { expectShape } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, type Tensor } from "../tensor.ts";

/** Where a kernel writes a number that the host reads later. */
export interface MetricSlot {
  /** `[rows, METRICS_STRIDE]` or any f32 tensor. */
  readonly metrics: Tensor;
  /** Index of the number in it. */
  readonly index: Scalar;
  /** Add to it (a later micro-batch of the same step) instead of overwriting. */
  readonly accumulate: Flag;
}

/**
 * y = scale * sum of weights[r] x[r]. Without weights, with x = token log-probs and scale = -1 / (tokens of the whole batch) it is the token-mean
 * cross entropy. With x = summed log-probs of sequences, weights = 1 / lengths and scale = -1 / (sequences of the whole
 * batch) it is SPO's lower level G. Both add up exactly over micro-batches.
 *
 * @param x `[R]`
 * @param options.scale the factor
 * @param options.weights `[R]`, no gradient; 1 each by default
 * @param options.metric also written there, when given
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
 * assert.deepEqual([...await toHost(scaledSum(vector(-1, -2, -3, -4), { scale: -1 / 4 }))], [2.5]);
 * const weighted = scaledSum(vector(-2, -6), { weights: vector(1 / 2, 1 / 4), scale: -1 / 2 });
 * assert.deepEqual([...await toHost(weighted)], [1.25]);
 * ```
 */
export function scaledSum(
  x: Tensor,
  options: { scale: Scalar; weights?: Tensor; metric?: MetricSlot },
): Tensor {
  expectShape("scaled_sum", "x", x.shape, [-1]);
  const { gpu, shape: [rows] } = x;
  const { scale, weights } = options;
  if (weights) expectShape("scaled_sum", "weights", weights.shape, [rows]);
  const y = empty(gpu, [1]);
  const metric = options.metric ?? { metrics: empty(gpu, [1]), index: 0, accumulate: false };
  gpu.dispatch(scaledSumKernel, {
    constants: { weighted: weights !== undefined },
    bindings: {
      x: x.range,
      ...(weights ? { weights: weights.range } : {}),
      y: y.range,
      metrics: metric.metrics.range,
    },
    params: { rows, scale, metric: metric.index, accumulate: flagScalar(metric.accumulate) },
    workgroups: 1,
  });
  return record(gpu, {
    name: "scaled_sum",
    inputs: [x],
    output: y,
    // y = scale sum(w x): dX = scale dY w
    backward: (dY, sink) => {
      const dX = sink.into(x);
      if (!dX) return;
      gpu.dispatch(scaleByScalar, {
        constants: { saved: weights !== undefined },
        bindings: {
          d_y: dY.range,
          ...(weights ? { factor: weights.range } : {}),
          d_x: dX.tensor.range,
        },
        params: { rows, scale, accumulate: dX.accumulate ? 1 : 0 },
        workgroups: Math.ceil(rows / SEGMENT_WORKGROUP),
      });
    },
  });
}
