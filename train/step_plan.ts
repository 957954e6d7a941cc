/**
 * What the steps of a run are made of, known before the first.
 * @module
 */
import type { BatchSize } from "./data/batch.ts";
import { createLoader } from "./data/loader.ts";
import { splitByTokens } from "./data/token_budget.ts";
import { bucketSize } from "./micro_batches.ts";
import type { Objective } from "./objective.ts";
import type { TrainOptions } from "./trainer.ts";

/** What a step is made of. */
export interface StepPlan {
  /** Its items. */
  readonly batch: Uint32Array;
  /** The same in equal parts. */
  readonly microBatches: readonly Uint32Array[];
  /** Epochs done after it. */
  readonly epoch: number;
  /** Tokens that go through the model. */
  readonly tokens: number;
  /** Labelled ones. */
  readonly labels: number;
  /** Tokens of its texts: a prompt that both sides share counts for both. */
  readonly textTokens: number;
}

/** What a run is made of. */
export interface Plan {
  /** The steps that are run, in order. */
  readonly steps: readonly StepPlan[];
  /** The same, and those that a planning device leaves out. */
  readonly all: readonly StepPlan[];
  /** The largest micro-batch. */
  readonly capacity: BatchSize;
  /** Full batches of an epoch. */
  readonly batchesPerEpoch: number;
}

/** Every step's items and the largest micro-batch, known before the first: buffers are sized once. */
export function planSteps(objective: Objective, options: TrainOptions): Plan {
  const { batchSize, gradientAccumulationSteps = 1, batchTokens, seed, parts } = options;
  const loader = createLoader({ count: objective.count, batchSize, seed, parts });
  const capacity = { tokens: 0, labels: 0 };
  const steps = Array.from({ length: options.schedule.maxSteps }, (): StepPlan => {
    const { epoch, batch: position, indices } = loader.next();
    const size = batchSize / gradientAccumulationSteps;
    const equal = Array.from(
      { length: gradientAccumulationSteps },
      (_, index) => indices.subarray(index * size, (index + 1) * size),
    );
    const microBatches = batchTokens === undefined
      ? equal
      : equal.flatMap((items) => splitByTokens(items, { ...objective, maxTokens: batchTokens }));
    let [tokens, labels] = [0, 0];
    for (const items of microBatches) {
      const needed = objective.size(items);
      capacity.tokens = Math.max(capacity.tokens, needed.tokens);
      capacity.labels = Math.max(capacity.labels, needed.labels);
      tokens += needed.tokens;
      labels += needed.labels;
    }
    return {
      batch: indices,
      microBatches,
      tokens,
      labels,
      textTokens: objective.textTokens?.(indices) ?? tokens,
      epoch: epoch + (position + 1) / loader.batchesPerEpoch,
    };
  });
  const { batchesPerEpoch } = loader;
  const isPlanning = objective.model.gpu.isPlanning;
  return {
    all: steps,
    steps: isPlanning ? stepsOfNewShapes(steps, { objective, capacity }) : steps,
    capacity,
    batchesPerEpoch,
  };
}

/** Steps with a micro-batch of a shape that none before had: what is allocated depends on shapes alone. */
function stepsOfNewShapes(
  steps: readonly StepPlan[],
  { objective, capacity }: { objective: Objective; capacity: BatchSize },
): StepPlan[] {
  const seen = new Set<string>();
  return steps.filter(({ microBatches }) => {
    const before = seen.size;
    for (const items of microBatches) {
      const { tokens, labels } = bucketSize(objective.size(items), capacity);
      seen.add(`${items.length} ${tokens} ${labels}`);
    }
    return seen.size > before;
  });
}
