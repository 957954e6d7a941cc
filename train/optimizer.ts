/**
 * AdamW over a model's parameter blocks, with global-norm clipping; everything stays on the GPU.
 * @module
 */
import { type Graph, recordGraph } from "../engine/graph.ts";
import { adamw, CLIP_STATE, gradNorm, type GradNormSlot, LOSS_SCALE } from "../engine/ops/adamw.ts";
import { valueOf } from "../engine/queue.ts";
import type { Parameters } from "../engine/parameters.ts";
import { emptyLike, fromHost, release, slice, type Tensor } from "../engine/tensor.ts";
import type { StatePart } from "./checkpoints/run_state.ts";

/** AdamW's settings that do not change from step to step. */
export interface OptimizerOptions {
  /** Decay of the gradients' mean. */
  readonly beta1: number;
  /** Decay of the squared gradients' mean. */
  readonly beta2: number;
  /** Added to the denominator. */
  readonly eps: number;
  /** Decoupled; on matrices only. */
  readonly weightDecay: number;
  /** Clip the global gradient norm to this; 0 means no clipping. */
  readonly maxGradNorm: number;
  /** Dynamic loss scaling, for activations in f16; none by default. */
  readonly lossScale?: LossScaleOptions;
}

/** How the factor of the loss changes: it halves when a gradient overflows, whose step is skipped. */
export interface LossScaleOptions {
  /** At the first step. */
  readonly initial: number;
  /** Good steps in a row after which it doubles. */
  readonly growthInterval: number;
  /** A run whose factor falls below this has another fault than overflow, and ends. */
  readonly minimum: number;
}

/**
 * Loss scaling as PyTorch's GradScaler has it, with an end.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const halvings = Math.log2(DEFAULT_LOSS_SCALE.initial / DEFAULT_LOSS_SCALE.minimum);
 * assert.equal(halvings, 16); // a run whose every step overflows ends after 17
 * ```
 */
export const DEFAULT_LOSS_SCALE: LossScaleOptions = { initial: 2 ** 16, growthInterval: 2000, minimum: 1 };

/** An optimizer with its state. Dispose it when done. */
export interface Optimizer extends Disposable {
  /** Steps so far, with those that were skipped. */
  readonly steps: number;
  /** `[1]`: dL/dL, where a backward starts: 1, or the factor of the loss. */
  readonly seed: Tensor;
  /** Moments, the count of steps and of skipped ones, and the loss's factor. */
  state(): StatePart;
  /**
   * One update from the accumulated gradients; none at all when one of them is not finite.
   *
   * @param learningRate of this step
   * @param slot where the norm before clipping is reported, and with loss scaling the factor
   * @throws {TypeError} when the slot has no place for the factor
   */
  step(learningRate: number, slot: GradNormSlot): void;
}

/**
 * Makes an optimizer.
 *
 * @param parameters trainable parameters
 * @param options settings
 * @returns an optimizer at step zero
 * @throws {TypeError} when the parameters are not trainable: the loss would stay where it is
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { createParameters } from "../engine/parameters.ts";
 * import { writeHost } from "../engine/tensor.ts";
 * import { createMetricsRing } from "./metrics.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * using parameters = createParameters(gpu, new Map([["bias", [2]]]), { trainable: true });
 * using ring = createMetricsRing(gpu, 1);
 * const options = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 };
 * using optimizer = createOptimizer(parameters, options);
 * writeHost(parameters.get("bias").grad!, Float32Array.of(3, -4));
 * optimizer.step(0.1, ring.gradNorm(0));
 * const [down, up] = await parameters.read("bias");
 * assert(Math.abs(down + 0.1) < 1e-5 && Math.abs(up - 0.1) < 1e-5);
 * ```
 */
export function createOptimizer(parameters: Parameters, options: OptimizerOptions): Optimizer {
  const { gpu } = parameters;
  // Before anything is allocated: what is thrown later would leave it behind.
  if (parameters.blocks.some((block) => !block.gradient)) {
    throw new TypeError("Cannot make an optimizer: expected trainable parameters, found frozen ones");
  }
  const zeros = (size: number) => new Float32Array(size);
  const state = fromHost(gpu, zeros(CLIP_STATE.size), { shape: [CLIP_STATE.size], category: "optimizer" });
  const { lossScale } = options;
  const scaleState = fromHost(gpu, zeros(LOSS_SCALE.size).fill(lossScale?.initial ?? 1, 0, 1), {
    shape: [LOSS_SCALE.size],
    category: "optimizer",
  });
  const blocks = parameters.blocks.map((block) => ({
    ...block,
    gradient: block.gradient!,
    moment1: zerosLike(block.weight),
    moment2: zerosLike(block.weight),
  }));
  // Recorded once; these are its scalars.
  const now = { step: 0, learningRate: 0, metric: 0, lossScaleMetric: 0 };
  let recorded: { metrics: Tensor; graph: Graph } | undefined;
  const record = ({ metrics, lossScaleIndex }: GradNormSlot) =>
    recordGraph(gpu, () => {
      gradNorm(blocks.map((block) => block.gradient), state, {
        maxNorm: options.maxGradNorm,
        metric: {
          metrics,
          index: () => now.metric,
          accumulate: false,
          ...(lossScaleIndex === undefined ? {} : { lossScaleIndex: () => now.lossScaleMetric }),
        },
        ...(lossScale ? { lossScale: { state: scaleState, growthInterval: lossScale.growthInterval } } : {}),
      });
      for (const block of blocks) {
        adamw(block, state, {
          ...options,
          learningRate: () => now.learningRate,
          step: () => now.step,
          decayElements: block.decayElements,
        });
      }
    });
  return {
    get steps() {
      return now.step;
    },
    seed: slice(scaleState, { shape: [1], offset: LOSS_SCALE.scale }),
    state: () => ({
      tensors: [
        ...blocks.flatMap(({ moment1, moment2 }, index) => [
          { name: `block${index}/moment1`, tensor: moment1 },
          { name: `block${index}/moment2`, tensor: moment2 },
        ]),
        { name: "clip", tensor: state },
        { name: "loss_scale", tensor: scaleState },
      ],
      numbers: () => ({ steps: now.step }),
      restore({ steps }) {
        now.step = steps;
      },
    }),
    step(learningRate, slot) {
      const { metrics, index, lossScaleIndex = 0 } = slot;
      if (recorded?.metrics !== metrics) {
        recorded?.graph[Symbol.dispose]();
        recorded = undefined;
        recorded = { metrics, graph: record(slot) };
      }
      Object.assign(now, { step: now.step + 1, learningRate });
      Object.assign(now, { metric: valueOf(index), lossScaleMetric: valueOf(lossScaleIndex) });
      recorded.graph.replay();
    },
    [Symbol.dispose]() {
      recorded?.graph[Symbol.dispose]();
      for (const { moment1, moment2 } of blocks) {
        release(moment1);
        release(moment2);
      }
      release(state);
      release(scaleState);
    },
  };
}

function zerosLike(tensor: Tensor): Tensor {
  const zeros = emptyLike(tensor, tensor.shape, {
    owner: "caller",
    label: "optimizer moments",
    category: "optimizer",
  });
  tensor.gpu.queue.clear(zeros.range);
  return zeros;
}
