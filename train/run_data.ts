/**
 * What a run reads: the model's configuration and the records, checked and encoded; no device is needed for it.
 * @module
 */
import { readsReference, resolveUnpaired, type RunConfig } from "./config.ts";
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
import { formatSource } from "./data/errors.ts";
import { encodeRecords } from "./data/encode_records.ts";
import { readLabelled } from "./data/labelled_records.ts";
import { formatSkipped, readPreferences } from "./data/records.ts";
import { readCompletions } from "./data/sft_records.ts";
import type { Tokenizer } from "./data/tokenizer.ts";
import { truncateSides } from "./data/truncate.ts";
import { ConfigError } from "./errors.ts";
import { type ResolveHooks, resolveModel } from "./hub/resolve_model.ts";
import { checkModelOrAdapter } from "./models/load_model.ts";
import { architectureOf, type ModelConfig } from "./models/registry.ts";
import type { RunHooks } from "./session.ts";

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
  refuseUnreadColumns(pairs[0], config);
  const evalPairs = (config.evalData ? await encodeFiles(config.evalData, options) : pairs)
    .slice(0, config.evalRecords);
  const sft = config.spo.sftData === undefined ? {} : { sft: await encodeSft(config.spo.sftData, options) };
  return { ...rest, pairs, evalPairs, ...sft };
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
