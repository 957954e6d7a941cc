/**
 * The Llama architecture (arXiv 2302.13971) as one function over named parameters, on packed sequences.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { attention } from "../../engine/ops/attention.ts";
import { embedding } from "../../engine/ops/embedding.ts";
import { gatherRows, rowIndex } from "../../engine/ops/gather_rows.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { rmsNorm } from "../../engine/ops/rms_norm.ts";
import { rope, ropeTable } from "../../engine/ops/rope.ts";
import { type SequenceBounds, sequenceBounds } from "../../engine/ops/sequence_bounds.ts";
import { sequenceLogps } from "../../engine/ops/sequence_logps.ts";
import { swigluLinear } from "../../engine/ops/swiglu_linear.ts";
import { tokenLogps } from "../../engine/ops/token_logps.ts";
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import type { Storage } from "../../shaders/storage.ts";
import { release, type Tensor, upload } from "../../engine/tensor.ts";
import type { PackedSequences } from "../data/batch.ts";
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

/** Rows that a run's largest batch has, so that every step asks for the same buffers. */
export interface BatchCapacity {
  /** Tokens of the largest batch. */
  readonly tokens: number;
  /** Labelled tokens of the batch that has most. */
  readonly labels: number;
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
 * @param capacity tokens to reserve for
 * @returns `[N, C]`
 * @throws {RangeError} when a sequence is longer than the model's positions
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { parseLlamaConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const batch = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const hidden = llamaHidden(model, batch, batch.inputIds.length);
 * assert.deepEqual(hidden.shape, [4, 8]);
 * assert((await toHost(hidden)).every((value) => value === 0));
 * ```
 */
export function llamaHidden(model: LlamaModel, batch: PackedSequences, capacity: number): Tensor {
  const { gpu, parameters } = model;
  const bounds = sequenceBounds(gpu, batch, { capacity });
  if (bounds.longest > model.rope.shape[0]) {
    throw new RangeError(
      `Cannot run the model: expected at most ${
        model.rope.shape[0]
      } tokens a sequence, found ${bounds.longest}`,
    );
  }
  const positions = upload(gpu, batch.positions, { capacity });
  const { dtype: type } = model;
  let h = embedding(parameters.shards("model.embed_tokens.weight"), batch.inputIds, { capacity, type });
  for (let layer = 0; layer < model.config.num_hidden_layers; layer++) {
    h = llamaLayer(model, h, { layer, positions, bounds });
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

/** Final norm on the rows that matter: y[r] = norm(h[rows[r]]). */
function finalRows(model: LlamaModel, h: Tensor, options: { rows: Uint32Array; capacity: number }): Tensor {
  const capacity = { tokens: h.capacity, rows: options.capacity };
  const picked = gatherRows(h, rowIndex(model.gpu, options.rows, { tokens: h.shape[0], capacity }));
  return rmsNorm(picked, model.parameters.get("model.norm.weight"), { eps: model.config.rms_norm_eps });
}

/**
 * Log-probability of every labelled token, sequence by sequence.
 *
 * @param model the model
 * @param batch packed sequences with R labels that count
 * @param capacity the run's largest batch; this batch by default
 * @returns `[R]`, in nats
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { parseLlamaConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const batch = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const logps = await toHost(llamaTokenLogps(model, batch));
 * assert.equal(logps.length, 2); // of ids 3 and 4
 * assert(logps.every((logp) => Math.abs(logp + Math.log(8)) < 1e-6));
 * ```
 */
export function llamaTokenLogps(model: LlamaModel, batch: PackedSequences, capacity?: BatchCapacity): Tensor {
  const { rows, labels } = batch;
  const h = llamaHidden(model, batch, capacity?.tokens ?? batch.inputIds.length);
  const final = finalRows(model, h, { rows, capacity: capacity?.labels ?? rows.length });
  return tokenLogps(final, head(model), labels);
}

/**
 * Summed log-probability of each sequence's labelled tokens.
 *
 * @param model the model
 * @param batch S packed sequences, each with at least one label that counts
 * @param capacity the run's largest batch; this batch by default
 * @returns `[S]`, in nats
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { parseLlamaConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const batch = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const [logp] = await toHost(llamaSequenceLogps(model, batch));
 * assert(Math.abs(logp + 2 * Math.log(8)) < 1e-5); // two labels
 * ```
 */
export function llamaSequenceLogps(
  model: LlamaModel,
  batch: PackedSequences,
  capacity?: BatchCapacity,
): Tensor {
  const offsets = new Uint32Array(batch.completionLengths.length + 1);
  batch.completionLengths.forEach((length, s) => offsets[s + 1] = offsets[s] + length);
  return sequenceLogps(llamaTokenLogps(model, batch, capacity), offsets);
}

/**
 * Logits of the token that follows each segment: for decoding.
 *
 * @param model the model
 * @param batch S packed sequences, each a segment
 * @param capacity the largest batch that will come; this batch by default
 * @returns `[S, rows of the shard]` for each row shard of the vocabulary, in order
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { parseLlamaConfig } from "./llama_config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const batch = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const [logits] = llamaNextLogits(model, batch);
 * assert.deepEqual(logits.shape, [1, 8]);
 * assert((await toHost(logits)).every((logit) => logit === 0));
 * ```
 */
export function llamaNextLogits(
  model: LlamaModel,
  batch: PackedSequences,
  capacity?: BatchCapacity,
): Tensor[] {
  const rows = batch.segmentOffsets.subarray(1).map((end) => end - 1);
  const h = llamaHidden(model, batch, capacity?.tokens ?? batch.inputIds.length);
  const final = finalRows(model, h, { rows, capacity: capacity?.labels ?? rows.length });
  return head(model).map((shard) => matmul(final, shard, { kind: "NT", type: "f32" }));
}
