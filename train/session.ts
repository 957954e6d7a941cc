/**
 * What the phases of a run share: the device, the run's folder, and how progress is shown.
 * @module
 */
import { join } from "node:path";
import type { Gpu } from "../engine/gpu.ts";
import { writeFolderAtomically } from "./atomic_folder.ts";
import type { Tokenizer } from "./data/tokenizer.ts";
import type { PairEvaluation } from "./evaluate.ts";
import { evaluateObjective, HELD_OUT_PREFIX, type HeldOutOptions } from "./held_out.ts";
import type { MetricsRecord } from "./metrics.ts";
import type { MetricsSink } from "./metrics_sink.ts";
import { refuseOtherCard, writeCard } from "./model_card/files.ts";
import type { RunCard } from "./model_card/run_card.ts";
import type { Model } from "./models/model.ts";
import { saveAdapter } from "./adapters/adapter_files.ts";
import { saveModel, saveNothing } from "./models/model_files.ts";
import type { Objective } from "./objective.ts";
import type { Progress } from "./progress.ts";
import { formatTable } from "./table.ts";
import { type Checkpoints, train, type TrainOptions, type TrainSummary } from "./trainer.ts";

/** How a run speaks to whoever started it. */
export interface RunHooks {
  /** A line of text. */
  readonly log: (line: string) => void;
  /** A bar for one phase. */
  readonly progress: (label: string, total: number) => Progress;
  /** Aborting it ends the run after the current step. */
  readonly signal?: AbortSignal;
}

/** A run under way. */
export interface Session extends RunHooks {
  readonly gpu: Gpu;
  /** The run's folder. */
  readonly folder: string;
  /** Where its metrics go. */
  readonly metrics: MetricsSink;
  /** What the cards of its models are written from; without it they have none. */
  readonly card?: Pick<RunCard, "text" | "textFor">;
  /** Where a run of one phase is saved and goes on from; nowhere by default. */
  readonly checkpoints?: Checkpoints;
  /** Told when a phase of training has ended. */
  readonly onTrained?: (phase: { name: string; steps: number; summary: TrainSummary }) => void;
}

/** Thrown when the user stopped a run; what was logged is intact. */
export class RunStoppedError extends Error {
  override name = "RunStoppedError";
}

/** Held-out data that is looked at during training. */
export interface HeldOut {
  /** Steps between two looks. */
  readonly every: number;
  /** Made anew for each look: what a loss carries from batch to batch belongs to training. */
  readonly objective: () => Objective;
  readonly options: HeldOutOptions;
}

/**
 * Trains one phase, with its bar and its lines in metrics.jsonl.
 *
 * @param session the run
 * @param options the phase's name, its objective, how to train, and what is looked at meanwhile
 * @throws {RunStoppedError} when the signal was aborted, after the current step
 */
export async function trainPhase(
  session: Session,
  options: {
    name: string;
    objective: Objective;
    train: Omit<TrainOptions, "onLog" | "signal" | "checkpoints">;
    heldOut?: HeldOut;
  },
): Promise<TrainSummary> {
  const { name, objective, heldOut } = options;
  const total = options.train.schedule.maxSteps;
  const progress = session.progress(name, total);
  const onLog = async (record: MetricsRecord) => {
    const step = Number(record.global_step);
    // What a look takes belongs to every plan, whichever steps that runs.
    const isDue = heldOut && (session.gpu.isPlanning || step % heldOut.every === 0 || step === total);
    const evaluation = isDue ? await lookAt(session, { ...heldOut, step }) : {};
    // What exists on the device for this run, in use or kept for the next step.
    const { totalBytes } = session.gpu.stats().memory;
    session.metrics.append({ phase: name, ...record, ...evaluation, gpu_memory_bytes: totalBytes });
    progress.update({
      step,
      loss: numberOf(record.loss),
      rewardAccuracy: numberOf(record["rewards/accuracies"]),
      tokensPerSecond: numberOf(record.tokens_per_second),
      gpuMemoryBytes: totalBytes,
    });
  };
  try {
    const summary = await train(objective, {
      ...options.train,
      ...{ onLog, signal: session.signal, checkpoints: shownCheckpoints(session, progress) },
    });
    session.onTrained?.({ name, steps: total, summary });
    if (summary.wasAborted) throw stopped(session, `${name}, step ${summary.steps} of ${total}`);
    return summary;
  } finally {
    progress.finish();
  }
}

/** A skipped step has no loss. */
function numberOf(value: number | string | undefined): number | undefined {
  return typeof value === "number" ? value : undefined;
}

/** The same, which say on the bar where the run goes on, and have a bar of their own while they save. */
function shownCheckpoints(session: Session, progress: Progress): Checkpoints | undefined {
  const { checkpoints } = session;
  if (!checkpoints) return undefined;
  return {
    async resume(parts) {
      const step = await checkpoints.resume?.(parts) ?? 0;
      if (step > 0) progress.update({ step, resumedFrom: step });
      return step;
    },
    isDue: (step) => checkpoints.isDue(step),
    save: (state) =>
      withBar(session, `saving step ${state.step}`, async (onProgress) => {
        onProgress(0, 1);
        await checkpoints.save(state);
        onProgress(1, 1);
      }),
  };
}

async function lookAt(
  session: Session,
  { objective: make, options, step }: HeldOut & { step: number },
): Promise<Record<string, number>> {
  using objective = make();
  const metrics = await withBar(
    session,
    `evaluation at step ${step}`,
    (onProgress) => evaluateObjective(objective, { ...options, onProgress }),
  );
  return Object.fromEntries(
    Object.entries(metrics).map(([name, value]) => [`${HELD_OUT_PREFIX}${name}`, value]),
  );
}

/**
 * Saves a model, or its adapter alone, in the run's folder; on a planning device, takes the memory for it alone.
 *
 * @param session the run
 * @param model what to save
 * @param options the folder's name, and what is carried along
 */
export async function saveToRun(
  session: Session,
  model: Model,
  { name, ...options }: { name: string } & Omit<SaveOptions, "card">,
): Promise<void> {
  if (session.gpu.isPlanning) return await saveNothing(model.trained);
  const folder = join(session.folder, name);
  const card = session.card?.textFor(folder, model);
  // The folder is replaced whole, with whatever is in it.
  if (card !== undefined) await refuseOtherCard(folder);
  await withBar(
    session,
    `saving ${name}`,
    (onProgress) =>
      session.gpu.uninterrupted(() =>
        writeFolderAtomically(
          folder,
          (partial) => saveTrained(partial, model, { ...options, card, onProgress }),
        )
      ),
  );
}

/** What is carried along with a saved model, and how large its files may be. */
export interface SaveOptions {
  readonly tokenizer: Tokenizer;
  readonly maxShardGb?: number;
  /** Text of its README.md; none by default. */
  readonly card?: string;
  /** Told how many tensors of how many are on their way; not of an adapter, which is small. */
  readonly onProgress?: OnProgress;
}

/**
 * Saves a model, or its adapter alone.
 *
 * @throws {InputError} before anything is written, on a README.md in the way of its card
 */
export async function saveTrained(
  folder: string,
  model: Model,
  { tokenizer, maxShardGb, card, onProgress }: SaveOptions,
): Promise<void> {
  if (card !== undefined) await refuseOtherCard(folder);
  if (model.adapter) await saveAdapter(folder, model, { tokenizer });
  else {
    await saveModel(folder, model, { tokenizer, maxShardBytes: maxShardGb && maxShardGb * 1e9, onProgress });
  }
  if (card !== undefined) await writeCard(folder, card);
}

/** Told how much of how much is done. */
export type OnProgress = (done: number, total: number) => void;

const MIB = 2 ** 20;

/** Takes bytes and tells MiB, the last of them only at the end. */
export function inMebibytes(onProgress: OnProgress): OnProgress {
  return (doneBytes, totalBytes) => {
    const total = Math.ceil(totalBytes / MIB);
    onProgress(doneBytes === totalBytes ? total : Math.floor(doneBytes / MIB), total);
  };
}

/** Shows a bar over something that goes to its end, also when the run is to stop. */
export async function withBar<Result>(
  hooks: Pick<RunHooks, "progress">,
  label: string,
  body: (onProgress: OnProgress) => Promise<Result>,
): Promise<Result> {
  let bar: Progress | undefined;
  try {
    return await body((done, total) => {
      bar ??= hooks.progress(label, total);
      bar.update({ step: done });
    });
  } finally {
    bar?.finish();
  }
}

/** Shows a bar over something that counts and can be stopped, such as reference log-probs. */
export async function withProgress<Result>(
  hooks: Pick<RunHooks, "progress" | "signal">,
  label: string,
  body: (onProgress: OnProgress) => Promise<Result>,
): Promise<Result> {
  const { signal } = hooks;
  try {
    return await withBar(hooks, label, (onProgress) =>
      body((done, total) => {
        onProgress(done, total);
        if (signal?.aborted) throw new RunStoppedError(`Stopped during ${label}`);
      }));
  } catch (error) {
    // The device ends what waits for it with the signal's reason, which knows no place.
    if (signal?.aborted && error === signal.reason) {
      throw new RunStoppedError(`Stopped during ${label}`, { cause: error });
    }
    throw error;
  }
}

function stopped(session: Session, where: string): RunStoppedError {
  return new RunStoppedError(`Stopped at ${where}; ${session.folder}/metrics.jsonl holds what was logged`);
}

/** A row of the results table. */
export interface PhaseResult {
  readonly phase: string;
  /** Share of held-out problems answered exactly right, where the task can tell. */
  readonly exactMatch?: number;
  /** 1 - probability of the chosen answer and its known variants, where the task enumerates them. */
  readonly outOfDistributionMass?: number;
  readonly evaluation: PairEvaluation;
  /** Whether this model is the reference itself: changes against it mean nothing. */
  readonly isReference: boolean;
}

/**
 * The results as a table: a row per phase.
 *
 * @param results in order
 * @returns text for a terminal
 */
export function formatResults(results: readonly PhaseResult[]): string {
  const { headers, rows } = resultsTable(results);
  return formatTable(headers, rows);
}

/**
 * The same as cells.
 *
 * @param results in order
 */
export function resultsTable(
  results: readonly PhaseResult[],
): { headers: string[]; rows: string[][] } {
  const hasMatch = results.some((result) => result.exactMatch !== undefined);
  const headers = [
    "phase",
    ...(hasMatch ? ["exact match", "OOD mass"] : []),
    "logps/chosen",
    "logps/rejected",
    "chosen delta",
    "rejected delta",
    "margin",
    "reward accuracy",
  ];
  return { headers, rows: results.map((result) => cells(result, hasMatch)) };
}

function cells(result: PhaseResult, hasMatch: boolean): string[] {
  const { evaluation, isReference } = result;
  const percent = (
    share: number | undefined,
  ) => (share === undefined ? "-" : `${(share * 100).toFixed(1)} %`);
  const delta = (nats: number) => (isReference ? "-" : `${nats < 0 ? "" : "+"}${nats.toFixed(2)}`);
  return [
    result.phase,
    ...(hasMatch ? [percent(result.exactMatch), percent(result.outOfDistributionMass)] : []),
    evaluation.logpsChosen.toFixed(2),
    evaluation.logpsRejected.toFixed(2),
    delta(evaluation.chosenDelta),
    delta(evaluation.rejectedDelta),
    delta(evaluation.rewardMargin),
    isReference ? "-" : percent(evaluation.rewardAccuracy),
  ];
}
