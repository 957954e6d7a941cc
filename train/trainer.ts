/**
 * The training loop.
 * @module
 */
import { parameterState } from "./checkpoints/parameter_state.ts";
import { namedParts, NO_STATE, type RunState, type StatePart } from "./checkpoints/run_state.ts";
import type { BatchSize } from "./data/batch.ts";
import { createLoader } from "./data/loader.ts";
import { BufferArena } from "../engine/buffers.ts";
import type { MixturePart } from "./data/mixture.ts";
import { splitByTokens } from "./data/token_budget.ts";
import { bucketSize, createMicroBatches } from "./micro_batches.ts";
import { createMetricsRing, meanRecord, type MetricsRecord, wasSkipped } from "./metrics.ts";
import type { Objective } from "./objective.ts";
import { createOptimizer, DEFAULT_LOSS_SCALE, type OptimizerOptions } from "./optimizer.ts";
import { learningRateAt, type LearningRateSchedule } from "./schedule.ts";
import { plainSolver } from "./solvers/plain.ts";
import { diagnoseStep } from "./faults/nonfinite.ts";
import type { SolverReport } from "./solvers/solver.ts";

/**
 * A loss that is not finite, or not what it must be: the run cannot go on.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { NO_PENALTY } from "../engine/ops/pair_loss.ts";
 * import { PAIR_LOSSES } from "./losses/registry.ts";
 * import { preferenceObjective } from "./objective.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: true }); // all zero: ids are equally likely
 * const source = { file: "example" };
 * const chosen = { promptIds: [1, 2], completionIds: [3], source };
 * const rejected = { promptIds: [1, 2], completionIds: [4, 5], source };
 * const pairs = [{ chosen, rejected, source }];
 * using objective = preferenceObjective(model, {
 *   pairs,
 *   reference: { chosen: Float32Array.of(-50), rejected: Float32Array.of(-1) }, // another model's
 *   loss: PAIR_LOSSES.dpo.resolve({}),
 *   spoAt: () => NO_PENALTY,
 *   lambda: 0,
 * });
 * const run = train(objective, {
 *   optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
 *   schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 1 },
 *   batchSize: 1,
 *   seed: 0,
 *   logEvery: 1,
 * });
 * await assert.rejects(run, TrainingError); // the first loss is not log 2
 * ```
 */
export class TrainingError extends Error {
  /** The class, as messages print it. */
  override name = "TrainingError";
}

/** The same, of numbers that are not finite: the step's passes can be run again. */
class NonFiniteError extends TrainingError {
  constructor(message: string, readonly step: number) {
    super(message);
  }
}

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
 * import { initializeModel } from "./models/model_files.ts";
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
function planSteps(objective: Objective, options: TrainOptions): Plan {
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

/** Reads the ring, checks it, and hands means on. What it has not handed on yet is in the ring: both are its progress. */
function createLog(
  objective: Objective,
  options: TrainOptions & {
    plan: Plan;
    ring: ReturnType<typeof createMetricsRing>;
    minimumLossScale: number;
    report: SolverReport;
    /** What in a step is not finite, in words. */
    diagnose: (step: number) => Promise<string>;
    now: () => number;
  },
) {
  const { plan, ring, now } = options;
  const { report } = options;
  const sinceStart: { start: number; fromStep: number; elapsedMs: number; loss?: number } = {
    ...{ start: now(), fromStep: 0, elapsedMs: 0 },
  };
  const state = { step: 0, tokens: 0, textTokens: 0, skipped: 0 };
  const check = (records: readonly Record<string, number>[]) =>
    records.forEach((record, index) => {
      const at = state.step + index + 1;
      if (wasSkipped(records, index, state.skipped)) checkLossScale(record, at, { ...options, objective });
      else checkRecord(record, { step: at, plan, objective, report });
    });
  /** Of the steps since the last line; throws where one is not as it must be. */
  const checkedRecords = async (step: number) => {
    const names = [...objective.metricNames, ...report.metricNames];
    const read = (await ring.read(step - state.step, names)).map(report.derive);
    const { maxNonfinite } = options;
    const records = maxNonfinite === undefined ? read : countSkipped(read, state.skipped, maxNonfinite);
    try {
      check(records);
    } catch (error) {
      if (!(error instanceof NonFiniteError)) throw error;
      throw new TrainingError(`${error.message}: ${await options.diagnose(error.step)}`, { cause: error });
    }
    return records;
  };
  const progress: StatePart = {
    tensors: [{ name: "metrics", tensor: ring.tensor }],
    numbers: () => ({ ...state }),
    restore: (numbers) => void Object.assign(state, numbers),
  };
  return {
    progress,
    get loss() {
      return sinceStart.loss;
    },
    get step() {
      return state.step;
    },
    get tokens() {
      return state.tokens;
    },
    get elapsedMs() {
      return sinceStart.elapsedMs;
    },
    /** Time counts from here, before the step that follows. */
    start(step: number): void {
      Object.assign(sinceStart, { start: now(), fromStep: step });
    },
    async check(step: number): Promise<void> {
      if (step > state.step) await checkedRecords(step);
    },
    async write(step: number): Promise<void> {
      const records = await checkedRecords(step);
      const total = (of: "tokens" | "textTokens", from = state.step) =>
        plan.steps.slice(from, step).reduce((sum, one) => sum + one[of], 0);
      const tokens = state.tokens + total("tokens");
      const textTokens = state.textTokens + total("textTokens");
      const elapsedMs = now() - sinceStart.start;
      const timedTokens = total("tokens", Math.max(state.step, sinceStart.fromStep));
      const means = (objective.meanRecord ?? meanRecord)(records, state.skipped);
      const record = {
        global_step: step,
        epoch: plan.steps[step - 1].epoch,
        ...finiteOnly(means, options.maxNonfinite),
        learning_rate: learningRateAt(options.schedule, step),
        num_tokens: textTokens,
        tokens_per_second: timedTokens / ((elapsedMs - sinceStart.elapsedMs) / 1000),
      };
      const { skipped_steps: skipped = 0 } = records[records.length - 1];
      Object.assign(state, { step, tokens, textTokens, skipped });
      Object.assign(sinceStart, { elapsedMs, loss: means.loss });
      await options.onLog?.(record);
    },
  };
}

/** A step whose gradient overflowed is skipped and its successor's loss scaled less, down to a limit. */
function checkLossScale(
  record: Readonly<Record<string, number>>,
  step: number,
  { minimumLossScale: minimum, plan, objective }: {
    minimumLossScale: number;
    plan: Plan;
    objective: Objective;
  },
): void {
  if (record.loss_scale >= minimum || record.loss_scale === undefined) return;
  throw new NonFiniteError(
    `Cannot go on at step ${step}: expected finite gradients at a loss scale of at least ${minimum}, ` +
      `found ${record.skipped_steps} skipped steps, loss ${record.loss}, grad_norm ${record.grad_norm} in the batch of ` +
      sourcesOf(step, { plan, objective }),
    step,
  );
}

/**
 * Counts the steps whose update was left out for their gradient, up to the bound: what comes after it is no skip.
 *
 * @param skipped before these
 */
function countSkipped(
  records: readonly Record<string, number>[],
  skipped: number,
  most: number,
): Record<string, number>[] {
  let count = skipped;
  return records.map((record) => {
    if (!Number.isFinite(record.grad_norm) && count < most) count++;
    return { ...record, skipped_steps: count };
  });
}

/** Where every step since the last record was skipped there are means of nothing: JSON has no NaN. */
function finiteOnly(
  record: Record<string, number>,
  maxNonfinite: number | undefined,
): Record<string, number> {
  if (maxNonfinite === undefined) return record;
  return Object.fromEntries(Object.entries(record).filter(([, value]) => Number.isFinite(value)));
}

function sourcesOf(step: number, { plan, objective }: { plan: Plan; objective: Objective }): string {
  const sources = Array.from(plan.steps[step - 1].batch, (item) => objective.source(item));
  return `${sources.slice(0, 8).join(", ")}${sources.length > 8 ? ` and ${sources.length - 8} more` : ""}`;
}

/** How far the first loss may be from what policy = reference gives, relative to 1 + that. */
const INITIAL_LOSS_TOLERANCE = 1e-3;

function checkRecord(
  record: Readonly<Record<string, number>>,
  { step, plan, objective, report }: {
    step: number;
    plan: Plan;
    objective: Objective;
    report: SolverReport;
  },
): void {
  const bad = Object.entries(record).find(([, value]) => !Number.isFinite(value));
  if (bad) {
    throw new NonFiniteError(
      `Cannot go on at step ${step}: expected finite numbers, found ${bad[0]} ${bad[1]} in the batch of ` +
        sourcesOf(step, { plan, objective }),
      step,
    );
  }
  const { initialLoss, model } = objective;
  if (step === 1 && initialLoss !== undefined && report.keepsFirstLoss && !model.gpu.isPlanning) {
    if (Math.abs(record.loss - initialLoss) > INITIAL_LOSS_TOLERANCE * (1 + initialLoss)) {
      throw new TrainingError(
        `Cannot trust the reference: expected a first loss of ${initialLoss} (policy = reference), found ${record.loss}`,
      );
    }
  }
  if (step === 1 && record.grad_norm === 0 && !model.gpu.isPlanning) {
    throw new TrainingError(
      "Cannot train: expected a gradient in the first step, found none: nothing that is trained changes the loss",
    );
  }
}

/** Lets signals and timers run; costs well under a millisecond. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
