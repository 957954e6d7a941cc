import assert from "node:assert/strict";
import {
  completionTokenCount,
  IGNORED_LABEL,
  packPairs,
  packSequences,
  tokenCount,
} from "../../train/data/batch.ts";
import type { EncodedCompletion } from "../../train/data/encode.ts";
import { createRandom, uniformInt } from "../../train/random.ts";

const source = { file: "x.jsonl", line: 1 };
const completion = (promptIds: number[], completionIds: number[]): EncodedCompletion => ({
  promptIds,
  completionIds,
  source,
});
const X = IGNORED_LABEL;

Deno.test("two pairs are packed as chosen, chosen, rejected, rejected", () => {
  const packed = packPairs([
    { chosen: completion([1, 5], [6, 2]), rejected: completion([1], [57, 2]), source },
    { chosen: completion([1, 8, 9], [3]), rejected: completion([1, 8, 9], [4, 4, 2]), source },
  ]);
  assert.deepEqual(packed, {
    inputIds: Uint32Array.of(1, 5, 6, 2, /**/ 1, 8, 9, 3, /**/ 1, 57, 2, /**/ 1, 8, 9, 4, 4, 2),
    labels: Int32Array.of(X, 6, 2, X, /**/ X, X, 3, X, /**/ 57, 2, X, /**/ X, X, 4, 4, 2, X),
    positions: Uint32Array.of(0, 1, 2, 3, /**/ 0, 1, 2, 3, /**/ 0, 1, 2, /**/ 0, 1, 2, 3, 4, 5),
    sequenceOffsets: Uint32Array.of(0, 4, 8, 11, 17),
    completionLengths: Uint32Array.of(2, 1, 2, 3),
  });
  assert.equal(tokenCount(packed), 17);
  assert.equal(completionTokenCount(packed), 8);
});

Deno.test("sequences for fine-tuning keep their order", () => {
  const packed = packSequences([completion([7], [0]), completion([1, 2], [3, 4])]);
  assert.deepEqual([...packed.inputIds], [7, 0, 1, 2, 3, 4]);
  assert.deepEqual([...packed.labels], [0, X, X, 3, 4, X]);
  assert.deepEqual([...packed.sequenceOffsets], [0, 2, 6]);
});

Deno.test("in any batch, labels are the next tokens of completions and nothing else", () => {
  const random = createRandom(9);
  const ids = (length: number) => Array.from({ length }, () => uniformInt(random, 1000));
  for (let i = 0; i < 50; i++) {
    const completions = Array.from(
      { length: 1 + uniformInt(random, 6) },
      () => completion(ids(1 + uniformInt(random, 9)), ids(1 + uniformInt(random, 9))),
    );
    const packed = packSequences(completions);
    assert.equal(packed.sequenceOffsets.length, completions.length + 1);
    assert.equal(packed.sequenceOffsets[completions.length], packed.inputIds.length);
    for (const [s, { promptIds, completionIds }] of completions.entries()) {
      const [start, end] = [packed.sequenceOffsets[s], packed.sequenceOffsets[s + 1]];
      assert.deepEqual([...packed.inputIds.slice(start, end)], [...promptIds, ...completionIds]);
      const labels = [...packed.labels.slice(start, end)];
      assert.deepEqual(labels.filter((label) => label !== X), completionIds);
      assert.equal(labels.at(-1), X);
      assert.deepEqual(labels.findIndex((label) => label !== X), promptIds.length - 1);
      for (let t = start; t < end; t++) {
        assert.equal(packed.positions[t], t - start);
        if (packed.labels[t] !== X) assert.equal(packed.labels[t], packed.inputIds[t + 1]);
      }
    }
  }
});

Deno.test("empty batches and sequences that cannot be scored are refused", () => {
  assert.throws(() => packPairs([]), { message: "Cannot pack a batch: expected sequences, found none" });
  assert.throws(() => packSequences([completion([1], [2]), completion([], [2])]), {
    name: "RangeError",
    message: "Cannot pack a batch: expected prompt and completion tokens in sequence 1, found 0 and 1",
  });
  assert.throws(() => packSequences([completion([1], [])]), /sequence 0, found 1 and 0/);
});
