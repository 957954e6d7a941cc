/**
 * The optimizer's kernels over flat buffers: gradient norm with finite check, and AdamW.
 * @module
 */
import { adamw as adamwKernel, ADAMW_WORKGROUP } from "../../shaders/adamw.ts";
import {
  CLIP_STATE,
  clipState,
  LOSS_SCALE,
  SQUARE_SUM_WORKGROUPS,
  squareSumPartial,
} from "../../shaders/reduce.ts";
import { derive, type Scalar } from "../queue.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { empty, scope, type Tensor } from "../tensor.ts";
import type { MetricSlot } from "./scaled_sum.ts";

export { CLIP_STATE, LOSS_SCALE };

/** Where the gradient norm is reported. */
export interface GradNormSlot extends MetricSlot {
  /** Index in the same tensor of the loss scale, where there is one; the count of skipped steps follows it. */
  readonly lossScaleIndex?: Scalar;
}

/** Dynamic loss scaling: what the gradients were multiplied by, and how that changes. */
export interface LossScale {
  /** `[4]`, see {@link LOSS_SCALE}: its first number is the factor; updated in place. */
  readonly state: Tensor;
  /** Good steps after which the factor doubles. */
  readonly growthInterval: number;
}

/**
 * The global norm of all gradients, the factor that clips it, and whether it is finite; stays on the GPU.
 *
 * @param gradients flat f32 buffers
 * @param state `[4]`, zero before the first step: receives norm, coefficient, 1 if finite, and the count of steps that
 * were not (see {@link CLIP_STATE})
 * @param options.maxNorm clip to this; 0 means no clipping
 * @param options.metric where the norm is reported
 * @param options.lossScale what the gradients were multiplied by: norm and coefficient are of the gradients without it
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const vector = (...values: number[]) => fromHost(gpu, Float32Array.from(values), { shape: [4] });
 * const [gradient, state, metrics] = [vector(3, 0, 0, 4), vector(0, 0, 0, 0), vector(0, 0, 0, 0)];
 * gradNorm([gradient], state, { maxNorm: 1, metric: { metrics, index: 2, accumulate: false } });
 * assert.deepEqual([...await toHost(metrics)], [0, 0, 5, 0]);
 * assert(Math.abs((await toHost(state))[CLIP_STATE.coefficient] - 1 / 5) < 1e-6);
 * ```
 */
export function gradNorm(
  gradients: readonly Tensor[],
  state: Tensor,
  options: { maxNorm: number; metric: GradNormSlot; lossScale?: LossScale },
): void {
  expectShape("grad_norm", "the state", state.shape, [CLIP_STATE.size]);
  const { gpu } = state;
  const lanes = gpu.adapter.isCpu ? 8 : 64;
  scope(gpu, () => {
    const partial = empty(gpu, [gradients.length * SQUARE_SUM_WORKGROUPS]);
    gradients.forEach((gradient, index) =>
      gpu.dispatch(squareSumPartial, {
        constants: { lanes },
        bindings: { x: gradient.range, partial: partial.range },
        params: { quads: Math.ceil(sizeOf(gradient.shape) / 4), first: index * SQUARE_SUM_WORKGROUPS },
        workgroups: SQUARE_SUM_WORKGROUPS,
      })
    );
    const { maxNorm, metric, lossScale } = options;
    gpu.dispatch(clipState, {
      constants: { scaled: lossScale !== undefined },
      bindings: {
        partial: partial.range,
        state: state.range,
        metrics: metric.metrics.range,
        ...(lossScale ? { loss_scale: lossScale.state.range } : {}),
      },
      params: {
        count: partial.shape[0],
        max_norm: maxNorm,
        metric: metric.index,
        ...(lossScale ? scaleParams(lossScale, metric) : {}),
      },
      workgroups: 1,
    });
  });
}

function scaleParams(
  { growthInterval }: LossScale,
  { lossScaleIndex }: GradNormSlot,
): Record<string, Scalar> {
  if (lossScaleIndex === undefined) {
    throw new TypeError("Cannot scale the loss: expected a place where the scale is reported, found none");
  }
  return { growth_interval: growthInterval, scale_metric: lossScaleIndex };
}

/** AdamW's numbers for one step. */
export interface AdamwOptions {
  /** Of this step. */
  readonly learningRate: Scalar;
  /** Decay of the gradients' mean. */
  readonly beta1: number;
  /** Decay of the squared gradients' mean. */
  readonly beta2: number;
  /** Added to the denominator. */
  readonly eps: number;
  /** Decoupled: times the learning rate, on the decaying elements. */
  readonly weightDecay: number;
  /** From 1, with those that were skipped; t is without them. */
  readonly step: Scalar;
  /** Elements at the start of the buffer that decay. */
  readonly decayElements: number;
}

/** One flat buffer's arrays, all of one shape. */
export interface AdamwTensors {
  /** Updated in place. */
  readonly weight: Tensor;
  /** Read. */
  readonly gradient: Tensor;
  /** Mean of the gradients, updated in place. */
  readonly moment1: Tensor;
  /** Mean of the squared gradients, updated in place. */
  readonly moment2: Tensor;
  /** Receives the new weights as f16. */
  readonly copy?: Tensor;
}

/**
 * One AdamW update in place (arXiv 1711.05101, as torch.optim.AdamW).
 *
 * @param tensors weight, gradient and moments, and the f16 copy of the weight where there is one
 * @param state from {@link gradNorm}: clips, and skips the update when a gradient is not finite
 * @param options the step and its numbers
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const fill = (value: number) => fromHost(gpu, new Float32Array(4).fill(value), { shape: [4] });
 * const [weight, gradient, moment1, moment2, state, metrics] = [1, 0.5, 0, 0, 0, 0].map(fill);
 * gradNorm([gradient], state, { maxNorm: 0, metric: { metrics, index: 0, accumulate: false } });
 * adamw({ weight, gradient, moment1, moment2 }, state, {
 *   learningRate: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, step: 1, decayElements: 0,
 * });
 * const [updated] = await toHost(weight);
 * assert(Math.abs(updated - 0.9) < 1e-5); // the first step is as long as the learning rate
 * ```
 */
export function adamw(tensors: AdamwTensors, state: Tensor, options: AdamwOptions): void {
  const { weight, gradient, moment1, moment2, copy } = tensors;
  const { learningRate, beta1, beta2, eps, weightDecay, step } = options;
  const quads = Math.ceil(sizeOf(weight.shape) / 4);
  weight.gpu.dispatch(adamwKernel, {
    constants: { copy: copy !== undefined },
    bindings: {
      gradient: gradient.range,
      state: state.range,
      weight: weight.range,
      moment1: moment1.range,
      moment2: moment2.range,
      ...(copy ? { copy: copy.range } : {}),
    },
    params: {
      quads,
      decay_quads: Math.floor(options.decayElements / 4),
      decay_factor: derive([learningRate], (rate) => 1 - rate * weightDecay),
      learning_rate: learningRate,
      step,
      beta1,
      beta2,
      one_minus_beta1: 1 - beta1,
      one_minus_beta2: 1 - beta2,
      log_beta1: finiteLog(beta1),
      log_beta2: finiteLog(beta2),
      eps,
    },
    workgroups: Math.ceil(quads / ADAMW_WORKGROUP),
  });
}

/** log(beta); for beta = 0 a number whose exponential is zero too. */
function finiteLog(beta: number): number {
  return Math.max(Math.log(beta), -1e4);
}
