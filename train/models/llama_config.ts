/**
 * The configuration of the Llama architecture, as transformers' `LlamaConfig` defines it.
 *
 * @module
 */
import { z } from "zod";
import { ConfigError, showFound } from "../errors.ts";

/** An integer within bounds that no model of today comes near: beyond them a file is damaged. */
function integer(least: number, most: number) {
  const expected = `an integer from ${least} to ${most}`;
  return z.int(expected).min(least, expected).max(most, expected);
}

function real(above: number, most: number) {
  const expected = `a number above ${above} and at most ${most}`;
  return z.number(expected).gt(above, expected).max(most, expected);
}

const tokenId = integer(0, 2 ** 24);
// The first Llama conversions wrote -1 for "no padding token".
const padTokenId = z.union([tokenId, z.literal(-1).transform(() => null)], "a token id or null");

/** transformers 5 writes RoPE's settings as one object. */
const ropeParametersSchema = z.object({
  rope_theta: real(0, 1e12).optional(),
  rope_type: z.literal("default", '"default" (scaled RoPE is not supported)').default("default"),
}, "an object");

const sizesSchema = z.object({
  model_type: z.literal("llama", '"llama"'),
  vocab_size: integer(1, 2 ** 24),
  hidden_size: integer(1, 2 ** 18),
  intermediate_size: integer(1, 2 ** 20),
  num_hidden_layers: integer(1, 4096),
  num_attention_heads: integer(1, 2 ** 14),
  num_key_value_heads: integer(1, 2 ** 14).nullish(),
  head_dim: integer(2, 2 ** 14).multipleOf(2, "an even integer: RoPE turns pairs").nullish(),
  hidden_act: z.literal("silu", '"silu"').default("silu"),
  max_position_embeddings: integer(1, 2 ** 26).default(2048),
  initializer_range: real(0, 1).default(0.02),
  rms_norm_eps: real(0, 0.1).default(1e-6),
  rope_theta: real(0, 1e12).optional(),
  rope_parameters: ropeParametersSchema.nullish(),
  tie_word_embeddings: z.boolean("true or false").default(false),
  bos_token_id: tokenId.nullable().default(1),
  eos_token_id: z.union(
    [tokenId, z.array(tokenId).min(1, "a token id or a list of them")],
    "a token id or a list of them",
  ).nullable()
    .default(2),
  pad_token_id: padTokenId.nullable().default(null),
});

/** A Llama model's configuration, every field set. Keys as in config.json. */
export interface LlamaConfig {
  /** Tells architectures apart. */
  model_type: "llama";
  /** V, rows of the embedding. */
  vocab_size: number;
  /** C, the width of the residual stream. */
  hidden_size: number;
  /** F, the width of the MLP. */
  intermediate_size: number;
  /** L, the number of layers. */
  num_hidden_layers: number;
  /** H, the heads of queries. */
  num_attention_heads: number;
  /** K, the heads of keys and values; several query heads share one (arXiv 2305.13245). */
  num_key_value_heads: number;
  /** D, the size of one head. */
  head_dim: number;
  /** The MLP's activation (SwiGLU's gate, arXiv 2002.05202). */
  hidden_act: "silu";
  /** The longest sequence the model was made for. */
  max_position_embeddings: number;
  /** The standard deviation of fresh weights. */
  initializer_range: number;
  /** Added to the mean square in RMSNorm (arXiv 1910.07467). */
  rms_norm_eps: number;
  /** The base of RoPE's frequencies (arXiv 2104.09864). */
  rope_theta: number;
  /** Whether the output head is the embedding. */
  tie_word_embeddings: boolean;
  /** Begins a text. */
  bos_token_id: number | null;
  /** End a text. */
  eos_token_id: number | number[] | null;
  /** Fills up. */
  pad_token_id: number | null;
}

/**
 * Keys that change the mathematics, with the values that leave it as implemented. They belong to Llama or to its
 * relatives, whose weights are sometimes labelled `llama`. Null or absent is always neutral.
 */
const NEUTRAL: Readonly<Record<string, unknown>> = {
  attention_bias: false,
  mlp_bias: false,
  attention_dropout: 0,
  pretraining_tp: 1,
  rope_scaling: null,
  rope_interleaved: false,
  partial_rotary_factor: 1,
  sliding_window: null,
  attn_logit_softcapping: null,
  final_logit_softcapping: null,
  use_qk_norm: false,
  qk_norm: false,
  embedding_multiplier: 1,
  attention_multiplier: null,
  residual_multiplier: 1,
  logits_scaling: 1,
  num_local_experts: null,
  num_experts: null,
};

/**
 * Checks the configuration of a Llama model; called through `parseModelConfig`.
 *
 * @param json The parsed content of config.json.
 * @param file The file it came from, for messages.
 * @returns The configuration, defaults filled in as transformers does.
 * @throws {ConfigError} Naming file, key, what was expected and what was found.
 */
export function parseLlamaConfig(json: Record<string, unknown>, file: string): LlamaConfig {
  checkNeutral(json, file);
  const result = sizesSchema.safeParse(json);
  if (!result.success) {
    const { path, message } = result.error.issues[0];
    // deno-lint-ignore no-explicit-any -- walks a path that the schema reported, in JSON of unknown type
    const found = path.reduce((inner: any, key) => inner?.[key], json);
    throw refuse(file, path.join("."), { expected: message, found });
  }
  const { rope_parameters, ...sizes } = result.data;
  const config: LlamaConfig = {
    ...sizes,
    num_key_value_heads: sizes.num_key_value_heads ?? sizes.num_attention_heads,
    head_dim: sizes.head_dim ?? headDim(sizes, file),
    rope_theta: sizes.rope_theta ?? rope_parameters?.rope_theta ?? 10000,
  };
  const theta = rope_parameters?.rope_theta;
  if (theta !== undefined && theta !== config.rope_theta) {
    throw refuse(file, "rope_parameters.rope_theta", {
      expected: `rope_theta's ${config.rope_theta}`,
      found: theta,
    });
  }
  checkTogether(config, file);
  return config;
}

function refuse(file: string, key: string, what: { expected: string; found: unknown }): ConfigError {
  return new ConfigError(
    `Cannot read ${file}: ${key}: expected ${what.expected}, found ${showFound(what.found)}`,
  );
}

function checkNeutral(json: Record<string, unknown>, file: string): void {
  for (const [key, neutral] of Object.entries(NEUTRAL)) {
    const found = json[key];
    if (found === undefined || found === null || found === neutral) continue;
    // Configurations name a window that they then switch off.
    if (key === "sliding_window" && json.use_sliding_window === false) continue;
    throw refuse(file, key, { expected: `${neutral} (other values are not supported)`, found });
  }
}

function headDim(sizes: { hidden_size: number; num_attention_heads: number }, file: string): number {
  const { hidden_size, num_attention_heads } = sizes;
  const dim = hidden_size / num_attention_heads;
  if (dim % 2 === 0) return dim;
  const expected =
    `an even number of units for each of ${num_attention_heads} heads, as there is no head_dim`;
  throw refuse(file, "hidden_size", { expected, found: hidden_size });
}

function checkTogether(config: LlamaConfig, file: string): void {
  const { num_attention_heads, num_key_value_heads, vocab_size } = config;
  if (num_attention_heads % num_key_value_heads !== 0) {
    const expected = `a divisor of num_attention_heads ${num_attention_heads}`;
    throw refuse(file, "num_key_value_heads", { expected, found: num_key_value_heads });
  }
  for (const key of ["bos_token_id", "eos_token_id", "pad_token_id"] as const) {
    const ids = [config[key] ?? []].flat();
    if (ids.some((id) => id >= vocab_size)) {
      throw refuse(file, key, { expected: `an id below vocab_size ${vocab_size}`, found: config[key] });
    }
  }
}

/**
 * The config.json content of a model, for transformers and for `parseModelConfig` to read back.
 *
 * @param config The configuration.
 * @param options The element type that the weights are saved in.
 * @returns A JSON value.
 * @example
 * ```ts
 * const sizes = { vocab_size: 16, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "config.json");
 * const again = parseLlamaConfig(llamaConfigJson(config, { dtype: "f32" }), "config.json");
 * if (again.head_dim !== config.head_dim || again.rope_theta !== 10000) throw new Error("writing loses nothing");
 * ```
 */
export function llamaConfigJson(
  config: LlamaConfig,
  options: { dtype: "f32" | "f16" | "bf16" },
): Record<string, unknown> {
  const torch_dtype = { f32: "float32", f16: "float16", bf16: "bfloat16" }[options.dtype];
  const fixed = {
    attention_bias: false,
    attention_dropout: 0,
    mlp_bias: false,
    rope_scaling: null,
    use_cache: true,
  };
  const json = { architectures: ["LlamaForCausalLM"], ...config, ...fixed, torch_dtype };
  // Sorted, as transformers does: a value that was a default when the model was made stands where it does when read.
  return Object.fromEntries(Object.entries(json).sort(([a], [b]) => (a < b ? -1 : 1)));
}
