/**
 * A run on a checkpoint and a data file: load, reference, train, evaluate, save.
 * @module
 */
import { loadAdapter } from "./adapters/adapter_files.ts";
import { addLora, withAdapterOff } from "./adapters/lora.ts";
import { loraOptionsOf } from "./adapters/lora_settings.ts";
import { CHECKPOINTS_FOLDER } from "./checkpoints/folders.ts";
import type { RunConfig } from "./config.ts";
import { resolveLoss, resolveSync, resolveUnpaired } from "./config.ts";
import type { EncodedCompletion, EncodedExample, EncodedPair } from "./data/encode.ts";
import type { MixturePart } from "./data/mixture.ts";
import { runCompletions, type SftResult } from "./run_completions.ts";
import { runUnpaired } from "./run_unpaired.ts";
import { comparePairs, evaluatePairs } from "./evaluate.ts";
import { LOG_ENTRIES } from "./logs/run_logs.ts";
import type { Model } from "./models/model.ts";
import { type LoadedModel, loadModel, loadNothing } from "./models/model_files.ts";
import { type Objective, preferenceObjective, sftObjective } from "./objective.ts";
import type { RunData } from "./run_data.ts";
import { type LiveReference, liveReference } from "./live_reference.ts";
import { givenReference, type ReferenceLogps } from "./reference.ts";
import { cachedReferenceLogps } from "./reference_cache.ts";
import {
  formatResults,
  type HeldOut,
  type OnProgress,
  type PhaseResult,
  saveToRun,
  type Session,
  trainPhase,
  withProgress,
} from "./session.ts";
import type { Gpu } from "../engine/gpu.ts";
import { spoStrategy } from "./solvers/spo_strategy.ts";
import type { TrainOptions } from "./trainer.ts";

/** Names in a run's folder besides config.json. */
export const RUN_ENTRIES = [
  ...LOG_ENTRIES,
  "results.json",
  "samples.jsonl",
  "report.html",
  "model",
  CHECKPOINTS_FOLDER,
];

/** Everything a run needs, on the device; nothing is written yet. */
export interface PreparedRun extends Disposable {
  readonly config: RunConfig;
  readonly loaded: LoadedModel;
  /** Whether it goes on from an adapter: then the model as it starts is not its base. Not by default. */
  readonly continuesAdapter?: boolean;
  readonly pairs: readonly EncodedPair[];
  readonly evalPairs: readonly EncodedPair[];
  /** SPO's lower level, where it has data of its own. */
  readonly sft?: readonly EncodedCompletion[];
  /** In their place, where the loss is on labelled answers. */
  readonly examples?: readonly EncodedExample[];
  /** Held-out ones. */
  readonly evalExamples?: readonly EncodedExample[];
  /** In their place, where supervised data are no preferences. */
  readonly completions?: readonly EncodedCompletion[];
  /** Held-out ones. */
  readonly evalCompletions?: readonly EncodedCompletion[];
  /** Sources of what is trained on, drawn from by weight. */
  readonly parts?: readonly MixturePart[];
}

/** What a run's loss is made of: everything but its tokenizer. */
export type RunParts = Omit<PreparedRun, "loaded" | keyof Disposable> & {
  readonly loaded: Pick<LoadedModel, "model">;
};

/**
 * Loads the model of a run; on a planning device, takes the memory for it alone.
 *
 * @param gpu the device
 * @param data of {@link readRunData}
 * @param options.onProgress told how many bytes of how many are loaded
 * @throws {CheckpointError} naming file and tensor
 */
export async function loadRun(
  gpu: Gpu,
  data: RunData,
  { onProgress }: { onProgress?: OnProgress } = {},
): Promise<PreparedRun> {
  const { config, folder, adapter, modelConfig, tokenizer, maxLength, pairs, evalPairs, sft } = data;
  const { examples, evalExamples, completions, evalCompletions, parts } = data;
  const { activationCheckpointing, dtype, lora, baseDtype } = config;
  const trainable = adapter === undefined && lora.rank === undefined;
  const options = { trainable, positions: maxLength, activationCheckpointing, dtype, storage: baseDtype };
  const base = gpu.isPlanning
    ? loadNothing(gpu, modelConfig, options)
    : (await loadModel(gpu, folder, { ...options, onProgress })).model;
  try {
    const model = trainable ? base : await adapt(base, data);
    return {
      ...{
        config,
        loaded: { model, tokenizer },
        pairs,
        evalPairs,
        sft,
        continuesAdapter: adapter !== undefined,
      },
      ...(examples ? { examples, evalExamples } : {}),
      ...(completions ? { completions, evalCompletions } : {}),
      ...(parts ? { parts } : {}),
      [Symbol.dispose]: () => model[Symbol.dispose](),
    };
  } catch (error) {
    base[Symbol.dispose]();
    throw error;
  }
}

async function adapt(base: Model, { config, adapter }: RunData): Promise<Model> {
  if (adapter !== undefined) return await loadAdapter(base, adapter, { trainable: true, base: config.base });
  const { rank } = config.lora;
  return addLora(
    base,
    loraOptionsOf({ ...config.lora, rank: rank! }, { seed: config.seed, base: config.model! }),
  );
}

/**
 * Trains a prepared run and saves the model.
 *
 * @param session the run; model and metrics go to its folder
 * @param prepared from {@link loadRun}
 * @param options.cacheFolder where reference log-probs are kept
 * @returns results before and after
 * @throws {RunStoppedError} when it was stopped
 */
export async function runTraining(
  session: Session,
  prepared: PreparedRun,
  options: { cacheFolder: string },
): Promise<readonly (PhaseResult | SftResult)[]> {
  if (prepared.examples) return await runUnpaired(session, prepared);
  if (prepared.completions) return await runCompletions(session, prepared);
  const { config, loaded: { model, tokenizer }, pairs, evalPairs } = prepared;
  const { beta = 1, ldAlpha } = resolveLoss(config) ?? {};
  const isReference = startsAtReference(prepared);
  const cached = async (label: string, of: readonly EncodedPair[], ldAlpha?: number) =>
    givenReference(of) ?? await withProgress(session, label, (onProgress) => {
      const keep = (reference: Model) =>
        cachedReferenceLogps(reference, of, { folder: options.cacheFolder, onProgress, ldAlpha });
      // A fresh adapter changes nothing, and its base's log-probs may be there from other runs.
      const isBase = !prepared.continuesAdapter || config.lora.reference === "base";
      return isBase ? withAdapterOff(model, keep) : keep(model);
    });
  const evalReference = await cached("evaluation before", evalPairs);
  const before = isReference
    ? comparePairs(evalReference, { reference: evalReference, beta })
    : await withProgress(
      session,
      "evaluation before",
      (onProgress) => evaluatePairs(model, evalPairs, { reference: evalReference, beta, onProgress }),
    );
  using live = config.loss === "sft" || config.precomputeReference ? undefined : liveReferenceOf(prepared);
  const isRead = config.loss !== "sft" && !live;
  const reference = live ?? (isRead ? await cached("reference log-probs", pairs, ldAlpha) : undefined);
  using objective = makeObjective(prepared, reference);
  const name = config.spo.solver === "none" ? config.loss : `${config.loss}+spo`;
  const heldOutReference = config.evalSteps === undefined || !isRead || ldAlpha === undefined
    ? evalReference
    : await cached("held-out reference log-probs", evalPairs, ldAlpha);
  await trainPhase(session, {
    ...{ name, objective, train: trainOptions(config, prepared.parts) },
    ...heldOutOf(config, () => {
      const spo = { ...config.spo, solver: "none" as const };
      const of = { ...prepared, pairs: evalPairs, config: { ...config, spo } };
      return makeObjective(of, isRead ? heldOutReference : reference);
    }),
  });
  await saveToRun(session, model, { name: "model", tokenizer, maxShardGb: config.maxShardGb });
  const after = await withProgress(
    session,
    "evaluation after",
    (onProgress) => evaluatePairs(model, evalPairs, { reference: evalReference, beta, onProgress }),
  );
  const results: PhaseResult[] = [
    { phase: "before", isReference, evaluation: before },
    { phase: "after", isReference: false, evaluation: after },
  ];
  session.log(`\n${evalPairs.length} ${config.evalData ? "held-out" : "training"} pairs, ${name}:`);
  session.log(formatResults(results));
  return results;
}

/**
 * What a run looks at meanwhile, to be spread into the options of `trainPhase`: the loss without SPO on held-out data.
 *
 * @param config with `evalSteps`, or without, for a run that does not look
 * @param objective makes the loss on held-out data
 */
export function heldOutOf(config: RunConfig, objective: () => Objective): { heldOut?: HeldOut } {
  if (config.evalSteps === undefined) return {};
  const isCoupled = resolveUnpaired(config) !== undefined || resolveLoss(config)?.needsWholeBatch === true;
  return {
    heldOut: { every: config.evalSteps, objective, options: { batchSize: config.batchSize, isCoupled } },
  };
}

/** Whether the reference is the model as the run finds it. */
export function startsAtReference({ config, continuesAdapter, pairs, evalPairs }: RunParts): boolean {
  if (givenReference(pairs) ?? givenReference(evalPairs)) return false;
  return !continuesAdapter || config.lora.reference === "start";
}

/** The reference to run in every step. A fresh adapter's base is the model as it starts, and takes no memory. */
export function liveReferenceOf({ config, loaded: { model }, continuesAdapter }: RunParts): LiveReference {
  const isBase = model.adapter !== undefined && (!continuesAdapter || config.lora.reference === "base");
  return liveReference(model, { reference: isBase ? "base" : "start", sync: resolveSync(config) });
}

/** What a run minimises. */
export function makeObjective(prepared: RunParts, reference?: ReferenceLogps | LiveReference): Objective {
  const { config, loaded: { model }, pairs, sft, completions } = prepared;
  const loss = resolveLoss(config);
  if (!loss || !reference) return sftObjective(model, completions ?? pairs.map((pair) => pair.chosen));
  const { spo, maxSteps, batchSize } = config;
  const strategy = spoStrategy(spo, {
    maxSteps,
    chosen: pairs.map((pair) => pair.chosen),
    ...(sft ? { sft: { completions: sft, batchSize: spo.sftBatchSize ?? batchSize } } : {}),
  });
  return preferenceObjective(model, {
    pairs,
    reference,
    loss,
    ...strategy,
    sharePrompts: config.promptSharing,
    ches: config.ches,
    useWeighting: config.useWeighting,
    startsAtReference: startsAtReference(prepared),
  });
}

/** How a run trains, and on what shares of its sources. */
export function trainOptions(
  config: RunConfig,
  parts?: readonly MixturePart[],
): Omit<TrainOptions, "onLog" | "signal"> {
  return {
    optimizer: {
      beta1: config.adamBeta1,
      beta2: config.adamBeta2,
      eps: config.adamEpsilon,
      weightDecay: config.weightDecay,
      maxGradNorm: config.maxGradNorm,
    },
    schedule: {
      kind: config.learningRateSchedule,
      learningRate: config.learningRate,
      warmupSteps: config.warmupSteps,
      maxSteps: config.maxSteps,
    },
    batchSize: config.batchSize,
    gradientAccumulationSteps: config.gradientAccumulationSteps,
    batchTokens: config.batchTokens,
    ...(parts ? { parts } : {}),
    ...(config.onNonfinite === "skip" ? { maxNonfinite: config.maxNonfinite ?? 10 } : {}),
    seed: config.seed,
    logEvery: config.logEvery,
  };
}
