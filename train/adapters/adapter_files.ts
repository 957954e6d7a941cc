/**
 * Adapters from and to folders in PEFT's layout: adapter_config.json and adapter_model.safetensors.
 * @module
 */
import { join } from "node:path";
import { writeFileAtomically } from "../atomic_file.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { saveTokenizer } from "../data/tokenizer_folder.ts";
import { makeFolder } from "../write_error.ts";
import { CheckpointError, ConfigError, showFound } from "../errors.ts";
import type { Architecture } from "../models/architecture.ts";
import type { Model } from "../models/model.ts";
import { openSafetensors, type SafetensorsFile } from "../models/safetensors.ts";
import { writeSafetensors } from "../models/safetensors_write.ts";
import { ADAPTER_CONFIG, readAdapterConfig } from "./adapter_config.ts";
import { attachAdapter, factorName, factorShapes } from "./lora.ts";
import { loraConfigJson, type StoredLoraConfig } from "./lora_config.ts";
import { findTargets, linearModules } from "./target_modules.ts";

/** The file of its factors. */
export const ADAPTER_WEIGHTS = "adapter_model.safetensors";

/** What PEFT's names begin with: its wrappers around the model. */
const PREFIX = "base_model.model.";
const FACTOR = /^base_model\.model\.(.+)\.lora_[AB]\.weight$/;

/** The name of a module's factor in {@link ADAPTER_WEIGHTS}. */
export function storedFactor(module: string, factor: "A" | "B"): string {
  return PREFIX + factorName(module, factor);
}

/**
 * Saves a model's adapter as PEFT does, in f32; the weights appear only when they are complete.
 *
 * @param folder made when it does not exist
 * @param model with an adapter
 * @param options.tokenizer carried along
 * @throws {TypeError} when the model has no adapter
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { createModel } from "../models/model.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 * import { addLora } from "./lora.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = addLora(createModel(gpu, config, { trainable: false }), { rank: 2, base: "models/llama" });
 * const folder = await Deno.makeTempDir();
 * await saveAdapter(folder, model);
 * using again = await loadAdapter(createModel(gpu, config, { trainable: false }), folder, { trainable: false });
 * assert.deepEqual(again.adapter!.modules, model.adapter!.modules);
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function saveAdapter(
  folder: string,
  model: Model,
  options: { tokenizer?: Tokenizer } = {},
): Promise<void> {
  const { adapter, architecture } = model;
  if (!adapter) {
    throw new TypeError(`Cannot save an adapter in ${folder}: expected a model with one, found none`);
  }
  await makeFolder(folder);
  const { parameters } = adapter;
  const tensors = [...parameters.shapes].map(([name, shape]) => ({
    name: PREFIX + name,
    shape,
    data: () => parameters.readShards(name),
  }));
  await writeSafetensors(join(folder, ADAPTER_WEIGHTS), tensors, { dtype: "f32" });
  const json = loraConfigJson(adapter.config, { isInOut: architecture.weightLayout === "in_out" });
  const text = JSON.stringify(json, null, 2) + "\n";
  await writeFileAtomically(join(folder, ADAPTER_CONFIG), (append) => append(new TextEncoder().encode(text)));
  if (options.tokenizer) await saveTokenizer(options.tokenizer, folder);
}

/**
 * Adds a saved adapter to a model.
 *
 * @param model frozen, the adapter's base; it belongs to the result
 * @param folder adapter_config.json and adapter_model.safetensors
 * @param options whether it is trained on, and the name of its base where that changed
 * @returns the model with the adapter; when this throws, the model still is the caller's
 * @throws {CheckpointError} naming file and key or tensor: also when the adapter was made for another base
 * @throws {ConfigError} when it is to be trained on with dropout, or cannot be added: see `addLora`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { createModel } from "../models/model.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 * import { addLora } from "./lora.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * const base = () => createModel(gpu, config, { trainable: false });
 * using model = addLora(base(), { rank: 2 });
 * const folder = await Deno.makeTempDir();
 * await saveAdapter(folder, model);
 * using again = await loadAdapter(base(), folder, { trainable: true });
 * assert.equal(again.trained.count, model.trained.count);
 * ```
 */
export async function loadAdapter(
  model: Model,
  folder: string,
  options: { trainable: boolean; base?: string },
): Promise<Model> {
  const config = await readAdapterConfig(folder);
  const { trainable } = options;
  if (trainable && config.dropout > 0) {
    throw new ConfigError(
      `Cannot train ${folder}: lora_dropout in ${ADAPTER_CONFIG}: expected 0, found ${config.dropout}`,
    );
  }
  using file = await openSafetensors(join(folder, ADAPTER_WEIGHTS));
  const modules = checkAdapter(file, model.architecture, { config, folder });
  const { isInOut: _, dropout: __, ...kept } = config;
  const adapted = attachAdapter(model, { ...kept, base: options.base ?? kept.base }, { modules, trainable });
  const { parameters } = adapted.adapter!;
  try {
    for (const name of parameters.shapes.keys()) {
      const values = await file.read(PREFIX + name, { finite: true });
      parameters.write(name, values as Float32Array<ArrayBuffer>);
    }
    model.gpu.queue.submit();
  } catch (error) {
    parameters[Symbol.dispose]();
    throw error;
  }
  return adapted;
}

/**
 * Checks an adapter's folder against its base without loading anything.
 *
 * @param folder adapter_config.json and adapter_model.safetensors
 * @param architecture of the base
 * @throws {CheckpointError} naming file and key or tensor
 */
export async function checkAdapterFolder(folder: string, architecture: Architecture): Promise<void> {
  const config = await readAdapterConfig(folder);
  using file = await openSafetensors(join(folder, ADAPTER_WEIGHTS));
  checkAdapter(file, architecture, { config, folder });
}

/**
 * Holds an adapter's file against the base.
 *
 * @param file open
 * @param architecture of the base
 * @param options the adapter's settings, and its folder for messages
 * @returns the modules that it changes
 * @throws {CheckpointError} naming the tensor that does not fit, and the base that the adapter was made for
 */
export function checkAdapter(
  file: SafetensorsFile,
  architecture: Architecture,
  { config, folder }: { config: StoredLoraConfig; folder: string },
): string[] {
  const refuse = (what: string) =>
    new CheckpointError(
      `Cannot use the adapter ${folder}: ${what}: it was made for ${
        config.base === null ? "another base" : JSON.stringify(config.base)
      } (base_model_name_or_path)`,
    );
  if (config.isInOut !== (architecture.weightLayout === "in_out")) {
    throw refuse(`expected fan_in_fan_out ${!config.isInOut} for this base, found ${config.isInOut}`);
  }
  const { tensors } = file.header;
  const inFile = new Set<string>();
  const linear = new Set(linearModules(architecture));
  for (const name of tensors.keys()) {
    const module = FACTOR.exec(name)?.[1];
    if (module === undefined) {
      throw new CheckpointError(
        `Cannot use the adapter ${folder}: expected factors of linear layers alone, found tensor ${
          showFound(name)
        }`,
      );
    }
    if (!linear.has(module)) throw refuse(`expected linear layers of this base, found ${showFound(name)}`);
    inFile.add(module);
  }
  const modules = targetsOf(architecture, { config, refuse });
  const surplus = [...inFile].find((module) => !modules.includes(module));
  if (surplus !== undefined) {
    throw refuse(`expected factors of the target modules alone, found those of ${surplus}`);
  }
  for (const [name, shape] of factorShapes(architecture, { modules, rank: config.rank })) {
    const found = tensors.get(PREFIX + name)?.shape;
    if (found?.join() !== shape.join()) {
      throw refuse(`tensor ${PREFIX + name}: expected shape ${showFound(shape)}, found ${showFound(found)}`);
    }
  }
  return modules;
}

function targetsOf(
  architecture: Architecture,
  { config, refuse }: { config: StoredLoraConfig; refuse: (what: string) => CheckpointError },
): string[] {
  try {
    return findTargets(architecture, config.targetModules);
  } catch (error) {
    if (error instanceof ConfigError) throw refuse(error.message.replace("Cannot add LoRA: ", ""));
    throw error;
  }
}
