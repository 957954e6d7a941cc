/**
 * The lower level G of SPO with passes of its own: the negative log-likelihood of the batch's chosen answers, or of a
 * supervised data set.
 * @module
 */
import { spoPenalty, type SpoPenaltyInputs } from "../../engine/ops/spo_penalty.ts";
import { scaledSum } from "../../engine/ops/scaled_sum.ts";
import { empty, fromHost, release, type Tensor } from "../../engine/tensor.ts";
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import { type BatchSize, completionsSize, packSequences } from "../data/batch.ts";
import { formatSource } from "../data/errors.ts";
import type { EncodedCompletion } from "../data/encode.ts";
import { createLoader } from "../data/loader.ts";
import { createMicroBatches, type MicroBatchPlan } from "../micro_batches.ts";
import { type HostBatch, hostBatch } from "../models/batch_tensors.ts";
import { batchSequenceLogps, type Model } from "../models/model.ts";
import type { Objective } from "../objective.ts";
import { deriveSeed } from "../random.ts";
import type { SolverContext } from "./solver.ts";

/** What the lower level is a mean over: each answer's mean over its tokens, or all tokens of the batch alike. */
export type LowerLevelMean = "sequence" | "token";

/** The lower level of a run. */
export interface LowerLevelOptions {
  /** The chosen answers of the pairs, item by item; or the supervised data. */
  readonly completions: readonly EncodedCompletion[];
  /** Items of a step, drawn by the run's seed; those of the step's pairs by default. */
  readonly batchSize?: number;
  /** By default over sequences. */
  readonly mean?: LowerLevelMean;
}

/** A batch of the lower level. */
interface LowerArrays {
  readonly batch: HostBatch;
  /** `[S]`: 1 / completion lengths. */
  readonly weights: Float32Array;
}

/**
 * G = mean of -log pi(y|x) / |y|, or the mean over all tokens; micro-batches add up to the whole batch.
 *
 * @param model trainable
 * @param options the data, and which mean
 * @param options.penalty lambda phi(G - v*) instead of G itself
 * @returns the objective; its metric is the first number of a row, unless the penalty says where its own go
 */
export function lowerLevelObjective(
  model: Model,
  options: LowerLevelOptions & {
    penalty?: (state: { readonly metricsRow: number; readonly step: number }) => Omit<
      SpoPenaltyInputs,
      "microBatch"
    >;
  },
): Objective<LowerArrays> {
  const { completions, mean = "sequence", penalty } = options;
  const pick = (items: Uint32Array) => Array.from(items, (item) => completions[item]);
  const unread = penalty && fromHost(model.gpu, new Float32Array(1), { shape: [1] });
  return {
    model,
    count: completions.length,
    metricNames: ["spo/lower_level"],
    size: (items) => completionsSize(pick(items)),
    pack(items, size) {
      const packed = packSequences(pick(items));
      const weights = Float32Array.from(packed.completionLengths, (length) => 1 / length);
      return { batch: hostBatch(model, packed, size), weights };
    },
    source: (item) => formatSource(completions[item].source),
    forward({ batch, weights }, state) {
      const metric = unread ? { metrics: unread, index: 0, accumulate: false } : {
        metrics: state.metrics,
        index: () => state.metricsRow * METRICS_STRIDE,
        accumulate: () => !state.isFirst,
      };
      const logps = batchSequenceLogps(model, batch);
      const lower = scaledSum(logps, {
        ...(mean === "token"
          ? { scale: () => -1 / state.batchLabels }
          : { weights, scale: () => -1 / state.batchItems }),
        metric,
      });
      if (!penalty) return lower;
      const microBatch = { isFirst: () => state.isFirst, isLast: () => state.isLast };
      return spoPenalty(lower, { ...penalty(state), microBatch });
    },
    [Symbol.dispose]() {
      if (unread) release(unread);
    },
  };
}

/** Passes over the lower level's batch of each step. */
export interface LowerLevel extends Disposable {
  /** `[rows, METRICS_STRIDE]`: G of each pass, the first number of the row that it was given. */
  readonly metrics: Tensor;
  /**
   * Encodes the passes of a step's batch: they add `sign` times the gradient of G.
   *
   * @param step from 1
   * @param options.row where G goes; 0 by default
   * @param options.sign 1 by default
   */
  run(step: number, options?: { row?: number; sign?: 1 | -1 }): void;
}

/**
 * Passes of G alone, for solvers with inner steps.
 *
 * @param context of the run
 * @param options.rows of its metrics
 */
export function createLowerLevel(
  context: SolverContext,
  options: LowerLevelOptions & { rows: number; seed?: Tensor },
): LowerLevel {
  const { model } = context.objective;
  const { gpu } = model;
  const objective = lowerLevelObjective(model, options);
  const metrics = empty(gpu, [options.rows, METRICS_STRIDE], {
    ...{ owner: "caller", label: "lower level's metrics", category: "buffers" },
  });
  const scalar = (value: number) => fromHost(gpu, Float32Array.of(value), { shape: [1] });
  const signs = { 1: scalar(1), [-1]: scalar(-1) };
  const seed = scalar(1);
  const batches = createMicroBatches(objective, {
    plan: planLowerLevel(context, objective, options),
    ...{ metrics, seed: options.seed ?? seed, arena: context.arena },
  });
  return {
    metrics,
    run(step, { row = 0, sign = 1 } = {}) {
      gpu.queue.copy(signs[sign].range, seed.range);
      batches.run(step, row);
    },
    [Symbol.dispose]() {
      batches[Symbol.dispose]();
      objective[Symbol.dispose]();
      for (const tensor of [metrics, seed, signs[1], signs[-1]]) release(tensor);
    },
  };
}

/**
 * The lower level's items of every step, by seed and step alone: a run that is resumed needs only its step.
 *
 * @param context of the run
 * @param objective of the lower level
 * @param options.batchSize items of a step, split as the pairs are; those of the step's pairs by default
 * @throws {DataError} when the data is smaller than a batch
 */
export function planLowerLevel(
  { plan, options: { gradientAccumulationSteps = 1, seed } }: Pick<SolverContext, "plan" | "options">,
  objective: Objective,
  { batchSize }: Pick<LowerLevelOptions, "batchSize">,
): { steps: MicroBatchPlan[]; capacity: BatchSize } {
  const loader = batchSize === undefined
    ? undefined
    : createLoader({ count: objective.count, batchSize, seed: deriveSeed(seed, "lower level") });
  const capacity = { tokens: 0, labels: 0 };
  const all = new Map(plan.all.map((step) => {
    const batch = loader?.next().indices ?? step.batch;
    const size = batch.length / gradientAccumulationSteps;
    const microBatches = loader
      ? step.microBatches.map((_, index) => batch.subarray(index * size, (index + 1) * size))
      : step.microBatches;
    let labels = 0;
    for (const items of microBatches) {
      const needed = objective.size(items);
      capacity.tokens = Math.max(capacity.tokens, needed.tokens);
      capacity.labels = Math.max(capacity.labels, needed.labels);
      labels += needed.labels;
    }
    return [step, { batch, microBatches, labels }];
  }));
  return { steps: plan.steps.map((step) => all.get(step)!), capacity };
}
