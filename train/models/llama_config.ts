/**
 * The configuration of the Llama architecture, as transformers' `LlamaConfig` defines it, and what its relatives share
 * with it.
 *
 * @module
 */
import { z } from "zod";
import type { DType } from "../../engine/dtype.ts";
import {
  checkNeutral,
  flag,
  HEAD_DIM,
  integer,
  type NeutralValues,
  parsePart,
  real,
  refuse,
  sortKeys,
  TOKEN_IDS,
  type TokenIds,
  tokenIdsOf,
  torchDtype,
} from "./config_parts.ts";
import { parseRope, type RopeSettings, type RopeType } from "./rope_scaling.ts";

const sizesSchema = z.object({
  vocab_size: integer(1, 2 ** 24),
  hidden_size: integer(1, 2 ** 18),
  intermediate_size: integer(1, 2 ** 20),
  num_hidden_layers: integer(1, 4096),
  num_attention_heads: integer(1, 2 ** 14),
  num_key_value_heads: integer(1, 2 ** 14).nullish(),
  head_dim: HEAD_DIM.nullish(),
  hidden_act: z.literal("silu", '"silu"').default("silu"),
  max_position_embeddings: integer(1, 2 ** 26).optional(),
  initializer_range: real(0, 1).default(0.02),
  rms_norm_eps: real(0, 0.1).optional(),
  tie_word_embeddings: flag.default(false),
  layer_types: z.array(z.string("a kind of attention"), "a list").nullish(),
  ...TOKEN_IDS,
});

/** What Llama and its relatives say of themselves. Keys as in config.json. */
export interface LlamaSizes extends RopeSettings, TokenIds {
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
  /** Whether the output head is the embedding. */
  tie_word_embeddings: boolean;
}

/** A Llama model's configuration, every field set. Keys as in config.json. */
export interface LlamaConfig extends LlamaSizes {
  /** Tells architectures apart. */
  model_type: "llama";
  /** Whether the four projections of attention have biases. */
  attention_bias: boolean;
  /** Whether the three projections of the MLP have biases. */
  mlp_bias: boolean;
}

/**
 * Keys that change the mathematics of any relative, with the values that leave it as implemented. They belong to
 * architectures whose weights are sometimes labelled as one of these.
 */
const NEUTRAL: NeutralValues = {
  attention_dropout: 0,
  pretraining_tp: 1,
  rope_interleaved: false,
  partial_rotary_factor: 1,
  attn_logit_softcapping: null,
  final_logit_softcapping: null,
  query_pre_attn_scalar: null,
  embedding_multiplier: 1,
  attention_multiplier: null,
  residual_multiplier: 1,
  logits_scaling: 1,
  logit_scale: 1,
  scale_emb: 1,
  scale_depth: null,
  clip_qkv: null,
  alibi: false,
  no_rope_layers: null,
  attention_chunk_size: null,
  kv_lora_rank: null,
  n_routed_experts: null,
  num_local_experts: null,
  num_experts: null,
  is_encoder_decoder: false,
  add_cross_attention: false,
};

/** Of relatives without such a feature. */
export const NO_BIASES: NeutralValues = { attention_bias: false, mlp_bias: false };
/** Of relatives without such a feature. */
export const NO_HEAD_NORMS: NeutralValues = { use_qk_norm: false, qk_norm: false };

/** How a relative's configuration differs from the others'. */
export interface LlamaFamily {
  /** Keys that change its mathematics besides those of all. */
  readonly neutral: NeutralValues;
  /** What transformers takes for what is absent. */
  readonly defaults: TokenIds & {
    readonly max_position_embeddings: number;
    readonly rms_norm_eps: number;
    /** As many as query heads by default. */
    readonly num_key_value_heads?: number;
    /** The hidden size's share by default. */
    readonly head_dim?: number;
  };
  /** Kinds of RoPE; all by default. */
  readonly ropeTypes?: readonly RopeType[];
  /** Whether layers may attend to a window of tokens. */
  readonly hasWindow: boolean;
}

/**
 * Checks what all relatives of Llama share.
 *
 * @param json The parsed content of config.json.
 * @param file The file it came from, for messages.
 * @param family What is particular to the relative.
 * @returns The shared part of the configuration, defaults filled in as transformers does.
 * @throws {ConfigError} Naming file, key, what was expected and what was found.
 */
export function parseLlamaSizes(
  json: Record<string, unknown>,
  file: string,
  family: LlamaFamily,
): LlamaSizes {
  const { defaults } = family;
  checkNeutral(json, { ...NEUTRAL, ...family.neutral }, file);
  const { layer_types, ...sizes } = parsePart(sizesSchema, json, { file });
  const { num_attention_heads: heads } = sizes;
  // Absent and null are not the same to transformers.
  const kvHeads = sizes.num_key_value_heads === undefined ? defaults.num_key_value_heads : undefined;
  const maxPositions = sizes.max_position_embeddings ?? defaults.max_position_embeddings;
  const config: LlamaSizes = {
    ...sizes,
    ...tokenIdsOf(sizes, defaults, file),
    ...parseRope(json, file, { maxPositions, types: family.ropeTypes }),
    num_key_value_heads: sizes.num_key_value_heads ?? kvHeads ?? heads,
    head_dim: sizes.head_dim ?? defaults.head_dim ?? headDim(sizes, file),
    max_position_embeddings: maxPositions,
    rms_norm_eps: sizes.rms_norm_eps ?? defaults.rms_norm_eps,
  };
  if (heads % config.num_key_value_heads !== 0) {
    const expected = `a divisor of num_attention_heads ${heads}`;
    throw refuse(file, "num_key_value_heads", { expected, found: config.num_key_value_heads });
  }
  checkLayerTypes(layer_types, config, { file, family });
  return config;
}

function headDim(sizes: { hidden_size: number; num_attention_heads: number }, file: string): number {
  const { hidden_size, num_attention_heads } = sizes;
  const dim = hidden_size / num_attention_heads;
  if (HEAD_DIM.safeParse(dim).success) return dim;
  const expected =
    `a multiple of 4 up to 256 for each of ${num_attention_heads} heads, as there is no head_dim`;
  throw refuse(file, "hidden_size", { expected, found: hidden_size });
}

function checkLayerTypes(
  types: readonly string[] | null | undefined,
  { num_hidden_layers }: LlamaSizes,
  { file, family }: { file: string; family: LlamaFamily },
): void {
  if (!types) return;
  const known = ["full_attention", ...family.hasWindow ? ["sliding_attention"] : []];
  if (types.length === num_hidden_layers && types.every((type) => known.includes(type))) return;
  const expected = `${num_hidden_layers} of ${known.map((type) => `"${type}"`).join(" or ")}`;
  throw refuse(file, "layer_types", { expected, found: types });
}

/**
 * Checks the configuration of a Llama model; called through `parseModelConfig`.
 *
 * @param json The parsed content of config.json.
 * @param file The file it came from, for messages.
 * @returns The configuration, defaults filled in as transformers does.
 * @throws {ConfigError} Naming file, key, what was expected and what was found.
 */
export function parseLlamaConfig(json: Record<string, unknown>, file: string): LlamaConfig {
  // Configurations name a window that they then switch off.
  const window: NeutralValues = json.use_sliding_window === false ? {} : { sliding_window: null };
  const sizes = parseLlamaSizes(json, file, {
    neutral: { ...NO_HEAD_NORMS, ...window },
    hasWindow: false,
    defaults: {
      ...{ max_position_embeddings: 2048, rms_norm_eps: 1e-6 },
      ...{ bos_token_id: 1, eos_token_id: 2, pad_token_id: null },
    },
  });
  const biases = z.object({ attention_bias: flag.nullish(), mlp_bias: flag.nullish() });
  const { attention_bias, mlp_bias } = parsePart(biases, json, { file });
  return {
    model_type: "llama",
    ...sizes,
    attention_bias: attention_bias ?? false,
    mlp_bias: mlp_bias ?? false,
  };
}

/**
 * The config.json content of a relative of Llama, in the layout of transformers 4, which 5 reads as well.
 *
 * @param config The configuration.
 * @param options.architecture transformers' class.
 * @param options.dtype The element type that the weights are saved in.
 * @returns A JSON value.
 */
export function llamaFamilyJson(
  config: LlamaSizes & { model_type: string },
  options: { architecture: string; dtype: DType },
): Record<string, unknown> {
  const fixed = { architectures: [options.architecture], attention_dropout: 0, use_cache: true };
  return sortKeys({ ...config, ...fixed, torch_dtype: torchDtype(options.dtype) });
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
export function llamaConfigJson(config: LlamaConfig, options: { dtype: DType }): Record<string, unknown> {
  return llamaFamilyJson(config, { architecture: "LlamaForCausalLM", ...options });
}
