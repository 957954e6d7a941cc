import assert from "node:assert/strict";
import { hostBounds } from "../../engine/ops/sequence_bounds.ts";
import { createRandom, uniformInt } from "../../train/random.ts";

Deno.test("hostBounds: sequences, then a prompt with two continuations, then room", () => {
  const segments = {
    segmentOffsets: Uint32Array.of(0, 2, 4, 5, 7, 8),
    prefixSegments: Uint32Array.of(0, 1, 1, 1, 4),
  };
  assert.deepEqual(hostBounds(segments, { capacity: 9 }), {
    values: Uint32Array.from([
      ...[[0, 0, 0, 2], [0, 0, 0, 2]],
      ...[[2, 2, 2, 7], [2, 2, 2, 7]], // the prompt: read to the end of the last continuation
      [2, 2, 2, 5], // right behind it: one range with it
      ...[[5, 2, 4, 7], [5, 2, 4, 7]], // and later: two ranges
      [7, 7, 7, 8],
      [8, 8, 8, 9], // beyond the batch
    ].flat()),
    ...{ tokens: 8, longest: 4, readers: 5 },
  });
});

Deno.test("in any batch, queries and keys say the same about who sees whom, and starts ascend", () => {
  const random = createRandom(3);
  for (let turn = 0; turn < 50; turn++) {
    const lengths = Array.from({ length: 1 + uniformInt(random, 8) }, () => uniformInt(random, 5));
    const prefixes: number[] = [];
    lengths.forEach((_, g) => prefixes.push(g > 0 && uniformInt(random, 2) ? prefixes[g - 1] : g));
    const segmentOf = lengths.flatMap((length, g) => Array<number>(length).fill(g));
    let end = 0;
    const offsets = Uint32Array.of(0, ...lengths.map((length) => end += length));
    const { values, tokens, longest } = hostBounds({
      segmentOffsets: offsets,
      prefixSegments: Uint32Array.from(prefixes),
    });
    let most = 0;
    for (let i = 0; i < tokens; i++) {
      const [own, from, to] = values.subarray(4 * i);
      let seen = 0;
      for (let j = 0; j < tokens; j++) {
        const expected = j <= i && (segmentOf[j] === segmentOf[i] || segmentOf[j] === prefixes[segmentOf[i]]);
        assert.equal((j >= own && j <= i) || (j >= from && j < to), expected, `${i} sees ${j}`);
        assert.equal(i >= j && i < values[4 * j + 3], expected, `${j} is seen by ${i}`);
        seen += Number(expected);
      }
      most = Math.max(most, seen);
      if (i > 0) {
        assert.ok([0, 1, 2].every((k) => values[4 * i + k] >= values[4 * (i - 1) + k]), `token ${i}`);
      }
    }
    assert.equal(longest, most);
  }
});

Deno.test("hostBounds refuses offsets that do not ascend from 0, and prefixes that are not right before", () => {
  const refused = (offsets: number[], prefixes: number[] | undefined, message: string) =>
    assert.throws(
      () =>
        hostBounds({
          segmentOffsets: Uint32Array.from(offsets),
          prefixSegments: prefixes && Uint32Array.from(prefixes),
        }),
      new RangeError(`Cannot pack sequences: expected ${message}`),
    );
  refused([1, 3], undefined, "offsets ascending from 0, found 1 first");
  refused([0, 3, 2], undefined, "offsets ascending from 0, found 2 after 3");
  refused([0, 1, 2], [0], "prefixes of 2 segments, found 1");
  const continues = (g: number) => `segment ${g} to continue itself or the sequence before it`;
  refused([0, 1, 2], [1, 1], `${continues(0)}, found 1`);
  refused([0, 1, 2, 3], [0, 1, 0], `${continues(2)}, found 0`);
  refused([0, 1, 2, 3], [0, 0, 1], `${continues(2)}, found 1`);
});
