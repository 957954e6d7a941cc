/**
 * What would make a run fit: other settings, planned one after the other.
 * @module
 */
import type { PlanningOptions } from "../engine/planning_gpu.ts";
import { plannedCheckpoints } from "./checkpoints/run_checkpoints.ts";
import { resolveLoss, resolveUnpaired, type RunConfig } from "./config.ts";
import { DataError } from "./data/errors.ts";
import { formatBytes } from "./format_bytes.ts";
import { fits, type MemoryPlan, PlanError, planRun, requireFit } from "./plan.ts";
import { loadRun, runTraining } from "./run.ts";
import { changeRunData } from "./change_run_data.ts";
import type { RunData } from "./run_data.ts";

type Change = Parameters<typeof changeRunData>[1];

/** One setting that makes a run fit, or why it cannot. */
export interface Remedy {
  /** The flag with its value, or without one where none fits. */
  readonly flag: string;
  /** The run's memory with it, in bytes. */
  readonly totalBytes?: number;
  /** Why it does not help. */
  readonly reason?: string;
}

/**
 * Plans a run on a checkpoint and a data file.
 *
 * @param options whose limits, adapter and budget count
 * @param data what the run reads
 * @param cacheFolder where the real run keeps reference log-probs
 * @returns its memory
 * @throws {PlanError} when a size is past what a kernel or the adapter can do
 */
export async function planTrainingRun(
  options: PlanningOptions,
  data: RunData,
  cacheFolder: string,
): Promise<MemoryPlan> {
  return await planRun(options, async (session) => {
    using prepared = await loadRun(session.gpu, data);
    await runTraining({ ...session, checkpoints: plannedCheckpoints() }, prepared, { cacheFolder });
  });
}

/**
 * Refuses a plan over its budget.
 *
 * @param plan of a run
 * @param remedies finds settings that make it fit; none for runs that have no such settings
 * @param action what the run does, `train` by default
 * @throws {PlanError} naming budget, total, and the settings
 */
export async function refuseOverBudget(
  plan: MemoryPlan,
  remedies: () => Promise<Remedy[]>,
  action = "train",
): Promise<void> {
  if (fits(plan)) return;
  const found = (await remedies()).map(({ flag, totalBytes, reason }) =>
    totalBytes === undefined ? `${flag} does not help: ${reason}` : `${flag} takes ${formatBytes(totalBytes)}`
  );
  requireFit(plan, { action, advice: found.join("; ") });
}

/**
 * The settings that make a run fit, each alone: activation checkpointing, the fewest micro-batches, the largest max
 * length.
 *
 * @param data what the run reads
 * @param plan plans it under a change
 * @returns one remedy a setting
 */
export async function findRemedies(
  data: RunData,
  plan: (changed: RunData) => Promise<MemoryPlan>,
): Promise<Remedy[]> {
  const totalOf = async (change: Change): Promise<{ totalBytes: number; isEnough: boolean }> => {
    const planned = await plan(changeRunData(data, change));
    return { totalBytes: planned.totalBytes, isEnough: fits(planned) };
  };
  return [
    await tryCheckpointing(data.config, totalOf),
    await tryAccumulation(data.config, totalOf),
    await tryLength(data, totalOf),
  ];
}

type TotalOf = (change: Change) => Promise<{ totalBytes: number; isEnough: boolean }>;

async function tryCheckpointing(config: RunConfig, totalOf: TotalOf): Promise<Remedy> {
  const flag = "--activation-checkpointing";
  if (config.activationCheckpointing) return { flag, reason: "it is on" };
  const { totalBytes, isEnough } = await totalOf({ activationCheckpointing: true });
  return isEnough ? { flag, totalBytes } : { flag, reason: stillTakes(totalBytes) };
}

async function tryAccumulation(config: RunConfig, totalOf: TotalOf): Promise<Remedy> {
  const flag = "--gradient-accumulation-steps";
  const { batchSize, gradientAccumulationSteps: current, spo } = config;
  const isCurved = spo.solver !== "none" && (spo.penalty !== "linear" || spo.lambdaSchedule === "dual");
  if (isCurved) return { flag, reason: "this SPO penalty needs the whole batch at once" };
  if (resolveLoss(config)?.needsWholeBatch || resolveUnpaired(config)?.needsKl) {
    return { flag, reason: "this loss needs the whole batch at once" };
  }
  if (current === batchSize) return { flag, reason: "every micro-batch has one item" };
  let last = 0;
  for (let steps = current + 1; steps <= batchSize; steps++) {
    if (batchSize % steps !== 0) continue;
    const { totalBytes, isEnough } = await totalOf({ gradientAccumulationSteps: steps });
    if (isEnough) return { flag: `${flag} ${steps}`, totalBytes };
    last = totalBytes;
  }
  return { flag, reason: `with ${batchSize} it ${stillTakes(last)}` };
}

/** The largest length that fits, by halving; memory never falls as it grows. */
async function tryLength(
  { pairs, evalPairs, examples = [], evalExamples = [], completions = [], evalCompletions = [], config }:
    RunData,
  totalOf: TotalOf,
): Promise<Remedy> {
  const flag = "--max-length";
  const sides = [
    ...[...pairs, ...evalPairs].flatMap(({ chosen, rejected }) => [chosen, rejected]),
    ...[...examples, ...evalExamples, ...completions, ...evalCompletions],
  ];
  const most = (of: (side: typeof sides[number]) => number) =>
    sides.reduce((longest, side) => Math.max(longest, of(side)), 0);
  let low = most(({ promptIds }) => promptIds.length) + 1;
  let high = most(({ promptIds, completionIds }) => promptIds.length + completionIds.length);
  const attempt = async (maxLength: number) => {
    try {
      return await totalOf({ maxLength });
    } catch (error) {
      // So short that too few pairs still differ.
      if (error instanceof DataError || error instanceof PlanError) return undefined;
      throw error;
    }
  };
  const shortest = low < high ? await attempt(low) : undefined;
  if (!shortest?.isEnough) {
    const found = shortest
      ? stillTakes(shortest.totalBytes)
      : `less than ${low} leaves prompts without an answer`;
    return {
      flag,
      reason: shortest ? `with ${low}, which leaves one token after the longest prompt, it ${found}` : found,
    };
  }
  let { totalBytes } = shortest;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    const result = await attempt(middle);
    if (result?.isEnough) [low, totalBytes] = [middle, result.totalBytes];
    else high = middle;
  }
  return { flag: `${flag} ${Math.min(low, config.maxLength)}`, totalBytes };
}

function stillTakes(totalBytes: number): string {
  return `still takes ${formatBytes(totalBytes)}`;
}
