/**
 * The Llama architecture (arXiv 2302.13971) as one function over named parameters, on packed sequences.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { attention } from "../../engine/ops/attention.ts";
import { embedding } from "../../engine/ops/embedding.ts";
import { gatherRows } from "../../engine/ops/gather_rows.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { rmsNorm } from "../../engine/ops/rms_norm.ts";
import { rope, ropeTable } from "../../engine/ops/rope.ts";
import type { SequenceBounds } from "../../engine/ops/sequence_bounds.ts";
import { sequenceLogps } from "../../engine/ops/sequence_logps.ts";
import { swigluLinear } from "../../engine/ops/swiglu_linear.ts";
import { tokenLogps } from "../../engine/ops/token_logps.ts";
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import type { Storage } from "../../shaders/storage.ts";
import { release, type Tensor } from "../../engine/tensor.ts";
import type { BatchTensors } from "./batch_tensors.ts";
import type { LlamaConfig } from "./llama_config.ts";
import { llamaParameterGroups, llamaParameterShapes } from "./llama_parameters.ts";

/** A model on the GPU. Dispose it when done. */
export interface LlamaModel extends Disposable {
  /** Where it lives. */
  readonly gpu: Gpu;
  /** Its shape. */
  readonly config: LlamaConfig;
  /** Under Hugging Face's names. */
  readonly parameters: Parameters;
  /** Of activations and their gradients. */
  readonly dtype: "f32" | "f16";
  /** `[positions, D]`: see `ropeTable`. */
  readonly rope: Tensor;
}

/** How to make a model. */
export interface LlamaOptions {
  /** Whether gradients are wanted. */
  readonly trainable: boolean;
  /** The longest sequence it will see; at most the config's max_position_embeddings, and that by default. */
  readonly positions?: number;
  /** Type of activations and their gradients, f32 by default; sums are f32 in any case. */
  readonly dtype?: "f32" | "f16";
  /** How matrices are stored: as `dtype` by default. bf16 is for frozen models. */
  readonly storage?: Storage;
}

/**
 * Makes a model with all parameters zero; load or initialise them next.
 *
 * @param gpu the device
 * @param config its shape
 * @param options whether it is trained, in which types, for which lengths
 * @returns the model; dispose it when done
 * @throws {RangeError} when `positions` is more than the model was made for
 * @throws {ShapeError} when 16-bit storage cannot hold rows of this config
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { parseLlamaConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false });
 * assert.equal(model.parameters.count, 792);
 * assert.deepEqual(model.parameters.get("model.norm.weight").shape, [8]);
 * ```
 */
export function createLlama(
  gpu: Gpu,
  config: LlamaConfig,
  options: LlamaOptions,
): LlamaModel {
  const positions = options.positions ?? config.max_position_embeddings;
  if (positions > config.max_position_embeddings) {
    throw new RangeError(
      `Cannot make a model: expected at most ${config.max_position_embeddings} positions ` +
        `(max_position_embeddings), found ${positions}`,
    );
  }
  const dtype = options.dtype ?? "f32";
  const parameters = createParameters(gpu, llamaParameterShapes(config), {
    trainable: options.trainable,
    groups: llamaParameterGroups(config),
    storage: options.storage ?? dtype,
  });
  const table = ropeTable(gpu, { positions, headDim: config.head_dim, theta: config.rope_theta });
  return {
    gpu,
    config,
    parameters,
    dtype,
    rope: table,
    [Symbol.dispose]() {
      parameters[Symbol.dispose]();
      release(table);
    },
  };
}

/**
 * The last layer's hidden states, before the final norm.
 *
 * @param model the model
 * @param batch packed sequences of N tokens
 * @returns `[N, C]`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { uploadBatch } from "./batch_tensors.ts";
 * import { parseLlamaConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const hidden = llamaHidden(model, uploadBatch(model, packed));
 * assert.deepEqual(hidden.shape, [4, 8]);
 * assert((await toHost(hidden)).every((value) => value === 0));
 * ```
 */
export function llamaHidden(model: LlamaModel, batch: BatchTensors): Tensor {
  const { parameters } = model;
  const { shape: [tokens], capacity } = batch.positions;
  // How long its loops are was checked on the host, for every batch.
  const bounds = { rows: { ...batch.bounds, shape: [tokens, 4], capacity }, longest: 1, readers: 1 };
  let h = embedding(parameters.shards("model.embed_tokens.weight"), batch.tokens, {
    type: model.dtype,
  });
  for (let layer = 0; layer < model.config.num_hidden_layers; layer++) {
    h = llamaLayer(model, h, { layer, positions: batch.positions, bounds });
  }
  return h;
}

/**
 * h + o(attention(rope(q), rope(k), v)), then h + down(silu(gate) up), each on a normalised h. What shares an input is
 * one product, what follows a product element by element is part of it, and queries and keys rotate where they lie.
 */
function llamaLayer(
  model: LlamaModel,
  h: Tensor,
  { layer, positions, bounds }: { layer: number; positions: Tensor; bounds: SequenceBounds },
): Tensor {
  const { parameters, config } = model;
  const named = (name: string) => `model.layers.${layer}.${name}.weight`;
  const weight = (name: string) => parameters.get(named(name));
  const joined = (...names: string[]) => parameters.joined(names.map(named));
  const { head_dim: headDim, num_attention_heads: heads, num_key_value_heads: kvHeads } = config;
  const eps = config.rms_norm_eps;

  const x = rmsNorm(h, weight("input_layernorm"), { eps });
  const projections = joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj");
  const packed = matmul(x, projections, { kind: "NT" });
  const qkv = rope(packed, positions, model.rope, { heads: heads + kvHeads });
  const attended = attention(qkv, { headDim, heads, kvHeads, bounds });
  h = matmul(attended, weight("self_attn.o_proj"), { kind: "NT", residual: h });

  const y = rmsNorm(h, weight("post_attention_layernorm"), { eps });
  const gated = swigluLinear(y, joined("mlp.gate_proj", "mlp.up_proj"));
  return matmul(gated, weight("mlp.down_proj"), { kind: "NT", residual: h });
}

/** The output head's row shards: the embedding itself where the two are tied. */
function head({ config, parameters }: LlamaModel): readonly Tensor[] {
  return parameters.shards(config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
}

/** Final norm on the rows that predict a label: y[r] = norm(h[rows[r]]). */
function finalRows(model: LlamaModel, batch: BatchTensors): Tensor {
  // Two sequences may share a token, and no more: what is summed for it is far below any limit.
  const picked = gatherRows(llamaHidden(model, batch), { ...batch.picked, most: 1 });
  return rmsNorm(picked, model.parameters.get("model.norm.weight"), { eps: model.config.rms_norm_eps });
}

/**
 * Log-probability of every labelled token, sequence by sequence.
 *
 * @param model the model
 * @param batch packed sequences with R labels
 * @returns `[R]`, in nats
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { uploadBatch } from "./batch_tensors.ts";
 * import { parseLlamaConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const batch = uploadBatch(model, packed);
 * const logps = await toHost(llamaTokenLogps(model, batch));
 * assert.equal(logps.length, 2); // of ids 3 and 4
 * assert(logps.every((logp) => Math.abs(logp + Math.log(8)) < 1e-6));
 * ```
 */
export function llamaTokenLogps(model: LlamaModel, batch: BatchTensors): Tensor {
  return tokenLogps(finalRows(model, batch), head(model), batch.labels);
}

/**
 * Summed log-probability of each sequence's labelled tokens.
 *
 * @param model the model
 * @param batch S packed sequences, each with at least one label that counts
 * @returns `[S]`, in nats
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { uploadBatch } from "./batch_tensors.ts";
 * import { parseLlamaConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const batch = uploadBatch(model, packed);
 * const [logp] = await toHost(llamaSequenceLogps(model, batch));
 * assert(Math.abs(logp + 2 * Math.log(8)) < 1e-5); // two labels
 * ```
 */
export function llamaSequenceLogps(model: LlamaModel, batch: BatchTensors): Tensor {
  return sequenceLogps(llamaTokenLogps(model, batch), batch.sequences);
}

/**
 * Logits of the tokens that are to be predicted, in order: for decoding.
 *
 * @param model the model
 * @param batch packed sequences with R labels; what the labels are does not matter
 * @returns `[R, rows of the shard]` for each row shard of the vocabulary, in order
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { uploadBatch } from "./batch_tensors.ts";
 * import { parseLlamaConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const batch = uploadBatch(model, packed);
 * const [logits] = llamaNextLogits(model, batch);
 * assert.deepEqual(logits.shape, [2, 8]);
 * assert((await toHost(logits)).every((logit) => logit === 0));
 * ```
 */
export function llamaNextLogits(model: LlamaModel, batch: BatchTensors): Tensor[] {
  const final = finalRows(model, batch);
  return head(model).map((shard) => matmul(final, shard, { kind: "NT", type: "f32" }));
}
