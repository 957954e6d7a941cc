/**
 * A decoder of any architecture as functions over named parameters, on packed sequences.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { attention } from "../../engine/ops/attention.ts";
import { checkpoint } from "../../engine/ops/checkpoint.ts";
import { gatherRows } from "../../engine/ops/gather_rows.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { sequenceLogps } from "../../engine/ops/sequence_logps.ts";
import { tokenLogps, tokenLogpsWithStatistics, type TokenStatistics } from "../../engine/ops/token_logps.ts";
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import { release, scope, type Tensor } from "../../engine/tensor.ts";
import type { Storage } from "../../shaders/storage.ts";
import type { Adapter } from "../adapters/lora.ts";
import { ConfigError } from "../errors.ts";
import type { Architecture } from "./architecture.ts";
import type { BatchTensors } from "./batch_tensors.ts";
import { architectureOf, type ModelConfig } from "./registry.ts";

/** A model on the GPU. Dispose it when done. */
export interface Model extends Disposable {
  /** Where it lives. */
  readonly gpu: Gpu;
  /** As in config.json. */
  readonly config: ModelConfig;
  /** Its extents, parameters and forward pass. */
  readonly architecture: Architecture;
  /** Under Hugging Face's names. */
  readonly parameters: Parameters;
  /** What training changes: all parameters, or those of the adapter alone. */
  readonly trained: Parameters;
  /** Beside its linear layers. */
  readonly adapter?: Adapter;
  /** Of activations and their gradients. */
  readonly dtype: "f32" | "f16";
  /** The longest sequence it can be given. */
  readonly positions: number;
  /** `[positions, D]`: see `ropeTable`; where the architecture rotates. */
  readonly rope?: Tensor;
  /** Whether a layer's inside is computed again in the backward instead of kept: less memory, more time. */
  readonly activationCheckpointing: boolean;
}

/** How to make a model. */
export interface ModelOptions {
  /** Whether gradients are wanted. */
  readonly trainable: boolean;
  /** The longest sequence it will see; at most `mostPositions` of the architecture, `positions` by default. */
  readonly positions?: number;
  /** Type of activations and their gradients, f32 by default; sums are f32 in any case. */
  readonly dtype?: "f32" | "f16";
  /** How matrices are stored: as `dtype` by default. bf16 is for frozen models. */
  readonly storage?: Storage;
  /** Whether backward computes layers again instead of keeping their insides; not by default. */
  readonly activationCheckpointing?: boolean;
}

/**
 * Makes a model with all parameters zero; load or initialise them next.
 *
 * @param gpu the device
 * @param config its shape
 * @param options whether it is trained, in which types, for which lengths
 * @returns the model; dispose it when done
 * @throws {RangeError} when `positions` is more than the model was made for
 * @throws {ConfigError} when f16 cannot rotate heads of this size
 * @throws {ShapeError} when 16-bit storage cannot hold rows of this config
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false });
 * assert.equal(model.parameters.count, 792);
 * assert.deepEqual(model.parameters.get("model.norm.weight").shape, [8]);
 * ```
 */
export function createModel(
  gpu: Gpu,
  config: ModelConfig,
  options: ModelOptions,
): Model {
  const architecture = architectureOf(config);
  const { dimensions } = architecture;
  const positions = options.positions ?? dimensions.positions;
  const most = dimensions.mostPositions ?? dimensions.positions;
  if (positions > most) {
    throw new RangeError(
      `Cannot make a model: expected at most ${most} positions (as config.json says), found ${positions}`,
    );
  }
  const dtype = options.dtype ?? "f32";
  if (dtype === "f16" && architecture.ropeTable && dimensions.headDim % 8 !== 0) {
    throw new ConfigError(
      `Cannot make a model in f16: expected a head_dim that divides by eight, because RoPE turns halves of heads in fours, ` +
        `found ${dimensions.headDim}`,
    );
  }
  const parameters = createParameters(gpu, architecture.shapes, {
    trainable: options.trainable,
    groups: architecture.groups,
    storage: options.storage ?? dtype,
  });
  const rope = architecture.ropeTable?.(gpu, positions);
  return {
    gpu,
    config,
    architecture,
    parameters,
    trained: parameters,
    dtype,
    positions,
    rope,
    activationCheckpointing: options.activationCheckpointing ?? false,
    [Symbol.dispose]() {
      parameters[Symbol.dispose]();
      if (rope) release(rope);
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
 * import { parseModelConfig } from "./config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const hidden = hiddenStates(model, uploadBatch(model, packed));
 * assert.deepEqual(hidden.shape, [4, 8]);
 * assert((await toHost(hidden)).every((value) => value === 0));
 * ```
 */
export function hiddenStates(model: Model, batch: BatchTensors): Tensor {
  const { gpu, architecture } = model;
  const { dimensions: { layers, headDim, heads, kvHeads } } = architecture;
  const { positions, tokens, positionIndex } = batch;
  const { shape: [count], capacity } = positions;
  // How long its loops are was checked on the host, for every batch.
  const bounds = { rows: { ...batch.bounds, shape: [count, 4], capacity }, longest: 1, readers: 1 };
  const attend = (qkv: Tensor) => attention(qkv, { headDim, heads, kvHeads, bounds });
  let h = architecture.embed(model, { tokens, positions, positionIndex });
  for (let layer = 0; layer < layers; layer++) {
    const body = (x: Tensor) => architecture.layer(model, x, { layer, positions, attend });
    h = model.activationCheckpointing ? checkpoint(h, body) : scope(gpu, () => body(h));
  }
  return h;
}

/** The output head's row shards. */
function head({ architecture, parameters }: Model): readonly Tensor[] {
  return parameters.shards(architecture.head);
}

/** Final norm on the rows that predict a label: y[r] = norm(h[rows[r]]). */
function finalRows(model: Model, batch: BatchTensors): Tensor {
  // Two sequences may share a token, and no more: what is summed for it is far below any limit.
  const picked = gatherRows(hiddenStates(model, batch), { ...batch.picked, most: 1 });
  return model.architecture.finalNorm(model, picked);
}

/**
 * Log-probability of every labelled token, sequence by sequence.
 *
 * @param model the model
 * @param batch packed sequences with R labels
 * @param options.observe is shown the hidden states that predict them, `[R, C]` after the final norm
 * @returns `[R]`, in nats
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { uploadBatch } from "./batch_tensors.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const batch = uploadBatch(model, packed);
 * const logps = await toHost(batchTokenLogps(model, batch));
 * assert.equal(logps.length, 2); // of ids 3 and 4
 * assert(logps.every((logp) => Math.abs(logp + Math.log(8)) < 1e-6));
 * ```
 */
export function batchTokenLogps(
  model: Model,
  batch: BatchTensors,
  options: { observe?: (hidden: Tensor) => void } = {},
): Tensor {
  const hidden = finalRows(model, batch);
  options.observe?.(hidden);
  return tokenLogps(hidden, head(model), batch.labels);
}

/**
 * Log-probability of every labelled token with statistics of the logits that it comes from, at little more than the cost
 * of the log-probs alone.
 *
 * @param model the model
 * @param batch packed sequences with R labels
 * @param options.observe as in {@link batchTokenLogps}
 * @returns `[R]`, in nats; and `[R, 4]`, without gradient
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { uploadBatch } from "./batch_tensors.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3], source: { file: "example" } }]);
 * const [entropy] = await toHost(batchTokenStatistics(model, uploadBatch(model, packed)).statistics);
 * assert(Math.abs(entropy - Math.log(8)) < 1e-6);
 * ```
 */
export function batchTokenStatistics(
  model: Model,
  batch: BatchTensors,
  options: { observe?: (hidden: Tensor) => void } = {},
): TokenStatistics {
  const hidden = finalRows(model, batch);
  options.observe?.(hidden);
  return tokenLogpsWithStatistics(hidden, head(model), batch.labels);
}

/**
 * Summed log-probability of each sequence's labelled tokens.
 *
 * @param model the model
 * @param batch S packed sequences, each with at least one label that counts
 * @param options.observe as in {@link batchTokenLogps}
 * @returns `[S]`, in nats
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { uploadBatch } from "./batch_tensors.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const batch = uploadBatch(model, packed);
 * const [logp] = await toHost(batchSequenceLogps(model, batch));
 * assert(Math.abs(logp + 2 * Math.log(8)) < 1e-5); // two labels
 * ```
 */
export function batchSequenceLogps(
  model: Model,
  batch: BatchTensors,
  options: { observe?: (hidden: Tensor) => void } = {},
): Tensor {
  return sequenceLogps(batchTokenLogps(model, batch, options), batch.sequences);
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
 * import { parseModelConfig } from "./config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3, 4], source: { file: "example" } }]);
 * const batch = uploadBatch(model, packed);
 * const [logits] = nextLogits(model, batch);
 * assert.deepEqual(logits.shape, [2, 8]);
 * assert((await toHost(logits)).every((logit) => logit === 0));
 * ```
 */
export function nextLogits(model: Model, batch: BatchTensors): Tensor[] {
  const final = finalRows(model, batch);
  return head(model).map((shard) => matmul(final, shard, { kind: "NT", type: "f32" }));
}
