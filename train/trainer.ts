/**
 * The training loop.
 * @module
 */
import { parameterState } from "./checkpoints/parameter_state.ts";
import { namedParts, NO_STATE, type RunState } from "./checkpoints/run_state.ts";
import type { BatchSize } from "./data/batch.ts";
import { BufferArena } from "../engine/buffers.ts";
import type { MixturePart } from "./data/mixture.ts";
import { createMicroBatches } from "./micro_batches.ts";
import { createMetricsRing, type MetricsRecord } from "./metrics.ts";
import type { Objective } from "./objective.ts";
import { createOptimizer, DEFAULT_LOSS_SCALE, type OptimizerOptions } from "./optimizer.ts";
import { learningRateAt, type LearningRateSchedule } from "./schedule.ts";
import { plainSolver } from "./solvers/plain.ts";
import { diagnoseStep } from "./faults/nonfinite.ts";
import { planSteps } from "./step_plan.ts";
import { createLog } from "./train_log.ts";

export { TrainingError } from "./training_error.ts";

/** A run after a step, as the trainer knows it. */
export interface TrainState extends Pick<RunState, "step" | "parts"> {
  /** The mean that was logged last, by which the best checkpoint is told; none before the first, or since resuming. */
  readonly loss?: number;
}

/** Where a run is saved and goes on from. */
export interface Checkpoints {
  /**
   * Called once, before the first step: sets the parts as they were after the step that the run goes on from.
   *
   * @param parts of the run as it starts
   * @returns that step; 0 leaves the run as it starts
   */
  resume?(parts: RunState["parts"]): Promise<number>;
  /** Whether the run is to be saved after this step. */
  isDue(step: number): boolean;
  /**
   * Called after a due step, and after the step in which the signal ended the run; every number of every step so far was
   * finite.
   */
  save(state: TrainState): Promise<void>;
}

/** How to train. */
export interface TrainOptions {
  /** AdamW's settings. */
  readonly optimizer: OptimizerOptions;
  /** Learning rate, and how many steps. */
  readonly schedule: LearningRateSchedule;
  /** Items per step. */
  readonly batchSize: number;
  /** Equal parts that a step is split into. */
  readonly gradientAccumulationSteps?: number;
  /** Most tokens of a micro-batch: parts that have more are split further. */
  readonly batchTokens?: number;
  /** Sources of the items, drawn from by weight. */
  readonly parts?: readonly MixturePart[];
  /** Of the data order. */
  readonly seed: number;
  /** Steps between two readbacks. */
  readonly logEvery: number;
  /** Steps that may be skipped in all for a gradient that is not finite; without it the first one ends the run. */
  readonly maxNonfinite?: number;
  /** Called with each logged record: means over the steps since the last. */
  readonly onLog?: (record: MetricsRecord) => void | Promise<void>;
  /** Aborting it ends the run after the current step. */
  readonly signal?: AbortSignal;
  /** Where the run is saved and goes on from; nowhere by default. */
  readonly checkpoints?: Checkpoints;
  /** Milliseconds, for throughput; performance.now by default. */
  readonly now?: () => number;
}

/** How a run ended. */
export interface TrainSummary {
  /** Steps done, with those before it was resumed. */
  readonly steps: number;
  /** Tokens that went through the model. */
  readonly tokens: number;
  /** From the first step to the last readback. */
  readonly elapsedMs: number;
  /** Whether the signal ended it early. */
  readonly wasAborted: boolean;
  /** Tokens of the largest micro-batch, and labelled tokens of the one that has most. */
  readonly largest: BatchSize;
}

/**
 * Trains a model on an objective. The batches, their order and so the result depend on the seed alone. On a planning
 * device only those steps are run that bring micro-batches of new shapes.
 *
 * @param objective what to minimise
 * @param options settings
 * @returns how far it came
 * @throws {TrainingError} naming step and items when loss or gradient is not finite (that update was not applied), or
 * when the first loss is not what policy = reference gives, or the first gradient is zero
 * @throws {DataError} when the data is smaller than a batch
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { initializeModel } from "./models/initialize.ts";
 * import { sftObjective } from "./objective.ts";
 * import { createRandom } from "./random.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: true });
 * initializeModel(model, createRandom(1));
 * using objective = sftObjective(model, [
 *   { promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } },
 * ]);
 * const losses: number[] = [];
 * await train(objective, {
 *   optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
 *   schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 5 },
 *   batchSize: 1,
 *   seed: 0,
 *   logEvery: 1,
 *   onLog: (record) => void losses.push(Number(record.loss)),
 * });
 * assert(losses[4] < losses[0]);
 * ```
 */
export async function train(objective: Objective, options: TrainOptions): Promise<TrainSummary> {
  const { gpu } = objective.model;
  // What ran before left buffers of other sizes: kept, they would add to this peak. The same holds for what runs after.
  gpu.buffers.trim();
  try {
    // It looks at its own signal, after each step.
    if (!options.signal) return await runSteps(objective, options);
    return await gpu.uninterrupted(() => runSteps(objective, options));
  } finally {
    gpu.buffers.trim();
  }
}

async function runSteps(objective: Objective, options: TrainOptions): Promise<TrainSummary> {
  const { model } = objective;
  const { gpu } = model;
  const plan = planSteps(objective, options);
  const maxSteps = plan.steps.length;
  const lossScale = model.dtype === "f16" ? options.optimizer.lossScale ?? DEFAULT_LOSS_SCALE : undefined;
  using optimizer = createOptimizer(model.trained, { ...options.optimizer, lossScale });
  using ring = createMetricsRing(gpu, options.logEvery, { isScaled: lossScale !== undefined });
  using arena = new BufferArena(gpu.buffers);
  const passes = { metrics: ring.tensor, seed: optimizer.seed, arena };
  using batches = createMicroBatches(objective, { plan, ...passes });
  using solver = (objective.solver ?? plainSolver)({
    objective,
    options,
    plan,
    optimizer,
    batches,
    ring,
    arena,
  });
  const log = createLog(objective, {
    ...options,
    ...{ plan, ring, minimumLossScale: lossScale?.minimum ?? 0, report: solver },
    diagnose: (step) => diagnoseStep(model, batches, { step, metricsRow: 0 }),
    now: options.now ?? (() => performance.now()),
  });
  const parts = namedParts({
    model: parameterState(model.trained),
    optimizer: optimizer.state(),
    objective: objective.state?.() ?? NO_STATE,
    solver: solver.state(),
    trainer: log.progress,
  });
  const saver = createSaver(options.checkpoints, { log, parts });
  let step = await saver.start();
  while (step < maxSteps && !options.signal?.aborted) {
    const metricsRow = step % options.logEvery;
    step++;
    await solver.step({ step, metricsRow, learningRate: learningRateAt(options.schedule, step) });
    objective.afterStep?.(step);
    gpu.queue.submit();
    if (step % options.logEvery === 0) await log.write(step);
    else await nextTask();
    await saver.afterStep(step);
  }
  // Before the line of a window that ends early, which the run that goes on will write in full.
  if (step < maxSteps) await saver.atStop(step);
  // The last steps, or those before an abort.
  if (step > log.step) await log.write(step);
  const { tokens, elapsedMs } = log;
  return { steps: step, tokens, elapsedMs, wasAborted: step < maxSteps, largest: plan.capacity };
}

/** Has a run saved; what is kept is good: the numbers of steps that were not logged yet are looked at first. */
function createSaver(
  checkpoints: Checkpoints | undefined,
  { log, parts }: { log: ReturnType<typeof createLog>; parts: RunState["parts"] },
) {
  let saved = 0;
  const save = async (step: number) => {
    await log.check(step);
    await checkpoints?.save({ step, parts, loss: log.loss });
    saved = step;
  };
  return {
    /** The step that the run goes on after. */
    async start(): Promise<number> {
      saved = await checkpoints?.resume?.(parts) ?? 0;
      log.start(saved);
      return saved;
    },
    async afterStep(step: number): Promise<void> {
      if (checkpoints?.isDue(step)) await save(step);
    },
    async atStop(step: number): Promise<void> {
      if (step > saved) await save(step);
    },
  };
}

/** Lets signals and timers run; costs well under a millisecond. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
