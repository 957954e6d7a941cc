/**
 * A run on a checkpoint and a data file: load, reference, train, evaluate, save.
 * @module
 */
import { loadAdapter } from "./adapters/adapter_files.ts";
import { addLora, withAdapterOff } from "./adapters/lora.ts";
import { loraOptionsOf } from "./adapters/lora_settings.ts";
import type { RunConfig } from "./config.ts";
import { resolveLoss, resolveSync, resolveUnpaired } from "./config.ts";
import { readCompletions } from "./data/sft_records.ts";
import {
  encodeCompletions,
  type EncodeCounts,
  type EncodedCompletion,
  type EncodedExample,
  type EncodedPair,
  encodePairs,
  shortenCompletions,
  shortenPairs,
} from "./data/encode.ts";
import { encodeRecords } from "./data/encode_records.ts";
import { readLabelled } from "./data/labelled_records.ts";
import { truncateSides } from "./data/truncate.ts";
import { runUnpaired } from "./run_unpaired.ts";
import { formatSkipped, readPreferences } from "./data/records.ts";
import type { Tokenizer } from "./data/tokenizer.ts";
import { ConfigError } from "./errors.ts";
import { comparePairs, evaluatePairs } from "./evaluate.ts";
import { type ResolveHooks, resolveModel } from "./hub/resolve_model.ts";
import type { Model } from "./models/model.ts";
import { architectureOf, type ModelConfig } from "./models/registry.ts";
import { checkModelOrAdapter } from "./models/load_model.ts";
import { type LoadedModel, loadModel, loadNothing } from "./models/model_files.ts";
import { type Objective, preferenceObjective, sftObjective } from "./objective.ts";
import { type LiveReference, liveReference } from "./live_reference.ts";
import { givenReference, type ReferenceLogps, referenceLogps } from "./reference.ts";
import {
  formatResults,
  type PhaseResult,
  type RunHooks,
  saveToRun,
  type Session,
  trainPhase,
  withProgress,
} from "./session.ts";
import type { Gpu } from "../engine/gpu.ts";
import { spoStrategy } from "./solvers/spo_strategy.ts";
import type { TrainOptions } from "./trainer.ts";

/** Names in a run's folder besides config.json. */
export const RUN_ENTRIES = ["metrics.jsonl", "results.json", "model"];

/** What a run reads besides the weights, which are checked alone; nothing needs a device for it. */
export interface RunData {
  readonly config: RunConfig;
  /** The model's folder: of an adapter, its base's. */
  readonly folder: string;
  /** The folder of an adapter that is trained on. */
  readonly adapter?: string;
  readonly modelConfig: ModelConfig;
  readonly tokenizer: Tokenizer;
  /** Tokens of prompt and completion: the setting, or the model's positions where they are fewer. */
  readonly maxLength: number;
  readonly pairs: readonly EncodedPair[];
  /** Held-out pairs, or the first of the training pairs when no held-out file was given. */
  readonly evalPairs: readonly EncodedPair[];
  /** SPO's lower level, where it has data of its own. */
  readonly sft?: readonly EncodedCompletion[];
  /** In their place, where the loss is on labelled answers. */
  readonly examples?: readonly EncodedExample[];
  /** Held-out ones, or the first of either label of the training's. */
  readonly evalExamples?: readonly EncodedExample[];
}

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
}

/**
 * Reads the data, and checks model and data.
 *
 * @param config with `model` and `data`
 * @param hooks where counts are told
 * @throws {InputError} naming file and line or key
 */
export async function readRunData(config: RunConfig, hooks: ResolveHooks): Promise<RunData> {
  const { model, data } = config;
  if (!model || !data) {
    throw new ConfigError(
      `Cannot train: expected --model and --data together (or neither, for the demonstration), found only ${
        model ? "--model" : "--data"
      }`,
    );
  }
  const { folders, config: modelConfig, tokenizer } = await checkModelOrAdapter(model, {
    base: config.base,
    resolve: (name) => resolveModel(name, hooks),
  });
  refuseUnreadLora(config, { continuesAdapter: folders.adapter !== undefined });
  const { positions, vocab: vocabSize } = architectureOf(modelConfig).dimensions;
  const maxLength = Math.min(config.maxLength, positions);
  const options = { tokenizer, config, maxLength, vocabSize, hooks };
  const rest = { config, folder: folders.base, adapter: folders.adapter, modelConfig, tokenizer, maxLength };
  if (resolveUnpaired(config)) {
    const examples = await encodeLabelledFiles(data, options);
    const evalExamples = someOfEach(
      config.evalData ? await encodeLabelledFiles(config.evalData, options) : examples,
      config.evalRecords,
    );
    return { ...rest, pairs: [], evalPairs: [], examples, evalExamples };
  }
  const pairs = await encodeFiles(data, options);
  const evalPairs = (config.evalData ? await encodeFiles(config.evalData, options) : pairs)
    .slice(0, config.evalRecords);
  const sft = config.spo.sftData === undefined ? {} : { sft: await encodeSft(config.spo.sftData, options) };
  return { ...rest, pairs, evalPairs, ...sft };
}

/** What only a run with, or without, an adapter to start from reads. */
function refuseUnreadLora(
  { model, lora, baseDtype, syncRefModel }: RunConfig,
  { continuesAdapter }: { continuesAdapter: boolean },
): void {
  if (continuesAdapter && syncRefModel) {
    throw new ConfigError(
      `Cannot use --sync-ref-model: expected a whole model as --model, found the adapter ${model}`,
    );
  }
  if (continuesAdapter && lora.rank !== undefined) {
    throw new ConfigError(
      `Cannot use a new LoRA rank: expected a whole model as --model, found the adapter ${model}, which keeps its own rank`,
    );
  }
  if (!continuesAdapter && lora.reference === "base") {
    throw new ConfigError(
      `Cannot use the base as reference: expected an adapter to train on as --model, found the whole model ${model}, ` +
        "which is its own",
    );
  }
  if (!continuesAdapter && lora.rank === undefined && baseDtype !== undefined) {
    throw new ConfigError(
      "Cannot use --base-dtype: expected LoRA (--lora.rank, or an adapter as --model), found none",
    );
  }
}

/**
 * The data under other settings, without reading it again.
 *
 * @param data of {@link readRunData}
 * @param change settings that only change memory and time; a smaller max length must leave room after every prompt
 */
export function changeRunData(
  data: RunData,
  change: Partial<Pick<RunConfig, "activationCheckpointing" | "gradientAccumulationSteps" | "maxLength">>,
): RunData {
  const changed = { ...data, config: { ...data.config, ...change } };
  const { maxLength } = change;
  if (maxLength === undefined) return changed;
  const [pairs, evalPairs] = [data.pairs, data.evalPairs].map((pairs) =>
    shortenPairs(pairs, maxLength, {
      truncation: data.config.truncation,
      bosTokenId: data.tokenizer.bosTokenId,
    })
  );
  const sft = data.sft ? { sft: shortenCompletions(data.sft, maxLength) } : {};
  const [examples, evalExamples] = [data.examples, data.evalExamples].map((those) =>
    those?.flatMap((example) => {
      const { truncation } = data.config;
      const fitted = truncateSides([example], {
        maxLength,
        truncation,
        bosTokenId: data.tokenizer.bosTokenId,
      });
      return fitted.kind === "overlong" ? [] : fitted.sides.map(({ lost: _, ...side }) => side);
    })
  );
  return { ...changed, maxLength, pairs, evalPairs, ...sft, ...(examples ? { examples, evalExamples } : {}) };
}

/**
 * Loads the model of a run; on a planning device, takes the memory for it alone.
 *
 * @param gpu the device
 * @param data of {@link readRunData}
 * @throws {CheckpointError} naming file and tensor
 */
export async function loadRun(gpu: Gpu, data: RunData): Promise<PreparedRun> {
  const { config, folder, adapter, modelConfig, tokenizer, maxLength, pairs, evalPairs, sft } = data;
  const { examples, evalExamples } = data;
  const { activationCheckpointing, dtype, lora, baseDtype } = config;
  const trainable = adapter === undefined && lora.rank === undefined;
  const options = { trainable, positions: maxLength, activationCheckpointing, dtype, storage: baseDtype };
  const base = gpu.isPlanning
    ? loadNothing(gpu, modelConfig, options)
    : (await loadModel(gpu, folder, options)).model;
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
 * Reads and checks model and data.
 *
 * @param gpu the device
 * @param config with `model` and `data`
 * @param hooks where counts are told
 * @throws {InputError} naming file and line or key
 */
export async function prepareRun(
  gpu: Gpu,
  config: RunConfig,
  hooks: ResolveHooks,
): Promise<PreparedRun> {
  return await loadRun(gpu, await readRunData(config, hooks));
}

/** What reading a file needs. */
interface EncodeFileOptions {
  tokenizer: Tokenizer;
  config: RunConfig;
  maxLength: number;
  vocabSize: number;
  hooks: Pick<RunHooks, "log">;
}

/** The lower level's records: prompts with one completion. */
async function encodeSft(path: string, options: EncodeFileOptions): Promise<EncodedCompletion[]> {
  const { config: { overlong }, hooks, ...rest } = options;
  const { completions, counts } = encodeCompletions(await readCompletions(path), { ...rest, overlong });
  const notes = formatCounts(counts);
  hooks.log(`${path}: ${completions.length} completions${notes === "" ? "" : ` (${notes})`}`);
  return completions;
}

/** Files with commas between their names, one after the other. */
async function encodeFiles(paths: string, options: EncodeFileOptions): Promise<EncodedPair[]> {
  const all: EncodedPair[] = [];
  const files = paths.split(",");
  for (const path of files) {
    const pairs = await encodeFile(path, options);
    const columns = (pair: EncodedPair) =>
      Object.keys(pair).filter((name) => COLUMNS.has(name)).sort().join();
    if (all.length > 0 && columns(pairs[0]) !== columns(all[0])) {
      throw new ConfigError(
        `Cannot use ${path}: expected the columns of ${files[0]} (${columns(all[0]) || "none"}), found ` +
          `${columns(pairs[0]) || "none"}`,
      );
    }
    all.push(...pairs);
  }
  await refuseTwice(files);
  return all;
}

/** The same for labelled answers. */
async function encodeLabelledFiles(paths: string, options: EncodeFileOptions): Promise<EncodedExample[]> {
  const all: EncodedExample[] = [];
  for (const path of paths.split(",")) all.push(...await encodeLabelled(path, options));
  await refuseTwice(paths.split(","));
  return all;
}

async function refuseTwice(files: readonly string[]): Promise<void> {
  const places = await Promise.all(files.map((path) => Deno.realPath(path)));
  const again = places.findIndex((place, index) => places.indexOf(place) < index);
  if (again < 0) return;
  throw new ConfigError(`Cannot use ${files.join()}: expected each file once, found ${files[again]} twice`);
}

/** What a pair may bring beside its texts. */
const COLUMNS: ReadonlySet<string> = new Set(["margin", "referenceChosen", "referenceRejected"]);

async function encodeFile(path: string, options: EncodeFileOptions): Promise<EncodedPair[]> {
  const { tokenizer, config, maxLength, vocabSize, hooks } = options;
  const { records, skipped } = await readPreferences(path, { marginColumn: config.marginColumn });
  const { pairs, counts } = encodePairs(records, {
    tokenizer,
    vocabSize,
    maxLength,
    overlong: config.overlong,
    truncation: config.truncation,
  });
  const notes = [formatSkipped(skipped), formatCounts(counts)].filter((note) =>
    note !== "" && note !== "nothing"
  );
  hooks.log(`${path}: ${pairs.length} pairs${notes.length > 0 ? ` (${notes.join("; ")})` : ""}`);
  return pairs;
}

async function encodeLabelled(
  path: string,
  options: EncodeFileOptions,
): Promise<EncodedExample[]> {
  const { tokenizer, config: { overlong, truncation }, maxLength, vocabSize, hooks } = options;
  const { records, skipped } = await readLabelled(path);
  const { examples, counts } = encodeRecords(records, {
    tokenizer,
    vocabSize,
    maxLength,
    overlong,
    truncation,
  });
  const good = examples.filter(({ desirable }) => desirable).length;
  if (good === 0 || good === examples.length) {
    throw new ConfigError(
      `Cannot use ${path}: expected answers of both labels, found ${examples.length} that are all ${
        good === 0 ? "undesirable" : "desirable"
      }`,
    );
  }
  const notes = notesOf(skipped, counts);
  hooks.log(
    `${path}: ${good} desirable and ${examples.length - good} undesirable answers${notes}`,
  );
  return examples;
}

/** The first of either label, in the data's order. */
function someOfEach(examples: readonly EncodedExample[], count: number): EncodedExample[] {
  const left = new Map([[true, Math.ceil(count / 2)], [false, Math.ceil(count / 2)]]);
  return examples.filter(({ desirable }) => {
    const rest = left.get(desirable)!;
    left.set(desirable, rest - 1);
    return rest > 0;
  });
}

/** What was left out or cut, in brackets. */
function notesOf(skipped: Parameters<typeof formatSkipped>[0], counts: EncodeCounts): string {
  const notes = [formatSkipped(skipped), formatCounts(counts)].filter((note) =>
    note !== "" && note !== "nothing"
  );
  return notes.length > 0 ? ` (${notes.join("; ")})` : "";
}

function formatCounts(counts: EncodeCounts): string {
  const texts: [number, string][] = [
    [counts.truncated, "completions cut at the end"],
    [counts.truncatedPrompt, "prompts cut at the start"],
    [counts.repairedBoundary, "boundary tokens counted as completion"],
    [counts.droppedOverlong, "left out: prompt too long"],
    [counts.droppedEmpty, "left out: no completion token"],
    [counts.droppedIdentical, "left out: both sides the same ids"],
  ];
  return texts.filter(([count]) => count > 0).map(([count, text]) => `${count} ${text}`).join("; ");
}

/**
 * Trains a prepared run and saves the model.
 *
 * @param session the run; model and metrics go to its folder
 * @param prepared from {@link prepareRun}
 * @param options.cacheFolder where reference log-probs are kept
 * @returns results before and after
 * @throws {RunStoppedError} when it was stopped
 */
export async function runTraining(
  session: Session,
  prepared: PreparedRun,
  options: { cacheFolder: string },
): Promise<PhaseResult[]> {
  if (prepared.examples) return await runUnpaired(session, prepared);
  const { config, loaded: { model, tokenizer }, pairs, evalPairs } = prepared;
  const beta = resolveLoss(config)?.beta ?? 1;
  const isReference = startsAtReference(prepared);
  const cached = async (label: string, of: readonly EncodedPair[]) =>
    givenReference(of) ?? await withProgress(session, label, (onProgress) => {
      const keep = (reference: Model) =>
        referenceLogps(reference, of, { cacheFolder: options.cacheFolder, onProgress });
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
  const reference = live ?? (isRead ? await cached("reference log-probs", pairs) : undefined);
  using objective = makeObjective(prepared, reference);
  const name = config.spo.solver === "none" ? config.loss : `${config.loss}+spo`;
  await trainPhase(session, { name, objective, train: trainOptions(config) });
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

/** Whether the reference is the model as the run finds it. */
function startsAtReference({ config, continuesAdapter, pairs, evalPairs }: PreparedRun): boolean {
  if (givenReference(pairs) ?? givenReference(evalPairs)) return false;
  return !continuesAdapter || config.lora.reference === "start";
}

/** The reference to run in every step. A fresh adapter's base is the model as it starts, and takes no memory. */
export function liveReferenceOf({ config, loaded: { model }, continuesAdapter }: PreparedRun): LiveReference {
  const isBase = model.adapter !== undefined && (!continuesAdapter || config.lora.reference === "base");
  return liveReference(model, { reference: isBase ? "base" : "start", sync: resolveSync(config) });
}

/** What a run minimises. */
export function makeObjective(prepared: PreparedRun, reference?: ReferenceLogps | LiveReference): Objective {
  const { config, loaded: { model }, pairs, sft } = prepared;
  const loss = resolveLoss(config);
  if (!loss || !reference) return sftObjective(model, pairs.map((pair) => pair.chosen));
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
    startsAtReference: startsAtReference(prepared),
  });
}

/** How a run trains. */
export function trainOptions(config: RunConfig): Omit<TrainOptions, "onLog" | "signal"> {
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
    seed: config.seed,
    logEvery: config.logEvery,
  };
}
