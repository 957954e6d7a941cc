/**
 * Packed batches on the GPU: everything that a model's forward reads besides its parameters.
 * @module
 */
import type { DeviceTensors } from "../../engine/inputs.ts";
import { uploadAll } from "../../engine/inputs.ts";
import { refuseLongLoops } from "../../engine/ops/attention.ts";
import { type HostTokenIndex, hostTokenIndex } from "../../engine/ops/embedding.ts";
import { hostRowIndex } from "../../engine/ops/gather_rows.ts";
import { hostBounds } from "../../engine/ops/sequence_bounds.ts";
import { type HostSequenceIndex, hostSequenceIndex } from "../../engine/ops/sequence_logps.ts";
import { hostLabels } from "../../engine/ops/token_logps.ts";
import { upload } from "../../engine/tensor.ts";
import type { BatchSize, PackedSequences } from "../data/batch.ts";
import type { Model } from "./model.ts";

/** A batch of N tokens and R labels in S sequences, on the host. */
export interface HostBatch {
  /** The ids, and where each occurs. */
  readonly tokens: HostTokenIndex;
  /** `[N]` within the sequence. */
  readonly positions: Uint32Array;
  /** Where each position occurs, for architectures that learn them. */
  readonly positionIndex?: HostTokenIndex;
  /** `[4 N]`: see `HostBounds.values`. */
  readonly bounds: Uint32Array;
  /** The tokens that predict a label: see `HostRowIndex`. */
  readonly picked: {
    readonly rows: Uint32Array;
    readonly offsets: Uint32Array;
    readonly places: Uint32Array;
  };
  /** `[R]` */
  readonly labels: Uint32Array;
  /** The labels of each sequence. */
  readonly sequences: HostSequenceIndex;
  /** The labels of each prompt, where those are labels. */
  readonly prompts?: HostSequenceIndex;
}

/** A batch on the GPU. */
export type BatchTensors = DeviceTensors<HostBatch>;

/**
 * A packed batch as arrays whose lengths depend on its size and number of sequences alone. Where the size is larger than
 * the batch, the rest is padding that changes nothing: tokens that see themselves only and whose gradient is zero, labels
 * that belong to no sequence.
 *
 * @param model that it is for
 * @param packed N tokens, R labels
 * @param size at least N and R; these by default
 * @returns the arrays
 * @throws {RangeError} when the model or the adapter cannot do such a batch
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { createModel } from "./model.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false });
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3], source: { file: "example" } }]);
 * const batch = hostBatch(model, packed, { tokens: 4, labels: 2 });
 * assert.deepEqual([...batch.tokens.ids], [1, 2, 3, 0]);
 * assert.deepEqual([...batch.labels], [3, 0]);
 * assert.deepEqual([...batch.sequences.segments], [0, 0xffffffff]);
 * ```
 */
export function hostBatch(
  model: Pick<Model, "gpu" | "architecture" | "positions">,
  packed: PackedSequences,
  size: BatchSize = { tokens: packed.inputIds.length, labels: packed.rows.length },
): HostBatch {
  const { gpu, architecture: { dimensions } } = model;
  const { tokens, labels } = size;
  const bounds = hostBounds(packed, { capacity: tokens });
  if (bounds.longest > model.positions) {
    throw new RangeError(
      `Cannot run the model: expected at most ${model.positions} tokens a sequence, found ${bounds.longest}`,
    );
  }
  refuseLongLoops(gpu, { ...dimensions, bounds });
  const positions = new Uint32Array(tokens);
  positions.set(packed.positions);
  const capacity = { tokens, rows: labels };
  const { rows, offsets, places } = hostRowIndex(packed.rows, { tokens: packed.inputIds.length, capacity });
  return {
    tokens: hostTokenIndex(gpu, packed.inputIds, { rows: dimensions.vocab, length: tokens }),
    positions,
    ...positionIndex(model, packed, tokens),
    bounds: bounds.values,
    picked: { rows, offsets, places },
    labels: hostLabels(packed.labels, { vocab: dimensions.vocab, length: labels }),
    sequences: hostSequenceIndex(packed.completionLengths, { length: labels }),
    ...promptIndex(packed, labels),
  };
}

/** Labels of prompts follow those of the sequences. */
function promptIndex(packed: PackedSequences, length: number): Pick<HostBatch, "prompts"> {
  const { promptLengths, completionLengths } = packed;
  if (!promptLengths) return {};
  const first = completionLengths.reduce((total, completion) => total + completion, 0);
  return { prompts: hostSequenceIndex(promptLengths, { length, first }) };
}

/** Of a learned position the gradient is summed as a token's. */
function positionIndex(
  { gpu, architecture: { positionEmbedding, shapes } }: Pick<Model, "gpu" | "architecture">,
  packed: PackedSequences,
  length: number,
): Pick<HostBatch, "positionIndex"> {
  if (positionEmbedding === undefined) return {};
  const [rows] = shapes.get(positionEmbedding)!;
  return { positionIndex: hostTokenIndex(gpu, packed.positions, { rows, length }) };
}

/**
 * A packed batch on the GPU, for the next submit only.
 *
 * @param model that it is for
 * @param packed N tokens, R labels
 * @param capacity the largest batch that will come, for which buffers are reserved; this one by default
 * @returns its tensors
 * @throws {RangeError} when the model or the adapter cannot do such a batch
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { packSequences } from "../data/batch.ts";
 * import { createModel } from "./model.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false });
 * const packed = packSequences([{ promptIds: [1, 2], completionIds: [3], source: { file: "example" } }]);
 * const batch = uploadBatch(model, packed, { tokens: 64, labels: 16 });
 * assert.deepEqual([batch.tokens.ids.shape, batch.tokens.ids.capacity], [[3], 64]);
 * ```
 */
export function uploadBatch(
  model: Pick<Model, "gpu" | "architecture" | "positions">,
  packed: PackedSequences,
  capacity?: BatchSize,
): BatchTensors {
  const { gpu } = model;
  const host = hostBatch(model, packed);
  const [ofTokens, ofLabels] = [{ capacity: capacity?.tokens }, { capacity: capacity?.labels }];
  return {
    tokens: uploadAll(gpu, host.tokens, ofTokens),
    positions: upload(gpu, host.positions, ofTokens),
    ...(host.positionIndex ? { positionIndex: uploadAll(gpu, host.positionIndex, ofTokens) } : {}),
    bounds: upload(gpu, host.bounds, { capacity: capacity && 4 * capacity.tokens }),
    picked: uploadAll(gpu, host.picked, ofLabels),
    labels: upload(gpu, host.labels, ofLabels),
    sequences: uploadAll(gpu, host.sequences, ofLabels),
    ...(host.prompts ? { prompts: uploadAll(gpu, host.prompts, ofLabels) } : {}),
  };
}
