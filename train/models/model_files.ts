/**
 * Models from and to folders in Hugging Face layout: config.json, model.safetensors, tokenizer files.
 * @module
 */
import { join } from "node:path";
import { type DType, findOverflow } from "../../engine/dtype.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { sizeOf } from "../../engine/shape.ts";
import { toHost } from "../../engine/tensor.ts";
import { writeFileAtomically } from "../atomic_file.ts";
import { loadTokenizer, saveTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { CheckpointError } from "../errors.ts";
import { fillNormal, type Random } from "../random.ts";
import { readModelConfig } from "./config.ts";
import { checkWeights, storedNames } from "./check_weights.ts";
import { createModel, type Model, type ModelOptions } from "./model.ts";
import { architectureOf, type ModelConfig } from "./registry.ts";
import { findWeightsFile, openSafetensors } from "./safetensors.ts";
import { writeSafetensors } from "./safetensors_write.ts";

/** Host bytes that loading holds at a time. */
const CHUNK_BYTES = 64 * 2 ** 20;

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
 * @param options whether it is trained, in which types, for which lengths
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
 * import { createModel } from "./model.ts";
 * import { parseModelConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, "example");
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
  options: ModelOptions,
): Promise<LoadedModel> {
  const { config, tokenizer } = await checkModel(folder);
  using file = await openSafetensors(await findWeightsFile(folder));
  const model = createModel(gpu, config, options);
  const stored = storedNames(file.header.tensors.keys(), model.architecture);
  try {
    for (const name of model.parameters.shapes.keys()) {
      for (const rows of chunksOf(model, name)) {
        const values = await file.read(stored(name), { rows, finite: true });
        refuseOverflow(values, { name, folder, storage: options.storage ?? options.dtype ?? "f32" });
        model.parameters.write(name, values as Float32Array<ArrayBuffer>, rows[0]);
      }
      gpu.queue.submit();
    }
  } catch (error) {
    model[Symbol.dispose]();
    throw error;
  }
  return { model, tokenizer };
}

/** A weight that becomes infinite would make every loss NaN. */
function refuseOverflow(
  values: Float32Array,
  { name, folder, storage }: { name: string; folder: string; storage: DType },
): void {
  const index = findOverflow(values, storage);
  if (index < 0) return;
  throw new CheckpointError(
    `Cannot load ${folder} as ${storage}: expected weights that it can hold, found ${
      values[index]
    } in ${name}`,
  );
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
  using file = await openSafetensors(await findWeightsFile(folder));
  await checkWeights(file, architectureOf(config));
  return { config, tokenizer };
}

/** Rows of a parameter that are loaded at a time. */
function chunksOf({ parameters }: Model, name: string): [number, number][] {
  const shape = parameters.shapes.get(name)!;
  const step = Math.max(1, Math.floor(CHUNK_BYTES / (sizeOf(shape.slice(1)) * 4)));
  return Array.from({ length: Math.ceil(shape[0] / step) }, (_, index) => {
    return [index * step, Math.min(shape[0], (index + 1) * step)];
  });
}

/**
 * A model that takes the memory which loading it takes, and holds zeros.
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
  const model = createModel(gpu, config, options);
  // Of equal shapes the first takes what the others take.
  const names = new Map([...model.parameters.shapes].reverse().map(([name, shape]) => [shape.join(), name]));
  for (const name of names.values()) {
    const rowSize = sizeOf(model.parameters.shapes.get(name)!.slice(1));
    for (const [first, end] of chunksOf(model, name)) {
      model.parameters.write(name, new Float32Array((end - first) * rowSize), first);
    }
    gpu.queue.submit();
  }
  return model;
}

/** Reads all parameters, as saving does, and writes no file: for planning devices. */
export async function saveNothing({ parameters }: Model): Promise<void> {
  for (const name of parameters.shapes.keys()) {
    for (const shard of parameters.shards(name)) await toHost(shard);
  }
}

/** An id past the embedding would read another tensor's bytes. */
function checkVocabulary(tokenizer: Tokenizer, config: ModelConfig, folder: string): void {
  if (tokenizer.vocabSize > config.vocab_size) {
    throw new CheckpointError(
      `Cannot load ${folder}: expected a tokenizer of at most ${config.vocab_size} ids (vocab_size in config.json), ` +
        `found ${tokenizer.vocabSize} in tokenizer.json`,
    );
  }
}

/**
 * Fills a model with fresh weights: norms 1, matrices normal with the config's initializer_range, those that write to
 * the residual stream scaled by 1 / sqrt(2 L) (GPT-2).
 *
 * @param model the model
 * @param random where the numbers come from
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { createRandom } from "../random.ts";
 * import { createModel } from "./model.ts";
 * import { parseModelConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createModel(gpu, config, { trainable: false });
 * initializeModel(model, createRandom(1));
 * const embedding = await model.parameters.read("model.embed_tokens.weight");
 * assert(embedding.some((weight) => weight !== 0) && embedding.every((weight) => Math.abs(weight) < 0.2));
 * assert((await model.parameters.read("model.norm.weight")).every((weight) => weight === 1));
 * ```
 */
export function initializeModel(model: Model, random: Random): void {
  const { architecture, parameters } = model;
  for (const [name, shape] of parameters.shapes) {
    const values = new Float32Array(sizeOf(shape));
    const initial = architecture.initial(name, shape);
    if ("value" in initial) values.fill(initial.value);
    else fillNormal(random, { target: values, std: initial.std });
    parameters.write(name, values);
  }
}

/**
 * Saves a model folder; model.safetensors appears only when it is complete.
 *
 * @param folder made when it does not exist
 * @param model what to save
 * @param options.tokenizer carried along
 * @param options.dtype element type of the weights
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { characterTokenizerFiles } from "../data/character_tokenizer.ts";
 * import { createTokenizer } from "../data/tokenizer.ts";
 * import { createRandom } from "../random.ts";
 * import { createModel } from "./model.ts";
 * import { parseModelConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, "example");
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
  options: { tokenizer: Tokenizer; dtype?: DType },
): Promise<void> {
  const dtype = options.dtype ?? "f32";
  await Deno.mkdir(folder, { recursive: true });
  const { parameters } = model;
  const tensors = [...parameters.shapes].map(([name, shape]) => ({
    name,
    shape,
    data: () => parameters.readShards(name),
  }));
  await writeSafetensors(join(folder, "model.safetensors"), tensors, { dtype });
  const json = JSON.stringify(model.architecture.configJson({ dtype }), null, 2) + "\n";
  await writeFileAtomically(join(folder, "config.json"), (append) => append(new TextEncoder().encode(json)));
  await saveTokenizer(options.tokenizer, folder);
}
