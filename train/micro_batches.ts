/**
 * The forward and backward passes of a step: recorded once for each shape that comes, then replayed.
 * @module
 */
import { GraphCache } from "../engine/graph.ts";
import { createInputs, type Inputs, shapeKey } from "../engine/inputs.ts";
import { Tape } from "../engine/tape.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { BatchSize } from "./data/batch.ts";
import type { MicroBatchState, Objective } from "./objective.ts";

/** Micro-batches of a step. */
export interface MicroBatchPlan {
  /** Items of each. */
  readonly microBatches: readonly Uint32Array[];
  /** Items of the step. */
  readonly batch: Uint32Array;
  /** Labelled tokens of the step. */
  readonly labels: number;
}

/** The passes of a run. Dispose it when done. */
export interface MicroBatches extends Disposable {
  /** Shapes seen so far that were recorded, those that came again after they had been dropped included. */
  readonly recorded: number;
  /**
   * Encodes a step's passes, which add to the gradients; sends all but the last.
   *
   * @param step from 1
   * @param metricsRow where its metrics go
   */
  run(step: number, metricsRow: number): void;
}

/** Graphs kept: some for each size of a batch, in tokens and in labels. */
const MAX_GRAPHS = 64;

/** A run has at most so many sizes of batches, or sizes of 16 rows. */
const BUCKETS = 32;

/**
 * Prepares a run's passes.
 *
 * @param objective what to minimise
 * @param options.plan the steps, and the largest micro-batch of all
 * @param options.metrics `[rows, METRICS_STRIDE]`
 * @param options.seed `[1]`: the loss's gradient, 1 or the factor of loss scaling
 * @returns the passes, in buffers that are reserved here or with the first step of a shape
 * @throws {MemoryBudgetError} when they do not fit the budget
 */
export function createMicroBatches(
  objective: Objective,
  options: {
    plan: { readonly steps: readonly MicroBatchPlan[]; readonly capacity: BatchSize };
    metrics: Tensor;
    seed: Tensor;
  },
): MicroBatches {
  const { gpu } = objective.model;
  const { steps, capacity } = options.plan;
  let inputs: Inputs | undefined;
  const graphs = new GraphCache(gpu, { maxGraphs: MAX_GRAPHS });
  const state: MicroBatchState = {
    ...{ step: 0, isFirst: true, isLast: true, batchItems: 0, batchLabels: 0, metricsRow: 0 },
    batch: new Uint32Array(),
    metrics: options.metrics,
  };
  return {
    get recorded() {
      return graphs.recorded;
    },
    run(step, metricsRow) {
      const { microBatches, batch, labels } = steps[step - 1];
      Object.assign(state, { step, metricsRow, batchItems: batch.length, batchLabels: labels, batch });
      inputs ??= createInputs(gpu, objective.pack(microBatches[0], capacity));
      for (const [index, items] of microBatches.entries()) {
        state.isFirst = index === 0;
        state.isLast = index === microBatches.length - 1;
        const arrays = objective.pack(items, bucketSize(objective.size(items), capacity));
        const tensors = inputs.write(arrays);
        graphs.run(shapeKey(arrays), () => {
          using tape = new Tape(gpu);
          tape.backward([{ tensor: objective.forward(tensors, state), gradient: options.seed }]);
        });
        if (!state.isLast) gpu.queue.submit();
      }
    },
    [Symbol.dispose]() {
      graphs[Symbol.dispose]();
      inputs?.[Symbol.dispose]();
    },
  };
}

/**
 * The size that a micro-batch is padded to: few sizes, so that few graphs are recorded, and none larger than the largest
 * batch, so that batches of one size are not padded at all.
 *
 * @param size of the micro-batch
 * @param largest of the run
 * @returns at least `size`: 1/64 of the largest more on average, where batches have more than a few hundred tokens
 */
export function bucketSize(size: BatchSize, largest: BatchSize): BatchSize {
  const round = (of: keyof BatchSize) => {
    const step = Math.ceil(Math.max(1, largest[of] / BUCKETS / 16)) * 16;
    return Math.min(largest[of], Math.ceil(size[of] / step) * step);
  };
  return { tokens: round("tokens"), labels: round("labels") };
}
