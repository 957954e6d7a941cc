/**
 * A folder that a run wrote, or that came from elsewhere: a whole model, or an adapter beside its base.
 * @module
 */
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { isAdapterFolder, readAdapterConfig } from "../adapters/adapter_config.ts";
import { checkAdapterFolder, loadAdapter } from "../adapters/adapter_files.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { loadTokenizer } from "../data/tokenizer_folder.ts";
import { CheckpointError } from "../errors.ts";
import type { Model, ModelOptions } from "./model.ts";
import { checkModel, checkVocabulary, type LoadedModel, loadModel, loadNothing } from "./model_files.ts";
import { architectureOf, type ModelConfig } from "./registry.ts";

/** Where a model's files are. */
export interface ModelFolders {
  /** Of config.json and the weights. */
  readonly base: string;
  /** Of an adapter on them, where there is one. */
  readonly adapter?: string;
  /** Of the tokenizer: the adapter's, if it has one. */
  readonly tokenizer: string;
}

/** How to find an adapter's base. */
export interface BaseOptions {
  /** Folder of the base; by default what adapter_config.json names. Only for adapters. */
  readonly base?: string;
  /** Turns a name (the model's, the base's) into a folder, downloading it where it must; a folder stays as it is. */
  readonly resolve?: (name: string) => Promise<string>;
}

/**
 * Finds the folders of a model or of an adapter. The base of an adapter is `base` where it is given, else what
 * adapter_config.json names, seen from the current folder, as in PEFT.
 *
 * @param place folder of a model (config.json) or an adapter (adapter_config.json), or what `resolve` takes
 * @param options where the base is
 * @throws {CheckpointError} when the base is nowhere, or a base is given for a whole model
 */
export async function findModelFolders(place: string, options: BaseOptions = {}): Promise<ModelFolders> {
  const { base, resolve = (name: string) => Promise.resolve(name) } = options;
  const folder = await resolve(place);
  if (!await isAdapterFolder(folder)) {
    if (base === undefined) return { base: folder, tokenizer: folder };
    throw new CheckpointError(
      `Cannot use a base for ${folder}: expected an adapter (adapter_config.json), found none`,
    );
  }
  const named = base ?? (await readAdapterConfig(folder)).base;
  if (named === null) {
    throw new CheckpointError(
      `Cannot load the adapter ${folder}: expected base_model_name_or_path in adapter_config.json, or a base (--base), ` +
        "found neither",
    );
  }
  const found = await resolve(named);
  if (!await isFile(join(found, "config.json"))) {
    throw new CheckpointError(
      `Cannot load the adapter ${folder}: expected its base, a folder with config.json, in ${found} ` +
        `(${base === undefined ? "base_model_name_or_path" : "as given"}; --base names another), found none`,
    );
  }
  const hasTokenizer = await isFile(join(folder, "tokenizer.json")) ||
    await isFile(join(folder, "vocab.json"));
  return { base: found, adapter: folder, tokenizer: hasTokenizer ? folder : found };
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/**
 * Checks a model's folder, or an adapter's and its base's, without loading weights.
 *
 * @param folder a model's or an adapter's
 * @param options where the base is
 * @returns its folders, its configuration and its tokenizer
 * @throws {CheckpointError} naming file and tensor or key
 * @throws {ConfigError} when a configuration asks for what is not implemented
 */
export async function checkModelOrAdapter(
  folder: string,
  options: BaseOptions = {},
): Promise<{ folders: ModelFolders; config: ModelConfig; tokenizer: Tokenizer }> {
  const folders = await findModelFolders(folder, options);
  const { config, tokenizer } = await checkModel(folders.base);
  if (folders.adapter === undefined) return { folders, config, tokenizer };
  await checkAdapterFolder(folders.adapter, architectureOf(config));
  return { folders, config, tokenizer: await tokenizerOf(folders, { config, tokenizer }) };
}

/**
 * Loads a model onto the GPU from its folder, or from the folder of an adapter and its base.
 *
 * @param gpu the device
 * @param place folder of a model or an adapter, or both as `checkModelOrAdapter` found them
 * @param options as of `loadModel`; with an adapter, `trainable` is about the adapter, and the base is frozen
 * @returns the model, which the caller disposes, and its tokenizer
 * @throws {CheckpointError} naming file and tensor or key
 * @throws {ConfigError} when a configuration asks for what is not implemented
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { characterTokenizerFiles } from "../data/character_tokenizer.ts";
 * import { createTokenizer } from "../data/tokenizer.ts";
 * import { saveAdapter } from "../adapters/adapter_files.ts";
 * import { addLora } from "../adapters/lora.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { createModel } from "./model.ts";
 * import { saveModel } from "./model_files.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * const tokenizer = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * const [base, folder] = [await Deno.makeTempDir(), await Deno.makeTempDir()];
 * const whole = createModel(gpu, config, { trainable: false });
 * await saveModel(base, whole, { tokenizer });
 * using model = addLora(whole, { rank: 2, base });
 * await saveAdapter(folder, model);
 * const loaded = await loadModelOrAdapter(gpu, folder, { trainable: false }); // its adapter_config.json names the base
 * using again = loaded.model;
 * assert.equal(again.adapter!.config.rank, 2);
 * ```
 */
export async function loadModelOrAdapter(
  gpu: Gpu,
  place: string | ModelFolders,
  options: ModelOptions & BaseOptions,
): Promise<LoadedModel> {
  const folders = typeof place === "string" ? await findModelFolders(place, options) : place;
  if (folders.adapter === undefined) return await loadModel(gpu, folders.base, options);
  const { model, tokenizer } = await loadModel(gpu, folders.base, { ...options, trainable: false });
  try {
    const ofModel = await tokenizerOf(folders, { config: model.config, tokenizer });
    return { model: await loadAdapter(model, folders.adapter, options), tokenizer: ofModel };
  } catch (error) {
    model[Symbol.dispose]();
    throw error;
  }
}

/**
 * Takes the memory of a checked model or adapter on a planning device; the weights of the model are not read.
 *
 * @param gpu a planning device
 * @param checked of {@link checkModelOrAdapter}
 * @param options as of {@link loadModelOrAdapter}
 * @returns the model, which the caller disposes
 * @throws {CheckpointError} naming the adapter's file and tensor or key
 */
export async function planModelOrAdapter(
  gpu: Gpu,
  { folders: { adapter }, config }: { folders: Pick<ModelFolders, "adapter">; config: ModelConfig },
  options: ModelOptions,
): Promise<Model> {
  if (adapter === undefined) return loadNothing(gpu, config, options);
  const base = loadNothing(gpu, config, { ...options, trainable: false });
  try {
    return await loadAdapter(base, adapter, options);
  } catch (error) {
    base[Symbol.dispose]();
    throw error;
  }
}

/** The adapter's own, where it has one. */
async function tokenizerOf(
  folders: ModelFolders,
  ofBase: { config: ModelConfig; tokenizer: Tokenizer },
): Promise<Tokenizer> {
  if (folders.tokenizer === folders.base) return ofBase.tokenizer;
  const tokenizer = await loadTokenizer(folders.tokenizer);
  checkVocabulary(tokenizer, ofBase.config, folders.tokenizer);
  return tokenizer;
}
