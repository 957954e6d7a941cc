/**
 * What a run reads: the model's configuration and the records, checked and encoded; no device is needed for it.
 * @module
 */
import { readsReference, resolveUnpaired, type RunConfig } from "./config.ts";
import { dataWeightsOf } from "./data_settings.ts";
import {
  checkFilesTogether,
  type DataFile,
  type DataFileOptions,
  type DataItems,
  type DataKind,
  describeFile,
  listFiles,
  readDataFile,
} from "./data/data_files.ts";
import type { EncodedCompletion, EncodedExample, EncodedPair } from "./data/encode.ts";
import { type MixturePart, samplesPerEpoch } from "./data/mixture.ts";
import { formatSource } from "./data/errors.ts";
import { holdsPreferences } from "./data/sft_records.ts";
import type { Tokenizer } from "./data/tokenizer.ts";
import { ConfigError } from "./errors.ts";
import { type ResolveHooks, resolveModel } from "./hub/resolve_model.ts";
import { checkModelOrAdapter } from "./models/load_model.ts";
import { architectureOf, type ModelConfig } from "./models/registry.ts";

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
  /** In their place, where supervised data are no preferences. */
  readonly completions?: readonly EncodedCompletion[];
  /** Held-out ones, or the first of the training's. */
  readonly evalCompletions?: readonly EncodedCompletion[];
  /** The training files, to be drawn from by weight; none where every item comes once an epoch. */
  readonly parts?: readonly MixturePart[];
}

/** What a run reads its files with. */
export interface RunInputs extends Omit<RunData, "pairs" | "evalPairs"> {
  /** How its files are encoded. */
  readonly encoding: DataFileOptions;
}

/**
 * Checks the model of a run and reads what its data is encoded with.
 *
 * @param config with `model` and `data`
 * @param hooks where counts are told
 * @throws {InputError} naming file or key
 */
export async function readRunInputs(config: RunConfig, hooks: ResolveHooks): Promise<RunInputs> {
  const { model, data, overlong, truncation, marginColumn, assistantOnlyLoss } = config;
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
  const encoding = {
    ...{ tokenizer, vocabSize, maxLength, overlong, truncation, assistantOnlyLoss },
    ...(marginColumn === undefined ? {} : { marginColumn }),
  };
  const folder = { folder: folders.base, ...(folders.adapter ? { adapter: folders.adapter } : {}) };
  return { config, ...folder, modelConfig, tokenizer, maxLength, encoding };
}

/**
 * Reads the data, and checks model and data.
 *
 * @param config with `model` and `data`
 * @param hooks where counts are told
 * @throws {InputError} naming file and line or key
 */
export async function readRunData(config: RunConfig, hooks: ResolveHooks): Promise<RunData> {
  const { encoding, ...rest } = await readRunInputs(config, hooks);
  const kind = await runDataKind(config);
  const read = async <Kind extends DataKind>(paths: string, of: Kind) => {
    const files = await readRunFiles(paths, of, encoding);
    // A signal is heard between tasks only.
    await new Promise((resolve) => setTimeout(resolve, 0));
    hooks.signal?.throwIfAborted();
    for (const file of files) hooks.log(describeFile(file));
    return { files, items: files.flatMap(({ items }) => items) };
  };
  const readBoth = async <Kind extends DataKind>(of: Kind) => {
    const { files, items } = await read(config.data!, of);
    const parts = partsOf(config, files);
    if (parts) describeParts(files, parts).forEach(hooks.log);
    const evalItems = config.evalData ? (await read(config.evalData, of)).items : items;
    return { items, evalItems, parts: parts ? { parts } : {} };
  };
  if (kind === "labelled") {
    const { items, evalItems, parts } = await readBoth(kind);
    const evalExamples = someOfEach(evalItems, config.evalRecords);
    return { ...rest, pairs: [], evalPairs: [], examples: items, evalExamples, ...parts };
  }
  if (kind === "completions") {
    const { items, evalItems, parts } = await readBoth(kind);
    const evalCompletions = evalItems.slice(0, config.evalRecords);
    return { ...rest, pairs: [], evalPairs: [], completions: items, evalCompletions, ...parts };
  }
  const { items: pairs, evalItems, parts } = await readBoth(kind);
  refuseUnreadColumns(pairs[0], config);
  const { sftData } = config.spo;
  const sft = sftData === undefined ? {} : { sft: (await read(sftData, "completions")).items };
  return { ...rest, pairs, evalPairs: evalItems.slice(0, config.evalRecords), ...sft, ...parts };
}

/**
 * What a run reads its files as: supervised data that are preferences throughout are pairs, of which the chosen answers
 * are learnt.
 *
 * @param config with `data`
 * @throws {DataError} a file that cannot be read
 */
export async function runDataKind(config: RunConfig): Promise<DataKind> {
  if (resolveUnpaired(config)) return "labelled";
  if (config.loss !== "sft") return "pairs";
  if (config.assistantOnlyLoss) return "completions";
  const paths = [config.data!, ...(config.evalData ? [config.evalData] : [])].join().split(",");
  for (const path of paths) if (!await holdsPreferences(path)) return "completions";
  return "pairs";
}

/**
 * Reads and encodes files that are trained on together.
 *
 * @param paths with commas between them
 * @param kind what they are read as
 * @param encoding how
 * @throws {DataError} naming file, line and key; files that do not go together
 */
export async function readRunFiles<Kind extends DataKind>(
  paths: string,
  kind: Kind,
  encoding: DataFileOptions,
): Promise<DataFile<DataItems[Kind]>[]> {
  const files: DataFile<DataItems[Kind]>[] = [];
  for (const path of await listFiles(paths)) files.push(await readDataFile(path, kind, encoding));
  checkFilesTogether(files);
  return files;
}

/** The files as sources of a mixture, where they have weights. */
export function partsOf(
  config: Pick<RunConfig, "dataWeights">,
  files: readonly DataFile<unknown>[],
): MixturePart[] | undefined {
  return dataWeightsOf(config)?.map((weight, index) => ({ weight, count: files[index].items.length }));
}

/** Lines about what an epoch has of each file. */
function describeParts(files: readonly DataFile<unknown>[], parts: readonly MixturePart[]): string[] {
  const total = parts.reduce((sum, { count }) => sum + count, 0);
  return samplesPerEpoch(parts, total).map((samples, index) => {
    const { count, weight } = parts[index];
    return `${files[index].path}: ${samples} of the ${total} items of an epoch (weight ${weight}), each ` +
      `${(samples / count).toFixed(2)} times`;
  });
}

/** Log-probs under a reference that the data brings and nothing would read, or a setting that they leave nothing to do. */
function refuseUnreadColumns({ referenceChosen, source }: EncodedPair, config: RunConfig): void {
  if (referenceChosen === undefined || config.loss === "sft") return;
  const found = `found them in ${formatSource(source)}`;
  if (!readsReference(config)) {
    throw new ConfigError(
      `Cannot train with ${config.loss}: expected records without reference log-probs, which it does not read, ${found}`,
    );
  }
  const unread = config.precomputeReference
    ? config.lora.reference === "base" ? "--lora.reference base" : undefined
    : "--precompute-reference=false";
  if (unread !== undefined) {
    throw new ConfigError(`Cannot use ${unread}: expected records without reference log-probs, ${found}`);
  }
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

/** The first of either label, in the data's order. */
function someOfEach(examples: readonly EncodedExample[], count: number): EncodedExample[] {
  const left = new Map([[true, Math.ceil(count / 2)], [false, Math.ceil(count / 2)]]);
  return examples.filter(({ desirable }) => {
    const rest = left.get(desirable)!;
    left.set(desirable, rest - 1);
    return rest > 0;
  });
}
