/**
 * Models from and to folders in Hugging Face layout: config.json, model.safetensors, tokenizer files.
 * @module
 */
import { join } from "node:path";
import type { DType } from "../../engine/dtype.ts";
import type { Gpu } from "../../engine/gpu.ts";
import type { Parameters } from "../../engine/parameters.ts";
import { writeFileAtomically } from "../atomic_file.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { loadTokenizer, saveTokenizer } from "../data/tokenizer_folder.ts";
import { makeFolder } from "../write_error.ts";
import { CheckpointError } from "../errors.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { loadedLayout, loadWeights } from "./checkpoint_load.ts";
import { writeCheckpoint } from "./checkpoint_write.ts";
import { readModelConfig } from "./config_file.ts";
import { checkWeights, storedNames } from "./check_weights.ts";
import { createModel, type Model, type ModelOptions } from "./model.ts";
import { architectureOf, type ModelConfig } from "./registry.ts";

/** A checkpoint's parts. */
export interface LoadedModel {
  /** On the GPU; the caller disposes it. */
  readonly model: Model;
  /** Of the same folder. */
  readonly tokenizer: Tokenizer;
}

/**
 * Loads a model folder onto the GPU.
 *
 * @param gpu the device
 * @param folder config.json, model.safetensors, tokenizer.json
 * @param options whether it is trained, in which types, for which lengths; who is told how many bytes are loaded
 * @returns the model, which the caller disposes, and its tokenizer
 * @throws {CheckpointError} naming file and tensor or key, before anything runs
 * @throws {ConfigError} when config.json asks for what is not implemented
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { characterTokenizerFiles } from "../data/character_tokenizer.ts";
 * import { createTokenizer } from "../data/tokenizer.ts";
 * import { createRandom } from "../random.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { initializeModel } from "./initialize.ts";
 * import { createModel } from "./model.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false });
 * initializeModel(model, createRandom(1));
 * const tokenizer = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * const folder = await Deno.makeTempDir();
 * await saveModel(folder, model, { tokenizer });
 * const loaded = await loadModel(gpu, folder, { trainable: false });
 * using again = loaded.model;
 * const name = "lm_head.weight";
 * assert.deepEqual(await again.parameters.read(name), await model.parameters.read(name));
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function loadModel(
  gpu: Gpu,
  folder: string,
  options: ModelOptions & { onProgress?: (doneBytes: number, totalBytes: number) => void },
): Promise<LoadedModel> {
  const { onProgress } = options;
  const { config, tokenizer } = await checkModel(folder);
  using checkpoint = await openCheckpoint(folder);
  const model = createModel(gpu, config, options);
  try {
    const storedName = storedNames(checkpoint.tensors.keys(), model.architecture);
    await loadWeights(model.parameters, checkpoint, { storedName, onProgress });
  } catch (error) {
    model[Symbol.dispose]();
    throw error;
  }
  return { model, tokenizer };
}

/**
 * Checks a model folder without loading its weights.
 *
 * @param folder config.json, model.safetensors, tokenizer.json
 * @returns its configuration and tokenizer
 * @throws {CheckpointError} naming file and tensor or key
 * @throws {ConfigError} when config.json asks for what is not implemented
 */
export async function checkModel(folder: string): Promise<{ config: ModelConfig; tokenizer: Tokenizer }> {
  const config = await readModelConfig(folder);
  const tokenizer = await loadTokenizer(folder);
  checkVocabulary(tokenizer, config, folder);
  using checkpoint = await openCheckpoint(folder);
  await checkWeights(checkpoint, architectureOf(config));
  return { config, tokenizer };
}

/**
 * A model that takes the memory which loading it takes, and holds nothing.
 *
 * @param gpu a planning device
 * @param config the model's
 * @param options as for {@link loadModel}
 * @returns the model; dispose it when done
 */
export function loadNothing(
  gpu: Gpu,
  config: ModelConfig,
  options: ModelOptions,
): Model {
  // Loading itself leaves nothing behind.
  return createModel(gpu, config, options);
}

/** Reads all parameters, as saving does, and writes no file: for planning devices. */
export async function saveNothing(parameters: Parameters): Promise<void> {
  for (const name of parameters.shapes.keys()) {
    for await (const _piece of parameters.readStored(name));
  }
}

/**
 * An id past the embedding would read another tensor's bytes.
 *
 * @throws {CheckpointError} when the tokenizer has more ids than the model
 */
export function checkVocabulary(tokenizer: Tokenizer, config: ModelConfig, folder: string): void {
  if (tokenizer.vocabSize > config.vocab_size) {
    throw new CheckpointError(
      `Cannot load ${folder}: expected a tokenizer of at most ${config.vocab_size} ids (vocab_size in config.json), ` +
        `found ${tokenizer.vocabSize} in tokenizer.json`,
    );
  }
}

/**
 * Saves a model folder; the weights appear only when they are complete. A model that was loaded is written in the same
 * layout: one file, or each tensor in the shard that it came from.
 *
 * @param folder made when it does not exist
 * @param model what to save
 * @param options.tokenizer carried along
 * @param options.dtype element type of the weights, f32 by default; `loaded` for what each had when it was loaded
 * @param options.maxShardBytes bytes of weights in one file, in place of the layout; 5e9 where there is none
 * @param options.onProgress told how many tensors of how many are on their way
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { characterTokenizerFiles } from "../data/character_tokenizer.ts";
 * import { createTokenizer } from "../data/tokenizer.ts";
 * import { createRandom } from "../random.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { initializeModel } from "./initialize.ts";
 * import { createModel } from "./model.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false });
 * initializeModel(model, createRandom(1));
 * const tokenizer = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * const folder = await Deno.makeTempDir();
 * await saveModel(folder, model, { tokenizer, dtype: "bf16" });
 * const names = Array.from(Deno.readDirSync(folder), (entry) => entry.name).toSorted();
 * assert.deepEqual(names, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function saveModel(
  folder: string,
  model: Model,
  options: {
    tokenizer: Tokenizer;
    dtype?: DType | "loaded";
    maxShardBytes?: number;
    onProgress?: (done: number, total: number) => void;
  },
): Promise<void> {
  const { dtype = "f32", maxShardBytes, onProgress } = options;
  await makeFolder(folder);
  const { parameters } = model;
  const layout = loadedLayout(parameters);
  let begun = 0;
  const tensors = [...parameters.shapes].map(([name, shape]) => ({
    name,
    shape,
    data() {
      onProgress?.(++begun, parameters.shapes.size);
      return parameters.readStored(name);
    },
  }));
  await writeCheckpoint(folder, tensors, { dtype, maxShardBytes, layout });
  // config.json has one type for all: that of the first matrix, as others (norms) may be kept wider.
  const [matrix] = [...parameters.shapes].find(([, shape]) => shape.length > 1) ?? [""];
  const main = dtype === "loaded" ? layout?.dtypes.get(matrix) ?? "f32" : dtype;
  const json = JSON.stringify(model.architecture.configJson({ dtype: main }), null, 2) + "\n";
  await writeFileAtomically(join(folder, "config.json"), (append) => append(new TextEncoder().encode(json)));
  await saveTokenizer(options.tokenizer, folder);
}
