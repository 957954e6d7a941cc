/**
 * The steps' numbers as they come back: checked, counted, and handed on as means.
 * @module
 */
import type { StatePart } from "./checkpoints/run_state.ts";
import { type createMetricsRing, meanRecord, wasSkipped } from "./metrics.ts";
import type { Objective } from "./objective.ts";
import { learningRateAt } from "./schedule.ts";
import type { SolverReport } from "./solvers/solver.ts";
import type { Plan } from "./step_plan.ts";
import type { TrainOptions } from "./trainer.ts";
import { TrainingError } from "./training_error.ts";

/** The same, of numbers that are not finite: the step's passes can be run again. */
class NonFiniteError extends TrainingError {
  constructor(message: string, readonly step: number) {
    super(message);
  }
}

/** Reads the ring, checks it, and hands means on. What it has not handed on yet is in the ring: both are its progress. */
export function createLog(
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
