/**
 * Greedy decoding without a cache: the whole sequence again for every token. What decoding with one must equal, and is measured against.
 * @module
 */
import { argmax } from "../../engine/ops/argmax.ts";
import { noGrad } from "../../engine/tape.ts";
import { scope, type Tensor, toHost } from "../../engine/tensor.ts";
import type { BatchSize, PackedSequences } from "../data/batch.ts";
import { uploadBatch } from "../models/batch_tensors.ts";
import { type Model, nextLogits } from "../models/model.ts";

/**
 * Continues prompts with the most probable tokens.
 *
 * @param model The model.
 * @param prompts Token ids, at least one each.
 * @param options Most new tokens, and ids that end a sequence.
 */
export async function recomputeGreedy(
  model: Model,
  prompts: readonly (readonly number[])[],
  { maxNewTokens, stopIds = [] }: { maxNewTokens: number; stopIds?: readonly number[] },
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
