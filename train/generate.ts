/**
 * Greedy decoding, whole sequences at a time.
 * @module
 */
import { argmax } from "../engine/ops/argmax.ts";
import { noGrad } from "../engine/tape.ts";
import { scope, type Tensor, toHost } from "../engine/tensor.ts";
import type { BatchSize, PackedSequences } from "./data/batch.ts";
import { uploadBatch } from "./models/batch_tensors.ts";
import { type Model, nextLogits } from "./models/model.ts";

/** How to decode. */
export interface GreedyOptions {
  /** Most tokens to add. */
  readonly maxNewTokens: number;
  /** Ids that end a sequence; kept in the result. */
  readonly stopIds?: readonly number[];
  /** Sequences that are decoded together. */
  readonly batchSize?: number;
}

/**
 * Continues each prompt with the most probable token, over and over.
 *
 * @param model the model
 * @param prompts token ids, at least one each
 * @param options when to stop
 * @returns the continuations alone, in order
 * @throws {RangeError} when a prompt is empty, or prompt and continuation pass the model's positions
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const prompts = [[1, 2], [3]];
 * assert.deepEqual(await greedyDecode(model, prompts, { maxNewTokens: 2 }), [[0, 0], [0, 0]]);
 * assert.deepEqual(await greedyDecode(model, prompts, { maxNewTokens: 2, stopIds: [0] }), [[0], [0]]);
 * ```
 */
export async function greedyDecode(
  model: Model,
  prompts: readonly (readonly number[])[],
  options: GreedyOptions,
): Promise<number[][]> {
  const batchSize = options.batchSize ?? 256;
  const results: number[][] = [];
  for (let first = 0; first < prompts.length; first += batchSize) {
    results.push(...await decodeBatch(model, prompts.slice(first, first + batchSize), options));
  }
  return results;
}

async function decodeBatch(
  model: Model,
  prompts: readonly (readonly number[])[],
  { maxNewTokens, stopIds = [] }: GreedyOptions,
): Promise<number[][]> {
  const continuations: number[][] = prompts.map(() => []);
  const total = prompts.reduce((tokens, prompt) => tokens + prompt.length, 0);
  const capacity = { tokens: total + prompts.length * maxNewTokens, labels: prompts.length };
  let open = [...prompts.keys()];
  for (let step = 0; step < maxNewTokens && open.length > 0; step++) {
    const batch = packPrompts(open.map((index) => [...prompts[index], ...continuations[index]]));
    const ids = await nextIds(model, batch, capacity);
    open.forEach((index, position) => continuations[index].push(ids[position]));
    open = open.filter((index) => !stopIds.includes(continuations[index].at(-1)!));
  }
  return continuations;
}

/** The most probable next id of each sequence. */
async function nextIds(
  model: Model,
  packed: PackedSequences,
  capacity: BatchSize,
): Promise<ArrayLike<number>> {
  const { gpu } = model;
  const single = model.parameters.shards(model.architecture.head).length === 1;
  const kept = scope(gpu, () =>
    noGrad(gpu, (): Tensor[] => {
      const logits = nextLogits(model, uploadBatch(model, packed, capacity));
      return single ? [argmax(logits[0])] : logits;
    }));
  try {
    const values = await Promise.all(kept.map(toHost));
    return single ? values[0] : argmaxOverShards(values, kept.map((tensor) => tensor.shape[1]));
  } finally {
    kept.forEach((tensor) => tensor.range.allocation.release());
  }
}

/** The first largest value of each row that lies in several shards side by side. */
function argmaxOverShards(shards: readonly Float32Array[], widths: readonly number[]): number[] {
  const rows = shards[0].length / widths[0];
  return Array.from({ length: rows }, (_, row) => {
    let best = -Infinity;
    let bestId = 0;
    let first = 0;
    shards.forEach((values, shard) => {
      for (let v = 0; v < widths[shard]; v++) {
        const value = values[row * widths[shard] + v];
        if (value > best) [best, bestId] = [value, first + v];
      }
      first += widths[shard];
    });
    return bestId;
  });
}

function packPrompts(sequences: readonly (readonly number[])[]): PackedSequences {
  const offsets = new Uint32Array(sequences.length + 1);
  sequences.forEach((ids, s) => {
    if (ids.length === 0) {
      throw new RangeError(`Cannot decode: expected at least one token in prompt ${s}, found none`);
    }
    offsets[s + 1] = offsets[s] + ids.length;
  });
  const inputIds = Uint32Array.from(sequences.flat());
  return {
    inputIds,
    positions: Uint32Array.from(sequences.flatMap((ids) => [...ids.keys()])),
    segmentOffsets: offsets,
    prefixSegments: Uint32Array.from(sequences.keys()),
    // The next id of each, whatever it will be.
    rows: offsets.subarray(1).map((end) => end - 1),
    labels: new Uint32Array(sequences.length),
    completionLengths: new Uint32Array(sequences.length).fill(1),
  };
}
