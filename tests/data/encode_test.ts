import assert from "node:assert/strict";
import { DataError } from "../../train/data/errors.ts";
import {
  encodeCompletions,
  type EncodeOptions,
  encodePairs,
  encodePrompt,
  type EncodingTokenizer,
} from "../../train/data/encode.ts";
import type { PreferenceRecord } from "../../train/data/records.ts";
import { createRandom, uniformInt } from "../../train/random.ts";

const BOS = 1;
const EOS = 2;

/** Greedy longest match over a list of tokens; ids start at 3. `<s>` and `</s>` in the text are BOS and EOS. */
function fakeTokenizer(
  tokens: string[],
  special: Partial<EncodingTokenizer> = {},
  addsBos = false,
): EncodingTokenizer {
  const ids = new Map([
    ["<s>", BOS],
    ["</s>", EOS],
    ...tokens.map((token, i): [string, number] => [token, i + 3]),
  ]);
  const ordered = [...ids.keys()].toSorted((a, b) => b.length - a.length);
  const encode = (text: string) => {
    const found: number[] = [];
    for (let rest = text; rest !== "";) {
      const token = ordered.find((token) => rest.startsWith(token));
      if (token === undefined) throw new RangeError(`no token for ${JSON.stringify(rest[0])}`);
      found.push(ids.get(token)!);
      rest = rest.slice(token.length);
    }
    return found;
  };
  return {
    encode: (text, options) =>
      options?.addSpecialTokens === false || !addsBos ? encode(text) : [BOS, ...encode(text)],
    ...special,
  };
}

const [A, B, C, D, BC] = [3, 4, 5, 6, 7];
const CHARACTERS = fakeTokenizer(["a", "b", "c", "d"]);
const MERGING = fakeTokenizer(["a", "b", "c", "d", "bc"]);
const source = { file: "x.jsonl", line: 7 };
const record = (prompt: string, completions: [chosen: string, rejected: string]): PreferenceRecord => ({
  prompt,
  chosen: completions[0],
  rejected: completions[1],
  source,
});
const options = (tokenizer: EncodingTokenizer, rest: Partial<EncodeOptions> = {}): EncodeOptions => ({
  tokenizer,
  vocabSize: 8,
  maxLength: 8,
  ...rest,
});
const encodeOne = (text: [prompt: string, completion: string], encodeOptions: EncodeOptions) => {
  const { completions, counts } = encodeCompletions(
    [{ prompt: text[0], completion: text[1], source }],
    encodeOptions,
  );
  return { ...completions[0], counts };
};

Deno.test("a character tokenizer cuts exactly between prompt and completion", () => {
  const { pairs, counts } = encodePairs([record("ab", ["c", "da"])], options(CHARACTERS));
  assert.deepEqual(pairs, [{
    chosen: { promptIds: [A, B], completionIds: [C], source },
    rejected: { promptIds: [A, B], completionIds: [D, A], source },
    source,
  }]);
  assert.deepEqual(counts, {
    repairedBoundary: 0,
    truncated: 0,
    truncatedPrompt: 0,
    droppedOverlong: 0,
    droppedEmpty: 0,
    droppedIdentical: 0,
  });
});

Deno.test("a token merged across the boundary belongs to the completion, on its side of the pair only", () => {
  const { pairs, counts } = encodePairs([record("ab", ["cd", "d"])], options(MERGING));
  assert.deepEqual(pairs[0].chosen, { promptIds: [A], completionIds: [BC, D], source });
  assert.deepEqual(pairs[0].rejected, { promptIds: [A, B], completionIds: [D], source });
  assert.equal(counts.repairedBoundary, 1);
});

Deno.test("prompt and completion together are always the whole text's tokens", () => {
  const random = createRandom(2);
  const text = (length: number) => Array.from({ length }, () => "abcd"[uniformInt(random, 4)]).join("");
  const tokenizer = fakeTokenizer(["a", "b", "c", "d", "bc", "abc", "dd", "cda"], { bosTokenId: BOS }, true);
  let repaired = 0;
  for (let i = 0; i < 300; i++) {
    const [prompt, completion] = [text(1 + uniformInt(random, 6)), text(1 + uniformInt(random, 6))];
    const result = encodeOne([prompt, completion], options(tokenizer, { vocabSize: 16, maxLength: 64 }));
    assert.deepEqual(
      [...result.promptIds, ...result.completionIds],
      tokenizer.encode(prompt + completion, { addSpecialTokens: true }),
    );
    const alone = tokenizer.encode(prompt, { addSpecialTokens: true });
    assert.deepEqual(result.promptIds, alone.slice(0, result.promptIds.length));
    assert.equal(result.counts.repairedBoundary, result.promptIds.length < alone.length ? 1 : 0);
    repaired += result.counts.repairedBoundary;
  }
  assert.ok(repaired > 30 && repaired < 270, `${repaired} repaired`);
});

Deno.test("a boundary repaired down to no prompt at all is refused", () => {
  assert.throws(() => encodeOne(["b", "c"], options(MERGING)), {
    name: "DataError",
    message:
      "Cannot encode x.jsonl:7: expected a prompt of at least one token before the completion, found none",
  });
  const withBos = fakeTokenizer(["a", "b", "c", "d", "bc"], { bosTokenId: BOS }, true);
  assert.deepEqual(encodeOne(["b", "c"], options(withBos)).promptIds, [BOS]);
});

Deno.test("BOS comes once, and only where the tokenizer uses it or it is asked for", () => {
  const adding = fakeTokenizer(["a", "b"], { bosTokenId: BOS }, true);
  const silent = fakeTokenizer(["a", "b"], { bosTokenId: BOS }, false);
  assert.deepEqual(encodeOne(["a", "b"], options(adding)).promptIds, [BOS, A]);
  assert.deepEqual(encodeOne(["<s>a", "b"], options(adding)).promptIds, [BOS, A]);
  assert.deepEqual(encodeOne(["a", "b"], options(adding, { addBos: false })).promptIds, [A]);
  assert.deepEqual(encodeOne(["a", "b"], options(silent)).promptIds, [A]);
  assert.deepEqual(encodeOne(["a", "b"], options(silent, { addBos: true })).promptIds, [BOS, A]);
  assert.deepEqual(encodeOne(["", "b"], options(adding)).promptIds, [BOS]);
  assert.deepEqual(encodePrompt("a", { tokenizer: adding }), [BOS, A]);
  assert.deepEqual(encodePrompt("<s>a", { tokenizer: adding }), [BOS, A]);
  assert.throws(() => encodeOne(["a", "b"], options(CHARACTERS, { addBos: true })), /Cannot add BOS/);
});

Deno.test("EOS comes once, at the completion's end", () => {
  const tokenizer = fakeTokenizer(["a", "b"], { eosTokenId: EOS });
  assert.deepEqual(encodeOne(["a", "b"], options(tokenizer)).completionIds, [B, EOS]);
  assert.deepEqual(encodeOne(["a", "b</s>"], options(tokenizer)).completionIds, [B, EOS]);
  assert.deepEqual(encodeOne(["a</s>", "b"], options(tokenizer)).completionIds, [B, EOS]);
  assert.deepEqual(encodeOne(["a", "b"], options(tokenizer, { addEos: false })).completionIds, [B]);
  assert.throws(() => encodeOne(["a", "b"], options(CHARACTERS, { addEos: true })), /Cannot add EOS/);
});

Deno.test("a long completion loses its end, EOS with it, and is counted", () => {
  const tokenizer = fakeTokenizer(["a", "b", "c", "d"], { eosTokenId: EOS });
  const full = encodeOne(["ab", "cd"], options(tokenizer, { maxLength: 5 }));
  assert.deepEqual([full.completionIds, full.counts.truncated], [[C, D, EOS], 0]);
  const cut = encodeOne(["ab", "cd"], options(tokenizer, { maxLength: 4 }));
  assert.deepEqual([cut.completionIds, cut.counts.truncated], [[C, D], 1]);
  const { pairs, counts } = encodePairs([record("ab", ["cd", "d"])], options(tokenizer, { maxLength: 4 }));
  assert.deepEqual([pairs[0].rejected.completionIds, counts.truncated], [[D, EOS], 1]);
});

Deno.test("a prompt that leaves no room is refused, or dropped and counted", () => {
  const records = [record("aaaa", ["b", "c"]), record("aaa", ["b", "c"])];
  assert.throws(() => encodePairs(records, options(CHARACTERS, { maxLength: 4 })), {
    name: "DataError",
    message:
      'Cannot encode x.jsonl:7: expected a prompt shorter than the max length of 4 tokens, found 4 tokens; with overlong "drop" (--overlong drop) such records are left out',
  });
  const { pairs, counts } = encodePairs(records, options(CHARACTERS, { maxLength: 4, overlong: "drop" }));
  assert.deepEqual([pairs.length, counts.droppedOverlong, counts.truncated], [1, 1, 0]);
  assert.deepEqual(pairs[0].chosen.promptIds, [A, A, A]);
});

Deno.test("a pair with one overlong side is dropped whole, and counts no change", () => {
  const records = [record("aab", ["cd", "d"]), record("a", ["b", "d"])];
  const { pairs, counts } = encodePairs(records, options(MERGING, { maxLength: 3, overlong: "drop" }));
  assert.equal(pairs.length, 1);
  assert.deepEqual([counts.droppedOverlong, counts.repairedBoundary, counts.truncated], [1, 0, 0]);
});

Deno.test("pairs that truncation makes equal are dropped and counted", () => {
  const records = [record("a", ["bbc", "bbd"]), record("a", ["c", "d"])];
  const { pairs, counts } = encodePairs(records, options(CHARACTERS, { maxLength: 3 }));
  assert.deepEqual([pairs.length, counts.droppedIdentical], [1, 1]);
});

Deno.test("completions without a token of their own are dropped and counted, EOS or not", () => {
  const tokenizer = fakeTokenizer(["a", "b"], { eosTokenId: EOS });
  const blind: EncodingTokenizer = {
    ...tokenizer,
    encode: (text) => tokenizer.encode(text.replaceAll(" ", "")),
  };
  const { pairs, counts } = encodePairs([record("a", ["b", " "]), record("a", ["b", "a"])], options(blind));
  assert.deepEqual([pairs.length, counts.droppedEmpty], [1, 1]);
});

Deno.test("nothing left is an error with the counts", () => {
  const records = [record("aaaa", ["b", "c"]), record("aa", ["bbc", "bbd"])];
  assert.throws(() => encodePairs(records, options(CHARACTERS, { maxLength: 4, overlong: "drop" })), {
    name: "DataError",
    message:
      "Cannot encode x.jsonl: expected a usable record, found 2, of which 1 with a prompt that leaves no room " +
      "in 4 tokens, 0 empty, 1 identical as tokens",
  });
  assert.throws(() => encodeCompletions([], options(CHARACTERS)), DataError);
});

Deno.test("a token id that the model does not have is refused, naming the record", () => {
  assert.throws(() => encodePairs([record("a", ["b", "d"])], options(CHARACTERS, { vocabSize: 6 })), {
    name: "DataError",
    message: "Cannot encode x.jsonl:7: expected token ids below the model's vocabulary of 6, found 6",
  });
  const eos = fakeTokenizer(["a", "b"], { eosTokenId: 99 });
  assert.throws(() => encodeOne(["a", "b"], options(eos)), /below the model's vocabulary of 8, found 99/);
});

Deno.test("a tokenizer's own error is passed on with the record's place", () => {
  assert.throws(() => encodeOne(["a", "z"], options(CHARACTERS)), {
    name: "DataError",
    message: 'Cannot encode x.jsonl:7: no token for "z"',
  });
});

Deno.test("options out of range are refused", () => {
  for (const bad of [{ maxLength: 1 }, { maxLength: 2.5 }, { vocabSize: 0 }]) {
    assert.throws(() => encodeOne(["a", "b"], options(CHARACTERS, bad)), RangeError);
  }
});
