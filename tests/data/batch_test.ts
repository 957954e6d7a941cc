import assert from "node:assert/strict";
import { completionsSize, packPairs, packSequences, pairsSize } from "../../train/data/batch.ts";
import type { EncodedCompletion } from "../../train/data/encode.ts";
import { createRandom, uniformInt } from "../../train/random.ts";

const source = { file: "x.jsonl", line: 1 };
const completion = (promptIds: number[], completionIds: number[]): EncodedCompletion => ({
  promptIds,
  completionIds,
  source,
});

/** The second pair has one prompt for both sides. */
const PAIRS = [
  { chosen: completion([1, 5], [6, 2]), rejected: completion([1], [57, 2]), source },
  { chosen: completion([1, 8, 9], [3]), rejected: completion([1, 8, 9], [4, 4, 2]), source },
];

Deno.test("pairs lie one after the other, a common prompt once; as sequences, chosen come first", () => {
  const packed = packPairs(PAIRS);
  assert.deepEqual(packed, {
    inputIds: Uint32Array.of(1, 5, 6, 2, /**/ 1, 57, 2, /**/ 1, 8, 9, /**/ 3, /**/ 4, 4, 2),
    positions: Uint32Array.of(0, 1, 2, 3, /**/ 0, 1, 2, /**/ 0, 1, 2, /**/ 3, /**/ 3, 4, 5),
    segmentOffsets: Uint32Array.of(0, 4, 7, 10, 11, 14),
    prefixSegments: Uint32Array.of(0, 1, 2, 2, 2),
    rows: Uint32Array.of(1, 2, /**/ 9, /**/ 4, 5, /**/ 9, 11, 12),
    labels: Uint32Array.of(6, 2, /**/ 3, /**/ 57, 2, /**/ 4, 4, 2),
    completionLengths: Uint32Array.of(2, 1, 2, 3),
  });
  assert.deepEqual(pairsSize(PAIRS), { tokens: 14, labels: 8 });
});

Deno.test("without sharing every side has its own prompt", () => {
  const packed = packPairs(PAIRS, { sharePrompts: false });
  assert.deepEqual([...packed.inputIds], [1, 5, 6, 2, /**/ 1, 57, 2, /**/ 1, 8, 9, 3, /**/ 1, 8, 9, 4, 4, 2]);
  assert.deepEqual([...packed.prefixSegments], [0, 1, 2, 3]);
  assert.deepEqual([...packed.labels], [6, 2, /**/ 3, /**/ 57, 2, /**/ 4, 4, 2]);
  assert.deepEqual(pairsSize(PAIRS, { sharePrompts: false }), { tokens: 17, labels: 8 });
});

Deno.test("with prompt labels, each prompt's tokens but the first follow the sequences' labels", () => {
  for (const sharePrompts of [true, false]) {
    const plain = packPairs(PAIRS, { sharePrompts });
    const { rows, labels, promptLengths, ...rest } = packPairs(PAIRS, { sharePrompts, promptLabels: true });
    const { rows: plainRows, labels: plainLabels, ...plainRest } = plain;
    assert.deepEqual(rest, plainRest);
    assert.deepEqual([...labels], [...plainLabels, 5, /**/ 8, 9]);
    assert.deepEqual([...rows], [...plainRows, 0, /**/ 7, 8]);
    assert.deepEqual([...promptLengths!], [1, 2]);
    assert.equal(pairsSize(PAIRS, { sharePrompts, promptLabels: true }).labels, 11);
  }
});

Deno.test("sequences for fine-tuning keep their order", () => {
  const packed = packSequences([completion([7], [0]), completion([1, 2], [3, 4])]);
  assert.deepEqual([...packed.inputIds], [7, 0, 1, 2, 3, 4]);
  assert.deepEqual([...packed.rows], [0, 3, 4]);
  assert.deepEqual([...packed.labels], [0, 3, 4]);
  assert.deepEqual([...packed.segmentOffsets], [0, 2, 6]);
  assert.deepEqual([...packed.prefixSegments], [0, 1]);
});

Deno.test("in any batch, labels are the completions' tokens, each predicted from the token before it", () => {
  const random = createRandom(9);
  const ids = (length: number) => Array.from({ length }, () => uniformInt(random, 1000));
  for (let turn = 0; turn < 50; turn++) {
    const pairs = Array.from({ length: 1 + uniformInt(random, 4) }, () => {
      const prompt = ids(1 + uniformInt(random, 5));
      const side = (promptIds: number[]) => completion(promptIds, ids(1 + uniformInt(random, 9)));
      return { chosen: side(prompt), rejected: side(uniformInt(random, 2) ? prompt : ids(3)), source };
    });
    const sequences = [...pairs.map(({ chosen }) => chosen), ...pairs.map(({ rejected }) => rejected)];
    for (const sharePrompts of [true, false]) {
      const packed = packPairs(pairs, { sharePrompts });
      const { tokens, labels } = pairsSize(pairs, { sharePrompts });
      assert.equal(packed.inputIds.length, tokens);
      assert.equal(packed.segmentOffsets.at(-1), tokens);
      assert.equal(packed.rows.length, labels);
      assert.deepEqual([...packed.labels], sequences.flatMap(({ completionIds }) => completionIds));
      const lengths = sequences.map(({ completionIds }) => completionIds.length);
      assert.deepEqual([...packed.completionLengths], lengths);
      let r = 0;
      for (const { promptIds, completionIds } of sequences) {
        const whole = [...promptIds, ...completionIds];
        completionIds.forEach((_, i) => {
          const position = promptIds.length + i - 1;
          assert.equal(packed.positions[packed.rows[r]], position);
          assert.equal(packed.inputIds[packed.rows[r]], whole[position]);
          r++;
        });
      }
    }
    assert.deepEqual(completionsSize(sequences), pairsSize(pairs, { sharePrompts: false }));
  }
});

Deno.test("empty batches and sequences that cannot be scored are refused", () => {
  assert.throws(() => packPairs([]), { message: "Cannot pack a batch: expected sequences, found none" });
  assert.throws(() => packSequences([completion([1], [2]), completion([], [2])]), {
    name: "RangeError",
    message: "Cannot pack a batch: expected prompt and completion tokens in sequence 1, found 0 and 1",
  });
  assert.throws(() => packSequences([completion([1], [])]), /sequence 0, found 1 and 0/);
  const empty = { chosen: completion([], [1]), rejected: completion([], [2]), source };
  assert.throws(() => packPairs([empty]), /sequence 0, found 0 and 1/);
});

Deno.test("tokens that are not learnt are given: no label is theirs, and lengths count labels", () => {
  const source = { file: "x" };
  const masked = {
    promptIds: [1, 2],
    completionIds: [3, 4, 5, 6],
    labelMask: [true, false, false, true],
    source,
  };
  const plain = { promptIds: [7], completionIds: [8], source };
  const packed = packSequences([masked, plain]);
  assert.deepEqual([...packed.inputIds], [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual([...packed.labels], [3, 6, 8]);
  assert.deepEqual([...packed.rows], [1, 4, 6]);
  assert.deepEqual([...packed.completionLengths], [2, 1]);
  assert.deepEqual(completionsSize([masked, plain]), { tokens: 8, labels: 3 });
});
