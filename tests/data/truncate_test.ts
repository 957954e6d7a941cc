import assert from "node:assert/strict";
import { encodeCompletions, encodePairs, type EncodingTokenizer } from "../../train/data/encode.ts";
import { shortenPairs } from "../../train/data/shorten.ts";
import { truncateSides } from "../../train/data/truncate.ts";

const BOS = 1;
const EOS = 2;
const source = { file: "x.jsonl", line: 1 };
/** Letters from 10 on. */
const ids = (text: string) => Array.from(text, (letter) => letter.codePointAt(0)! - 87);
const tokenizer = (bos: boolean): EncodingTokenizer => ({
  encode: (text, options) => bos && options?.addSpecialTokens !== false ? [BOS, ...ids(text)] : ids(text),
  bosTokenId: bos ? BOS : undefined,
  eosTokenId: EOS,
});
const encode = (maxLength: number, options: { bos?: boolean; overlong?: "error" | "drop" } = {}) =>
  encodePairs([{ prompt: "abcde", chosen: "fgh", rejected: "i", source }], {
    ...{ tokenizer: tokenizer(options.bos ?? false), vocabSize: 64, maxLength },
    ...{ truncation: "keep_end" as const, overlong: options.overlong },
  });

Deno.test("keep_end takes the prompt's start from both sides alike, and neither completion loses a token", () => {
  const { pairs: [{ chosen, rejected }], counts } = encode(7);
  assert.deepEqual(chosen.promptIds, ids("cde"));
  assert.deepEqual(rejected.promptIds, ids("cde"));
  assert.deepEqual(chosen.completionIds, [...ids("fgh"), EOS]);
  assert.deepEqual(rejected.completionIds, [...ids("i"), EOS]);
  assert.equal(counts.truncatedPrompt, 2);
  assert.equal(counts.truncated, 0);
  assert.equal(encode(9).counts.truncatedPrompt, 0);
});

Deno.test("keep_end keeps BOS, once, in front of what is left", () => {
  const { pairs: [{ chosen }] } = encode(8, { bos: true });
  assert.deepEqual(chosen.promptIds, [BOS, ...ids("cde")]);
  assert.deepEqual(encode(5, { bos: true }).pairs[0].chosen.promptIds, [BOS]);
});

Deno.test("keep_end refuses or drops a completion that leaves no prompt token", () => {
  assert.deepEqual(encode(5).pairs[0].chosen.promptIds, ids("e"));
  assert.throws(() => encode(4), {
    name: "DataError",
    message:
      "Cannot encode x.jsonl:1: expected a completion shorter than the max length of 4 tokens, found 4 tokens; " +
      'with overlong "drop" (--overlong drop) such records are left out',
  });
  assert.throws(
    () => encode(4, { overlong: "drop" }),
    /found 1, of which 1 with a prompt that leaves no room/,
  );
});

Deno.test("keep_start keeps every token of the prompt and counts completions that lost their end", () => {
  const options = {
    tokenizer: tokenizer(false),
    vocabSize: 64,
    maxLength: 7,
    truncation: "keep_start" as const,
  };
  const { completions, counts } = encodeCompletions(
    [{ prompt: "abcde", completion: "fgh", source }, { prompt: "a", completion: "b", source }],
    options,
  );
  assert.deepEqual(completions[0].completionIds, ids("fg"));
  assert.deepEqual([counts.truncated, counts.truncatedPrompt], [1, 0]);
});

Deno.test("no length gives a text that is too long, or one without prompt or completion", () => {
  for (const truncation of ["keep_start", "keep_end"] as const) {
    for (let maxLength = 2; maxLength < 12; maxLength++) {
      for (const [p, c, d] of [[1, 1, 9], [5, 3, 1], [9, 2, 2], [4, 4, 5], [1, 8, 3]]) {
        const side = (length: number) => ({
          promptIds: Array(p).fill(7),
          completionIds: Array(length).fill(8),
        });
        const result = truncateSides([side(c), side(d)], { maxLength, truncation });
        if (result.kind === "overlong") continue;
        for (const { promptIds, completionIds } of result.sides) {
          assert(promptIds.length > 0 && completionIds.length > 0);
          assert(promptIds.length + completionIds.length <= maxLength);
        }
        assert.equal(result.sides[0].promptIds.length, result.sides[1].promptIds.length);
      }
    }
  }
});

Deno.test("pairs shortened afterwards are those encoded with that length", () => {
  const { pairs } = encode(9, { bos: true });
  for (const maxLength of [5, 6, 7, 8]) {
    const expected = encode(maxLength, { bos: true }).pairs;
    assert.deepEqual(shortenPairs(pairs, maxLength, { truncation: "keep_end", bosTokenId: BOS }), expected);
  }
});
