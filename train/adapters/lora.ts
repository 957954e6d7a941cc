/**
 * Low-rank adapters (LoRA, arXiv 2106.09685): two small factors beside each chosen linear layer are trained, the model
 * itself is not.
 * @module
 */
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import type { LoraLinearOptions } from "../../engine/ops/lora_linear.ts";
import { type Shape, sizeOf } from "../../engine/shape.ts";
import { ConfigError } from "../errors.ts";
import type { Architecture } from "../models/architecture.ts";
import type { Model } from "../models/model.ts";
import { createRandom, deriveSeed, type Random, uniform } from "../random.ts";
import { type LoraConfig, loraScale } from "./lora_config.ts";
import { ALL_LINEAR, findTargets } from "./target_modules.ts";

/** An adapter on the GPU. It belongs to the model that it was added to. */
export interface Adapter {
  /** Its settings. */
  readonly config: LoraConfig;
  /** What is added is scaled by this. */
  readonly scale: number;
  /** Names of the linear layers that it changes, without `.weight`. */
  readonly modules: ReadonlySet<string>;
  /** Both factors of each, under {@link factorName}, in f32. */
  readonly parameters: Parameters;
}

/** What adapter to add; PEFT's defaults. */
export interface LoraOptions {
  /** r, of every module. */
  readonly rank: number;
  /** Scales the adapter by alpha / r; 2 r by default. */
  readonly alpha?: number;
  /** As PEFT's `target_modules`; "all-linear" by default. */
  readonly targetModules?: readonly string[] | string;
  /** Scale by alpha / sqrt(r) (arXiv 2312.03732); not by default. */
  readonly rslora?: boolean;
  /** Of the first factors; 0 by default. */
  readonly seed?: number;
  /** Must be 0, as it is by default. */
  readonly dropout?: number;
  /** Where the base comes from, for whoever loads the adapter. */
  readonly base?: string;
}

/** Name of a module's factor: A is `[r, in]`, B `[out, r]`. */
export function factorName(module: string, factor: "A" | "B"): string {
  return `${module}.lora_${factor}.weight`;
}

/**
 * Adds a fresh adapter: A uniform as PEFT draws it, B zero, so that the model computes what it did, bit for bit.
 *
 * @param model its weights are frozen from now on; it belongs to the result, which is disposed in its place
 * @param options rank, scale, modules
 * @returns the model with its adapter, which is all that training changes
 * @throws {ConfigError} when targets match nothing, or the embedding or the head; on dropout; when the rank is too small
 * for 16-bit storage; on a model whose weights are trained, or that has an adapter
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { createModel } from "../models/model.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = addLora(createModel(gpu, config, { trainable: false }), { rank: 2, targetModules: ["q_proj", "v_proj"] });
 * assert.equal(model.trained.count, 2 * (2 * 8 + 8 * 2));
 * ```
 */
export function addLora(model: Model, options: LoraOptions): Model {
  const { rank, alpha = 2 * rank, rslora = false, targetModules = ALL_LINEAR, seed = 0, base = null } =
    options;
  if (!Number.isInteger(rank) || rank < 1) {
    throw new ConfigError(`Cannot add LoRA: expected a rank of at least 1, found ${rank}`);
  }
  if (options.dropout) {
    throw new ConfigError(`Cannot add LoRA: expected a dropout of 0, found ${options.dropout}`);
  }
  const modules = findTargets(model.architecture, targetModules);
  const config = { rank, alpha, rslora, targetModules: writtenTargets(targetModules, modules), base };
  const adapted = attachAdapter(model, config, { modules, trainable: true });
  initializeAdapter(adapted.adapter!, seed);
  return adapted;
}

/** PEFT writes all-linear as the names it found. */
function writtenTargets(targets: readonly string[] | string, modules: readonly string[]) {
  if (targets !== ALL_LINEAR) return targets;
  return [...new Set(modules.map((name) => name.slice(name.lastIndexOf(".") + 1)))].sort();
}

/**
 * Adds an adapter of zeros.
 *
 * @param model frozen; it belongs to the result
 * @param config of the adapter
 * @param options the modules it changes, and whether it is trained
 * @throws {ConfigError} as {@link addLora}
 */
export function attachAdapter(
  model: Model,
  config: LoraConfig,
  options: { modules: readonly string[]; trainable: boolean },
): Model {
  const { gpu, architecture } = model;
  if (model.adapter) {
    throw new ConfigError("Cannot add LoRA: expected a model without an adapter, found one with it");
  }
  if (model.parameters.blocks.some(({ gradient }) => gradient)) {
    throw new ConfigError("Cannot add LoRA: expected a frozen model, found one whose weights are trained");
  }
  refuseOddRank(model, config.rank);
  const modules = new Set(options.modules);
  const parameters = createParameters(gpu, factorShapes(architecture, { modules, rank: config.rank }), {
    trainable: options.trainable,
    groups: factorGroups(architecture, modules),
  });
  const adapter: Adapter = { config, scale: loraScale(config), modules, parameters };
  return {
    ...model,
    adapter,
    trained: parameters,
    [Symbol.dispose]() {
      parameters[Symbol.dispose]();
      model[Symbol.dispose]();
    },
  };
}

/** Sixteen-bit elements come four at once, and the rank is a row's length. */
function refuseOddRank({ dtype, parameters }: Model, rank: number): void {
  const isNarrow = dtype === "f16" || parameters.blocks.some(({ weight }) => weight.type !== "f32");
  if (!isNarrow || rank % 4 === 0) return;
  throw new ConfigError(
    `Cannot add LoRA: expected a rank that divides by four, as 16-bit weights and activations need, found ${rank}`,
  );
}

/** Each module's factors by name: A `[r, in]`, B `[out, r]`, whichever way the architecture stores its weights. */
export function factorShapes(
  { shapes, weightLayout }: Architecture,
  { modules, rank }: { modules: Iterable<string>; rank: number },
): Map<string, Shape> {
  return new Map([...modules].flatMap((module): [string, Shape][] => {
    const [rows, columns] = shapes.get(`${module}.weight`)!;
    const [out, input] = weightLayout === "out_in" ? [rows, columns] : [columns, rows];
    return [[factorName(module, "A"), [rank, input]], [factorName(module, "B"), [out, rank]]];
  }));
}

/** Modules that share an input have their first factors side by side: one product for all of them. */
function factorGroups({ groups }: Architecture, modules: ReadonlySet<string>): string[][] {
  return groups
    .map((names) =>
      names.flatMap((name) => name.endsWith(".weight") ? [name.slice(0, -".weight".length)] : [])
    )
    .map((names) => names.filter((name) => modules.has(name)).map((name) => factorName(name, "A")))
    .filter((names) => names.length > 1);
}

/** PEFT's start: A by `kaiming_uniform_(a=sqrt(5))`, which is uniform within 1 / sqrt(in); B zero. */
function initializeAdapter({ parameters, modules }: Adapter, seed: number): void {
  for (const module of modules) {
    const name = factorName(module, "A");
    const shape = parameters.shapes.get(name)!;
    const values = new Float32Array(sizeOf(shape));
    fillUniform(createRandom(deriveSeed(seed, "lora", module)), values, { bound: shape[1] ** -0.5 });
    parameters.write(name, values);
  }
}

function fillUniform(random: Random, values: Float32Array, { bound }: { bound: number }): void {
  for (let i = 0; i < values.length; i++) values[i] = bound * (2 * uniform(random) - 1);
}

/**
 * Runs something on a model's weights without its adapter: the reference of a run whose adapter was fresh.
 *
 * @param model with an adapter, or without
 * @param body given the model as it was before an adapter was added; it shares the weights
 * @returns what `body` returned
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { createModel } from "../models/model.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = addLora(createModel(gpu, config, { trainable: false }), { rank: 2 });
 * assert.equal(withAdapterOff(model, (base) => base.adapter), undefined);
 * ```
 */
export function withAdapterOff<Result>(model: Model, body: (base: Model) => Result): Result {
  return body({ ...model, adapter: undefined, trained: model.parameters });
}

/** The factors that a product of these modules adds, where there are any: see `LoraLinearOptions`. */
export function loraFactors(
  { adapter, parameters, architecture }: Model,
  modules: readonly string[],
): Pick<LoraLinearOptions, "a" | "parts" | "scale"> | undefined {
  if (!adapter) return undefined;
  const names: string[] = [];
  const parts = [];
  let first = 0;
  for (const module of modules) {
    const shape = parameters.shapes.get(`${module}.weight`)!;
    if (adapter.modules.has(module)) {
      names.push(factorName(module, "A"));
      parts.push({ first, b: adapter.parameters.get(factorName(module, "B")) });
    }
    first += architecture.weightLayout === "out_in" ? shape[0] : shape[1];
  }
  if (parts.length === 0) return undefined;
  const a = names.length === 1 ? adapter.parameters.get(names[0]) : adapter.parameters.joined(names);
  return { a, parts, scale: adapter.scale };
}

/** Whether an adapter changes nothing: every second factor is zero. */
export async function isFresh({ parameters, modules }: Adapter): Promise<boolean> {
  for (const module of modules) {
    const values = await parameters.read(factorName(module, "B"));
    if (values.some((value) => value !== 0)) return false;
  }
  return true;
}
