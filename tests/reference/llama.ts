/**
 * The whole Llama forward in plain f64, composed of the reference ops. arXiv 2302.13971; parameter names and config keys
 * are Hugging Face's.
 *
 * @module
 */
import * as add from "./add.ts";
import * as attention from "./attention.ts";
import * as embedding from "./embedding.ts";
import * as matmul from "./matmul.ts";
import * as rmsNorm from "./rms_norm.ts";
import * as rope from "./rope.ts";
import { requireLengths, requireOffsets } from "./shape.ts";
import * as swiglu from "./swiglu.ts";

/** The keys of a Hugging Face Llama config that the forward needs. */
export interface LlamaConfig {
  /** V. */
  vocab_size: number;
  /** C. */
  hidden_size: number;
  /** F. */
  intermediate_size: number;
  /** L. */
  num_hidden_layers: number;
  /** H. */
  num_attention_heads: number;
  /** K. */
  num_key_value_heads: number;
  /** D, hidden_size / num_attention_heads when absent. */
  head_dim?: number;
  /** Epsilon of every normalization. */
  rms_norm_eps: number;
  /** Base of the rotary embedding. */
  rope_theta: number;
  /** The embedding also serves as the head. */
  tie_word_embeddings: boolean;
}

/** Parameters by their Hugging Face names, weights `[out, in]`. */
export type LlamaParameters = Map<string, Float64Array>;

/** Packed sequences. */
export interface LlamaInputs {
  /** Parameters by name. */
  parameters: LlamaParameters;
  /** `[N]` token ids of all sequences, one after the other. */
  inputIds: ArrayLike<number>;
  /** `[S + 1]` first row of each sequence, then N. Positions start at 0 in each. */
  sequenceOffsets: ArrayLike<number>;
}

/** What every layer needs beside the hidden states. */
interface Context {
  config: LlamaConfig;
  parameters: LlamaParameters;
  positions: Int32Array;
  sequenceOffsets: ArrayLike<number>;
  N: number;
}

/**
 * Hidden states after the last normalization, and logits.
 *
 * @param inputs Parameters, ids and offsets.
 * @param config Sizes.
 * @returns hidden `[N, C]`, logits `[N, V]`, and the lmHead `[V, C]` that made them.
 * @throws {RangeError} When a parameter is missing or has another size than the config says.
 */
export function forward(
  { parameters, inputIds, sequenceOffsets }: LlamaInputs,
  config: LlamaConfig,
): { hidden: Float64Array; logits: Float64Array; lmHead: Float64Array } {
  const { hidden_size: C, vocab_size: V } = config;
  const N = inputIds.length;
  requireOffsets(sequenceOffsets, N);
  const context = { config, parameters, positions: positionsOf(sequenceOffsets, N), sequenceOffsets, N };
  const weight = parameter(context, { name: "model.embed_tokens.weight", length: V * C });
  let x = embedding.forward({ ids: inputIds, weight }, { N, V, C }).y;
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    x = residual(
      x,
      attentionBlock(norm(x, context, `model.layers.${layer}.input_layernorm`), context, layer),
    );
    x = residual(
      x,
      mlpBlock(norm(x, context, `model.layers.${layer}.post_attention_layernorm`), context, layer),
    );
  }
  const hidden = norm(x, context, "model.norm");
  const lmHead = config.tie_word_embeddings
    ? weight
    : parameter(context, { name: "lm_head.weight", length: V * C });
  const logits = matmul.forward({ a: hidden, b: lmHead }, { M: N, N: V, K: C, transposeB: true }).c;
  return { hidden, logits, lmHead };
}

function attentionBlock(x: Float64Array, context: Context, layer: number): Float64Array {
  const { config, positions, sequenceOffsets, N } = context;
  const { hidden_size: C, num_attention_heads: H, num_key_value_heads: K, rope_theta: theta } = config;
  const D = config.head_dim ?? C / H;
  const prefix = `model.layers.${layer}.self_attn`;
  const q = linear(x, context, { name: `${prefix}.q_proj`, inputs: C, outputs: H * D });
  const k = linear(x, context, { name: `${prefix}.k_proj`, inputs: C, outputs: K * D });
  const v = linear(x, context, { name: `${prefix}.v_proj`, inputs: C, outputs: K * D });
  const rotatedQ = rope.forward({ x: q, positions }, { N, H, D, theta }).y;
  const rotatedK = rope.forward({ x: k, positions }, { N, H: K, D, theta }).y;
  const { out } = attention.forward({ q: rotatedQ, k: rotatedK, v, sequenceOffsets }, { N, H, K, D });
  return linear(out, context, { name: `${prefix}.o_proj`, inputs: H * D, outputs: C });
}

function mlpBlock(x: Float64Array, context: Context, layer: number): Float64Array {
  const { hidden_size: C, intermediate_size: F } = context.config;
  const prefix = `model.layers.${layer}.mlp`;
  const gate = linear(x, context, { name: `${prefix}.gate_proj`, inputs: C, outputs: F });
  const up = linear(x, context, { name: `${prefix}.up_proj`, inputs: C, outputs: F });
  const { y } = swiglu.forward({ gate, up }, { length: context.N * F });
  return linear(y, context, { name: `${prefix}.down_proj`, inputs: F, outputs: C });
}

function linear(
  x: Float64Array,
  context: Context,
  { name, inputs, outputs }: { name: string; inputs: number; outputs: number },
): Float64Array {
  const b = parameter(context, { name: `${name}.weight`, length: outputs * inputs });
  return matmul.forward({ a: x, b }, { M: context.N, N: outputs, K: inputs, transposeB: true }).c;
}

function norm(x: Float64Array, context: Context, name: string): Float64Array {
  const { hidden_size: C, rms_norm_eps: eps } = context.config;
  const w = parameter(context, { name: `${name}.weight`, length: C });
  return rmsNorm.forward({ x, w }, { N: context.N, C, eps }).y;
}

function residual(a: Float64Array, b: Float64Array): Float64Array {
  return add.forward({ a, b }, { length: a.length }).y;
}

function parameter(
  { parameters }: Context,
  { name, length }: { name: string; length: number },
): Float64Array {
  const values = parameters.get(name);
  if (values === undefined) {
    throw new RangeError(`Cannot run the model: expected a parameter ${name}, found none`);
  }
  requireLengths("the model", { [name]: [values, length] });
  return values;
}

function positionsOf(offsets: ArrayLike<number>, N: number): Int32Array {
  const positions = new Int32Array(N);
  for (let s = 0; s + 1 < offsets.length; s++) {
    for (let n = offsets[s]; n < offsets[s + 1]; n++) positions[n] = n - offsets[s];
  }
  return positions;
}
