/**
 * Training whose batches are shared among ranks, from the parts that a trainer has.
 *
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import { createMetricsRing } from "../../train/metrics.ts";
import { createMicroBatches } from "../../train/micro_batches.ts";
import type { Model } from "../../train/models/model.ts";
import type { Communicator } from "../../train/mpi/communicator.ts";
import { allReduceGradients } from "../../train/mpi/gradients.ts";
import { shardStep } from "../../train/mpi/shards.ts";
import { type Objective, preferenceObjective, sftObjective } from "../../train/objective.ts";
import { createOptimizer } from "../../train/optimizer.ts";
import { DEFAULT_OPTIMIZER } from "../../train/optimizer_defaults.ts";
import { referenceLogps } from "../../train/reference.ts";
import { planSteps } from "../../train/step_plan.ts";
import { randomCompletions, randomPairs, readWeights, tinyModel } from "../tiny_model.ts";

/** Items of a step over all ranks: it divides by 1, 2 and 4 ranks in each of two micro-batches. */
const BATCH_SIZE = 8;

/** Objectives whose texts all differ in length, so that ranks have unlike shares of the labels. */
export const OBJECTIVES: Readonly<Record<"sft" | "dpo", (model: Model) => Promise<Objective>>> = {
  sft: (model) => Promise.resolve(sftObjective(model, randomCompletions(24, 3))),
  async dpo(model) {
    const pairs = randomPairs(24, 5);
    return preferenceObjective(model, {
      ...{ pairs, lambda: 0, spoAt: () => NO_PENALTY, loss: PAIR_LOSSES.dpo.resolve({}) },
      reference: await referenceLogps(model, pairs),
    });
  },
};

/** What a rank knows at the end. */
export interface ShardedRun {
  /** Of each step, over all ranks. */
  readonly losses: Float64Array;
  /** Before clipping, of the summed gradients. */
  readonly gradNorms: Float64Array;
  readonly weights: Float32Array;
}

/**
 * Trains a tiny model.
 *
 * @param gpu The device.
 * @param communicator This rank.
 * @param options.steps How many.
 * @param options.bucketBytes Of the exchange of gradients.
 */
export async function trainSharded(
  gpu: Gpu,
  communicator: Communicator,
  { kind, steps: maxSteps, bucketBytes }: {
    kind: keyof typeof OBJECTIVES;
    steps: number;
    bucketBytes?: number;
  },
): Promise<ShardedRun> {
  using model = tinyModel(gpu);
  using objective = await OBJECTIVES[kind](model);
  const learningRate = 1e-2;
  const plan = planSteps(objective, {
    ...{ optimizer: DEFAULT_OPTIMIZER, batchSize: BATCH_SIZE, gradientAccumulationSteps: 2, seed: 1 },
    ...{ logEvery: maxSteps, schedule: { kind: "constant", learningRate, warmupSteps: 0, maxSteps } },
  });
  const steps = plan.steps.map((step) => shardStep(step, communicator));
  using optimizer = createOptimizer(model.trained, DEFAULT_OPTIMIZER);
  using ring = createMetricsRing(gpu, maxSteps);
  const passes = { metrics: ring.tensor, seed: optimizer.seed };
  using batches = createMicroBatches(objective, { plan: { ...plan, steps }, ...passes });
  for (let row = 0; row < maxSteps; row++) {
    model.trained.zeroGradients();
    batches.run(row + 1, row);
    await allReduceGradients(model.trained, communicator, { bucketBytes });
    optimizer.step(learningRate, ring.gradNorm(row));
    gpu.queue.submit();
  }
  const records = await ring.read(maxSteps, objective.metricNames);
  const losses = Float64Array.from(records, ({ loss }) => loss);
  await communicator.allReduce(losses);
  const gradNorms = Float64Array.from(records, ({ grad_norm }) => grad_norm);
  return { losses, gradNorms, weights: await readWeights(model) };
}
