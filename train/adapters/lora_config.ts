/**
 * PEFT's adapter_config.json, as far as it is LoRA on linear layers. What would change the mathematics and is not
 * implemented is refused by name.
 * @module
 */
import { z } from "zod";
import { CheckpointError, showFound } from "../errors.ts";

/** An adapter's settings. */
export interface LoraConfig {
  /** r, the rank of every module's factors. */
  readonly rank: number;
  /** Scales the adapter: by alpha / r, or with `rslora` by alpha / sqrt(r). */
  readonly alpha: number;
  /** Rank-stabilized scaling (arXiv 2312.03732). */
  readonly rslora: boolean;
  /** As PEFT has it: names that modules equal or end in after a dot, or a regular expression of whole names. */
  readonly targetModules: readonly string[] | string;
  /** What the adapter was made for: a folder, or a name on the hub. */
  readonly base: string | null;
}

/** What adapter_config.json says besides. */
export interface StoredLoraConfig extends LoraConfig {
  /** Whether its base stores matrices as `[in, out]`: PEFT's `fan_in_fan_out`. */
  readonly isInOut: boolean;
  /** Of training; off when an adapter is used. */
  readonly dropout: number;
}

/** alpha / r (arXiv 2106.09685), or alpha / sqrt(r) (arXiv 2312.03732). */
export function loraScale({ rank, alpha, rslora }: Pick<LoraConfig, "rank" | "alpha" | "rslora">): number {
  return alpha / (rslora ? Math.sqrt(rank) : rank);
}

const text = z.string("a text").min(1, "a text that is not empty");

const schema = z.looseObject({
  peft_type: z.literal("LORA", '"LORA" (no other kind of adapter is supported)'),
  task_type: z.literal("CAUSAL_LM", '"CAUSAL_LM"').nullish(),
  base_model_name_or_path: z.string("a text or null").nullish(),
  r: z.int("an integer of at least 1").min(1, "an integer of at least 1").max(
    2 ** 16,
    "an integer of at most 65536",
  ),
  lora_alpha: z.number("a number above 0").positive("a number above 0"),
  target_modules: z.union(
    [text, z.array(text).min(1, "at least one module")],
    "a pattern or a list of modules",
  ),
  use_rslora: z.boolean("true or false").default(false),
  fan_in_fan_out: z.boolean("true or false").default(false),
  lora_dropout: z.number("a number from 0 to 1").min(0, "a number from 0 to 1").max(1, "a number from 0 to 1")
    .default(0),
  // Only tells how fresh factors were made; those that change the base as well are refused.
  init_lora_weights: z.union([z.boolean(), z.literal("gaussian"), z.literal("orthogonal")], {
    error: 'true, false, "gaussian" or "orthogonal" (other ways to begin change the base, too)',
  }).nullish(),
});

/** Keys that change nothing, whatever they hold. */
const DESCRIPTIVE = new Set([
  "auto_mapping",
  "inference_mode",
  "megatron_core",
  "peft_version",
  "qalora_group_size",
  "revision",
]);

/** Keys that have a meaning of their own in one neutral value. */
const NEUTRAL: Readonly<Record<string, unknown>> = { bias: "none" };

/**
 * Checks the content of an adapter_config.json.
 *
 * @param json the parsed file
 * @param file its path, for messages
 * @returns its settings
 * @throws {CheckpointError} naming file and key
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const json = { peft_type: "LORA", r: 4, lora_alpha: 8, target_modules: ["q_proj"], use_dora: false };
 * assert.equal(parseLoraConfig(json, "adapter_config.json").rank, 4);
 * assert.throws(() => parseLoraConfig({ ...json, use_dora: true }, "adapter_config.json"), /use_dora/);
 * ```
 */
export function parseLoraConfig(json: unknown, file: string): StoredLoraConfig {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new CheckpointError(`Cannot read ${file}: expected an object, found ${showFound(json)}`);
  }
  const result = schema.safeParse(json);
  if (!result.success) {
    const { path, message } = result.error.issues[0];
    const key = String(path[0]);
    throw refused(file, key, { expected: message, found: (json as Record<string, unknown>)[key] });
  }
  const known = new Set(Object.keys(schema.shape));
  for (const [key, value] of Object.entries(json)) {
    if (known.has(key) || DESCRIPTIVE.has(key) || isNeutral(key, value)) continue;
    const neutral = JSON.stringify(NEUTRAL[key] ?? null);
    throw refused(file, key, { expected: `${neutral} (nothing else is supported)`, found: value });
  }
  const { r, lora_alpha, use_rslora, target_modules, base_model_name_or_path, fan_in_fan_out } = result.data;
  return {
    ...{ rank: r, alpha: lora_alpha, rslora: use_rslora, targetModules: target_modules },
    ...{ base: base_model_name_or_path ?? null, isInOut: fan_in_fan_out, dropout: result.data.lora_dropout },
  };
}

/** PEFT grows keys with every version; off is null, false or empty for all of them. */
function isNeutral(key: string, value: unknown): boolean {
  if (value === null || value === false) return true;
  if (key in NEUTRAL) return value === NEUTRAL[key];
  return typeof value === "object" && Object.keys(value).length === 0;
}

function refused(file: string, key: string, what: { expected: string; found: unknown }): CheckpointError {
  // A key of a damaged file may be as long as the file.
  const name = key.length <= 200 ? key : `${key.slice(0, 197)}...`;
  return new CheckpointError(
    `Cannot read ${file}: ${name}: expected ${what.expected}, found ${showFound(what.found)}`,
  );
}

/**
 * The content of adapter_config.json, for PEFT and for {@link parseLoraConfig} to read back.
 *
 * @param config the adapter's settings
 * @param options.isInOut whether its base stores matrices as `[in, out]`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const config = { rank: 4, alpha: 8, rslora: true, targetModules: ["q_proj"], base: "models/llama" };
 * const json = loraConfigJson(config, { isInOut: false });
 * assert.deepEqual(parseLoraConfig(json, "adapter_config.json"), { ...config, isInOut: false, dropout: 0 });
 * ```
 */
export function loraConfigJson(config: LoraConfig, options: { isInOut: boolean }): Record<string, unknown> {
  const { rank, alpha, rslora, targetModules, base } = config;
  return {
    alpha_pattern: {},
    base_model_name_or_path: base,
    bias: "none",
    fan_in_fan_out: options.isInOut,
    inference_mode: true,
    init_lora_weights: true,
    layers_pattern: null,
    layers_to_transform: null,
    lora_alpha: alpha,
    lora_bias: false,
    lora_dropout: 0,
    modules_to_save: null,
    peft_type: "LORA",
    r: rank,
    rank_pattern: {},
    target_modules: targetModules,
    task_type: "CAUSAL_LM",
    use_dora: false,
    use_rslora: rslora,
  };
}
