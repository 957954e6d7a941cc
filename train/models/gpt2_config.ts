/**
 * The configuration of the GPT-2 architecture, as transformers' `GPT2Config` defines it.
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

const dropout = z.number("a number from 0 to 1").min(0, "a number from 0 to 1").max(
  1,
  "a number from 0 to 1",
);

const schema = z.object({
  vocab_size: integer(1, 2 ** 24),
  n_positions: integer(1, 2 ** 26).default(1024),
  n_ctx: integer(1, 2 ** 26).nullish(),
  n_embd: integer(1, 2 ** 18).default(768),
  n_layer: integer(1, 4096).default(12),
  n_head: integer(1, 2 ** 14).default(12),
  n_inner: integer(1, 2 ** 20).nullable().default(null),
  // Two names of one function.
  activation_function: z.enum(["gelu_new", "gelu_pytorch_tanh"], '"gelu_new" or "gelu_pytorch_tanh"')
    .default("gelu_new"),
  resid_pdrop: dropout.default(0.1),
  embd_pdrop: dropout.default(0.1),
  attn_pdrop: dropout.default(0.1),
  layer_norm_epsilon: real(0, 0.1).default(1e-5),
  initializer_range: real(0, 1).default(0.02),
  // The order of two products, and the type of one of them: the same in exact arithmetic.
  reorder_and_upcast_attn: flag.default(false),
  tie_word_embeddings: flag.default(true),
  ...TOKEN_IDS,
});

/** A GPT-2 model's configuration, every field set. Keys as in config.json. */
export interface Gpt2Config extends TokenIds {
  /** Tells architectures apart. */
  model_type: "gpt2";
  /** V, rows of the token embedding. */
  vocab_size: number;
  /** Rows of the position embedding: the longest sequence. */
  n_positions: number;
  /** C, the width of the residual stream. */
  n_embd: number;
  /** L, the number of layers. */
  n_layer: number;
  /** H, the heads of attention. */
  n_head: number;
  /** F, the width of the MLP; 4 C where it is null. */
  n_inner: number | null;
  /** The MLP's activation: GELU by its tanh formula (arXiv 1606.08415). */
  activation_function: "gelu_new" | "gelu_pytorch_tanh";
  /** Dropout of what is added to the residual stream, of embeddings and of attention: kept, and not applied. */
  resid_pdrop: number;
  /** See `resid_pdrop`. */
  embd_pdrop: number;
  /** See `resid_pdrop`. */
  attn_pdrop: number;
  /** Added to the variance in LayerNorm (arXiv 1607.06450). */
  layer_norm_epsilon: number;
  /** The standard deviation of fresh weights. */
  initializer_range: number;
  /** A matter of rounding, which changes nothing here. */
  reorder_and_upcast_attn: boolean;
  /** Whether the output head is the embedding. */
  tie_word_embeddings: boolean;
}

const NEUTRAL: NeutralValues = {
  scale_attn_weights: true,
  scale_attn_by_inverse_layer_idx: false,
  add_cross_attention: false,
  is_encoder_decoder: false,
  alibi: false,
  multi_query: false,
  rope_scaling: null,
  rope_parameters: null,
};

/** What transformers writes into every config.json of a GPT-2. */
const EOS = 50256;

/**
 * Checks the configuration of a GPT-2 model; called through `parseModelConfig`.
 *
 * @param json The parsed content of config.json.
 * @param file The file it came from, for messages.
 * @returns The configuration, defaults filled in as transformers does.
 * @throws {ConfigError} Naming file, key, what was expected and what was found.
 */
export function parseGpt2Config(json: Record<string, unknown>, file: string): Gpt2Config {
  checkNeutral(json, NEUTRAL, file);
  const { n_ctx, ...sizes } = parsePart(schema, json, { file });
  const { n_embd, n_head, n_positions } = sizes;
  if (!HEAD_DIM.safeParse(n_embd / n_head).success) {
    const expected = `a multiple of 4 up to 256 for each of ${n_head} heads`;
    throw refuse(file, "n_embd", { expected, found: n_embd });
  }
  if (n_ctx !== undefined && n_ctx !== null && n_ctx !== n_positions) {
    throw refuse(file, "n_ctx", { expected: `n_positions ${n_positions}`, found: n_ctx });
  }
  const defaults = { bos_token_id: EOS, eos_token_id: EOS, pad_token_id: null };
  return { model_type: "gpt2", ...sizes, ...tokenIdsOf(sizes, defaults, file) };
}

/**
 * The config.json content of a model, for transformers and for `parseModelConfig` to read back.
 *
 * @param config The configuration.
 * @param options The element type that the weights are saved in.
 * @returns A JSON value.
 */
export function gpt2ConfigJson(config: Gpt2Config, options: { dtype: DType }): Record<string, unknown> {
  const { scale_attn_weights, scale_attn_by_inverse_layer_idx, add_cross_attention } = NEUTRAL;
  return sortKeys({
    ...config,
    architectures: ["GPT2LMHeadModel"],
    n_ctx: config.n_positions,
    ...{ scale_attn_weights, scale_attn_by_inverse_layer_idx, add_cross_attention },
    use_cache: true,
    torch_dtype: torchDtype(options.dtype),
  });
}
