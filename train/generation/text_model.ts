/**
 * A model folder made ready to generate text, for commands: checked first, planned next, loaded last.
 * @module
 */
import type { z } from "zod";
import type { Gpu } from "../../engine/gpu.ts";
import type { generationFlags } from "../commands/generate.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { ConfigError, showFound } from "../errors.ts";
import { resolveModel } from "../hub/resolve_model.ts";
import { checkModelOrAdapter, loadModelOrAdapter, type ModelFolders } from "../models/load_model.ts";
import { architectureOf, type ModelConfig } from "../models/registry.ts";
import { planningOptions } from "../plan.ts";
import type { RunHooks } from "../session.ts";
import { openDevice } from "../terminal.ts";
import type { CacheSize } from "./cache.ts";
import { createDecoder, type Decoder } from "./decoder.ts";
import { planGeneration, refuseGenerationOverBudget } from "./plan.ts";
import { readStopIds } from "./stop_ids.ts";
import type { GeneratedText, TextOptions } from "./text.ts";

/** Flags that commands share. */
type Flags = z.output<z.ZodObject<typeof generationFlags>>;

/** A folder that was checked, of which no weights are loaded. */
export interface CheckedFolder {
  /** As the user named it. */
  readonly name: string;
  /** Where its files are. */
  readonly folders: ModelFolders;
  /** Of the model. */
  readonly config: ModelConfig;
  /** Of the same folder. */
  readonly tokenizer: Tokenizer;
  /** The longest sequence. */
  readonly positions: number;
  /** How texts are generated. */
  readonly options: Omit<TextOptions, "signal" | "onText" | "reuse">;
}

/**
 * Checks a model folder and the flags.
 *
 * @param flags of the command
 * @param hooks told of a download
 * @throws {InputError} naming the file and key or the flag
 */
export async function checkFolder(
  flags: Flags,
  hooks: Pick<RunHooks, "log" | "progress">,
): Promise<CheckedFolder> {
  const { model: name, base, maxNewTokens, temperature, topK, topP, repetitionPenalty, seed } = flags;
  const stopStrings = parseStop(flags.stop);
  const { folders, config, tokenizer } = await checkModelOrAdapter(name, {
    base,
    resolve: (name) => resolveModel(name, hooks),
  });
  const stopIds = await readStopIds(folders.base, tokenizer);
  const { positions } = architectureOf(config).dimensions;
  const sampling = { temperature, topK, topP, repetitionPenalty, seed };
  const options = { tokenizer, maxNewTokens, ...sampling, stopIds, stopStrings };
  return { name, folders, config, tokenizer, positions, options };
}

function parseStop(text: string | undefined): string[] {
  if (text === undefined) return [];
  const refuse = () =>
    new ConfigError(`Cannot use --stop: expected text, or a JSON list of texts, found ${showFound(text)}`);
  if (text === "") throw refuse();
  if (!text.startsWith("[")) return [text];
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    // Text that happens to begin with a bracket.
    return [text];
  }
  const isTexts = Array.isArray(list) && list.length > 0 &&
    list.every((one) => typeof one === "string" && one !== "");
  if (!isTexts) throw refuse();
  return list as string[];
}

/** A model on the GPU, with room for sequences. */
export interface OpenedModel extends Disposable {
  /** Where it is. */
  readonly gpu: Gpu;
  /** Takes prompts in. */
  readonly decoder: Decoder;
}

/**
 * Opens the device, plans the memory and loads the model.
 *
 * @param flags of the command
 * @param checked of {@link checkFolder}
 * @param options.size of the cache
 * @param options.promptTokens of the longest prompt
 * @param options.log told of the adapter
 * @param options.signal ends loading; the device keeps it
 * @throws {PlanError} when it takes more memory than the budget, before weights are read
 * @throws {CheckpointError} naming file and tensor
 */
export async function openModel(
  flags: Flags,
  { folders, config, options: { temperature, repetitionPenalty } }: CheckedFolder,
  { size, promptTokens, ...hooks }: {
    size: CacheSize;
    promptTokens: number;
    log: (line: string) => void;
    signal?: AbortSignal;
  },
): Promise<OpenedModel> {
  using stack = new DisposableStack();
  const gpu = stack.use(await openDevice(flags, hooks));
  const model = { trainable: false, dtype: flags.dtype };
  const reading = temperature === 0 && repetitionPenalty === 1 ? "ids" : "logits";
  const plan = await planGeneration(planningOptions(gpu), {
    ...{ config, folders, model, size, promptTokens, reading },
  });
  refuseGenerationOverBudget(plan, size);
  const loaded = await loadModelOrAdapter(gpu, folders, model);
  const decoder = stack.use(createDecoder(stack.use(loaded.model), size));
  const owned = stack.move();
  return { gpu, decoder, [Symbol.dispose]: () => owned.dispose() };
}

/**
 * How fast a text was, in a line.
 *
 * @param found the text
 * @param promptTokens that were taken in for it
 */
export function describeSpeed(
  { ids, prefillMs, decodeMs }: Pick<GeneratedText, "ids" | "prefillMs" | "decodeMs">,
  promptTokens: number,
): string {
  const rate = (tokens: number, ms: number) =>
    `${tokens} tokens in ${(ms / 1000).toFixed(2)} s` +
    (tokens > 0 && ms > 0 ? ` (${(tokens / ms * 1000).toPrecision(3)} tokens/s)` : "");
  return `Prefill: ${rate(promptTokens, prefillMs)}; decoding: ${
    rate(Math.max(0, ids.length - 1), decodeMs)
  }.`;
}
