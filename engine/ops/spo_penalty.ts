/**
 * SPO's penalty on a lower level that has a forward pass of its own.
 * @module
 */
import { spoPenalty as spoPenaltyKernel } from "../../shaders/lower_level.ts";
import { scaleByScalar } from "../../shaders/reduce.ts";
import { flagScalar, type Scalar } from "../queue.ts";
import { expectShape } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, type Tensor } from "../tensor.ts";
import {
  type MicroBatch,
  penaltyNow,
  penaltyParams,
  refuseSplitBatch,
  type SpoPenaltyOptions,
} from "./pair_loss.ts";

/** What a call needs besides G. */
export interface SpoPenaltyInputs {
  /** The penalty; a function is asked again at each replay of a graph. Its rho and margin are not read. */
  readonly spo: SpoPenaltyOptions | (() => SpoPenaltyOptions);
  /** From {@link spoState}. */
  readonly state: Tensor;
  /** `[rows, METRICS_STRIDE]` */
  readonly metrics: Tensor;
  /** Indices in it: the loss is added to, the others are written with the last micro-batch. */
  readonly at: Readonly<Record<"loss" | "lowerLevel" | "gap" | "lambda", Scalar>>;
  /** Which part of the step's batch this is. */
  readonly microBatch: Pick<MicroBatch, "isFirst" | "isLast">;
}

/**
 * lambda phi(G - v*).
 *
 * @param lower `[1]`: this micro-batch's part of G
 * @param inputs the penalty, its state, and where it reports
 * @returns `[1]`: zero but for the last micro-batch; its gradient is that of lambda phi for each
 * @throws {RangeError} when a penalty whose slope depends on G is asked for with several micro-batches a step
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, NO_PENALTY, openGpu, spoState, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const loss = spoPenalty(fromHost(gpu, Float32Array.of(1.5), { shape: [1] }), {
 *   spo: { ...NO_PENALTY, penalty: "linear", lambda: 2, vStar: 1 },
 *   state: spoState(gpu, { lambda: 0 }),
 *   metrics: fromHost(gpu, new Float32Array(4), { shape: [4] }),
 *   at: { loss: 0, lowerLevel: 1, gap: 2, lambda: 3 },
 *   microBatch: { isFirst: true, isLast: true },
 * });
 * assert.deepEqual([...await toHost(loss)], [1]); // 2 (1.5 - 1)
 * ```
 */
export function spoPenalty(lower: Tensor, inputs: SpoPenaltyInputs): Tensor {
  const { gpu } = lower;
  const { state, metrics, at, microBatch } = inputs;
  expectShape("spo_penalty", "the lower level", lower.shape, [1]);
  refuseSplitBatch(inputs);
  const [loss, slope] = [empty(gpu, [1]), empty(gpu, [1])];
  gpu.dispatch(spoPenaltyKernel, {
    constants: { penalty: penaltyNow(inputs).penalty },
    bindings: {
      lower: lower.range,
      loss: loss.range,
      slope: slope.range,
      metrics: metrics.range,
      state: state.range,
    },
    params: {
      ...penaltyParams(inputs.spo),
      loss_metric: at.loss,
      lower_metric: at.lowerLevel,
      gap_metric: at.gap,
      lambda_metric: at.lambda,
      is_first: flagScalar(microBatch.isFirst),
      is_last: flagScalar(microBatch.isLast),
    },
    workgroups: 1,
  });
  return record(gpu, {
    name: "spo_penalty",
    inputs: [lower],
    output: loss,
    // loss = lambda phi(G - v*): dG = lambda phi' dLoss
    backward: (dLoss, sink) => {
      const dG = sink.into(lower);
      if (!dG) return;
      gpu.dispatch(scaleByScalar, {
        constants: { saved: true },
        bindings: { d_y: dLoss.range, factor: slope.range, d_x: dG.tensor.range },
        params: { rows: 1, scale: 1, accumulate: dG.accumulate ? 1 : 0 },
        workgroups: 1,
      });
    },
  });
}
