import assert from "node:assert/strict";
import { join } from "node:path";
import { createChatTemplate } from "../../train/data/chat_template.ts";
import { type DataKind, readDataFile } from "../../train/data/data_files.ts";
import { distribution, inspectData } from "../../train/data/inspect.ts";
import { formatDataReport } from "../../train/data/inspect_report.ts";
import type { Tokenizer } from "../../train/data/tokenizer.ts";
import { createRandom, uniformInt } from "../../train/random.ts";
import { temporaryFolder } from "../tiny_model.ts";

/** Bytes, but that "->" is one token: it may lie across a boundary. */
const TOKENIZER = {
  encode: (text: string) => [...new TextEncoder().encode(text.replaceAll("->", "\u0001"))],
  decode: (ids: readonly number[]) =>
    new TextDecoder().decode(Uint8Array.from(ids)).replaceAll("\u0001", "->"),
  eosTokenId: 0,
  chatTemplate: createChatTemplate(
    "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    { source: "test" },
  ),
} as unknown as Tokenizer;
const ENCODING = { tokenizer: TOKENIZER, vocabSize: 256, overlong: "drop" as const };

async function inspect(
  kind: DataKind,
  files: readonly object[][],
  rest: { maxLength?: number; weights?: number[] } = {},
) {
  const { maxLength = 20, weights } = rest;
  const folder = temporaryFolder();
  const read = await Promise.all(files.map(async (records, index) => {
    const path = join(folder, `${index}.jsonl`);
    await Deno.writeTextFile(path, records.map((record) => JSON.stringify(record) + "\n").join(""));
    return await readDataFile(path, kind, { ...ENCODING, maxLength });
  }));
  const parts = weights?.map((weight, index) => ({ weight, count: read[index].items.length }));
  return inspectData(kind, read, { maxLength, ...(parts ? { parts } : {}) });
}

const PAIRS = [
  { prompt: "Q1:", chosen: "yes", rejected: "no" },
  { prompt: "Q1:", chosen: "yes", rejected: "no" }, // the same
  { prompt: "Q1:", chosen: "no", rejected: "yes" }, // contradicts both
  { prompt: "Q1:", chosen: "maybe", rejected: "no" }, // another answer to the same prompt
  { prompt: "Q2:", chosen: "same", rejected: "same" }, // identical
  { prompt: "Q2:", chosen: "a", rejected: "" }, // empty
  { prompt: "Q3 is rather a long one:", chosen: "a", rejected: "b" }, // no room
  { prompt: "Q4:", chosen: "more than there is room for", rejected: "b" }, // cut
  { prompt: "Q5-", chosen: ">x", rejected: "y" }, // a token across the boundary
  { prompt: "Q6:", chosen: "0123456789abcdefgh", rejected: "0123456789abcdefghi" }, // identical once cut
];

Deno.test("each kind of trouble in pairs is counted once, under its name", async () => {
  const report = await inspect("pairs", [PAIRS]);
  assert.deepEqual([report.records, report.used], [10, 6]);
  assert.deepEqual(
    Object.fromEntries(Object.entries(report.skipped).filter(([, count]) => count > 0)),
    { identical: 1, emptyCompletion: 1 },
  );
  assert.deepEqual(report.counts, {
    droppedOverlong: 1,
    droppedIdentical: 1,
    droppedEmpty: 0,
    truncated: 1 + 2, // and both sides of the pair that became identical
    truncatedPrompt: 0,
    repairedBoundary: 1,
  });
  assert.deepEqual(report.repetitions, { exact: 1, prompts: 3, samePrompt: 3, contradictory: 3 });
  const lines = Object.entries(report.first).map(([name, place]) => [name, place.split(":").pop()]);
  assert.deepEqual(Object.fromEntries(lines), {
    ...{ identical: "5", emptyCompletion: "6", exact: "2", samePrompt: "2", contradictory: "1" },
  });
  // Q3's two texts, Q4's chosen one, Q6's two.
  assert.deepEqual(report.overMaxLength, { texts: 5, share: 5 / 16 });
});

Deno.test("lengths are of the uncut texts, EOS included; bias and tokens are those of a hand count", async () => {
  const pairs = [
    { prompt: "Q:", chosen: "aaaa", rejected: "b" },
    { prompt: "Q:", chosen: "aa", rejected: "bb" },
    { prompt: "Q:", chosen: "a", rejected: "bbbbbbbbb" },
    { prompt: "Q:", chosen: "aaa", rejected: "bb" },
  ];
  const { lengths, lengthBias, tokens } = await inspect("pairs", [pairs], { maxLength: 7 });
  assert.deepEqual(lengths.prompt, { min: 2, median: 2, p90: 2, p99: 2, max: 2, mean: 2 });
  assert.deepEqual(lengths.chosen, { min: 2, median: 3, p90: 5, p99: 5, max: 5, mean: 3.5 });
  assert.deepEqual(lengths.rejected, { min: 2, median: 3, p90: 10, p99: 10, max: 10, mean: 4.5 });
  assert.deepEqual(lengthBias, { longer: 0.5, shorter: 0.25, meanDifference: -1 });
  // Rejected of the third is cut to 5: 14 + 13 labels, and 2 prompt tokens each.
  assert.deepEqual(tokens, { separate: 27 + 16, packed: 27 + 8, labels: 27 });
});

Deno.test("percentiles are nearest ranks of any list", () => {
  assert.deepEqual(distribution([]), { min: 0, median: 0, p90: 0, p99: 0, max: 0, mean: 0 });
  const random = createRandom(3);
  for (const count of [1, 2, 3, 10, 99, 100, 101]) {
    const values = Array.from({ length: count }, () => uniformInt(random, 50));
    const { min, median, p90, p99, max, mean } = distribution(values);
    assert.deepEqual([min, max], [Math.min(...values), Math.max(...values)]);
    assert.equal(mean, values.reduce((total, value) => total + value, 0) / count);
    for (const [share, value] of [[0.5, median], [0.9, p90], [0.99, p99]]) {
      // The smallest value that at least this share of the list does not exceed.
      const reaches = (bound: number) =>
        values.filter((other) => other <= bound).length >= share * count - 1e-9;
      assert.ok(
        reaches(value) && !values.some((other) => other < value && reaches(other)),
        `${count} ${share}`,
      );
    }
  }
});

Deno.test("labelled answers contradict where one answer has both labels; preferences give two answers each", async () => {
  const answer = (completion: string, label: boolean) => ({ prompt: "Q:", completion, label });
  const report = await inspect("labelled", [[
    answer("yes", true),
    answer("yes", false),
    answer("no", false),
    answer("no", false),
    answer(" ", true),
  ]]);
  assert.deepEqual([report.records, report.used, report.desirable], [5, 4, 1]);
  assert.deepEqual(report.repetitions, { exact: 1, prompts: 1, samePrompt: 3, contradictory: 2 });
  assert.equal(report.lengths.desirable.mean, 4);
  assert.ok(Math.abs(report.lengthBias!.meanDifference - (4 - 10 / 3)) < 1e-12);
  const pairs = await inspect("labelled", [PAIRS.slice(0, 5)]);
  assert.deepEqual([pairs.records, pairs.used, pairs.desirable, pairs.skipped.identical], [10, 8, 4, 2]);
});

Deno.test("completions have one length; files share an epoch by number or by weight", async () => {
  const files = [[{ prompt: "Q:", completion: "A" }], [{ text: "abc" }, { text: "abc" }, { text: "de" }]];
  const plain = await inspect("completions", files);
  assert.deepEqual(plain.files.map(({ form, share }) => [form, share]), [["completion", 0.25], [
    "text",
    0.75,
  ]]);
  assert.deepEqual(plain.repetitions, { exact: 1, prompts: 3, samePrompt: 1, contradictory: 0 });
  assert.equal(plain.lengthBias, undefined);
  assert.deepEqual(Object.keys(plain.lengths), ["prompt", "completion"]);
  const weighted = await inspect("completions", files, { weights: [3, 1] });
  assert.deepEqual(weighted.files.map(({ share }) => share), [0.75, 0.25]);
  const text = formatDataReport(weighted);
  assert.match(text, /^\S+0\.jsonl +completion +1 +1 +75\.0 % +3\.00$/m);
  assert.match(text, /^completions +4 +100\.0 %$/m);
});

Deno.test("the text of a report has every number of it", async () => {
  const text = formatDataReport(await inspect("pairs", [PAIRS]));
  for (
    const line of [
      /^read +10 +100\.0 %$/m,
      /^left out: identical +1 +10\.0 % +\S+0\.jsonl:5$/m,
      /^left out: prompt too long +1 +10\.0 %$/m,
      /^left out: both sides the same ids +1 +10\.0 %$/m,
      /^pairs +6 +60\.0 %$/m,
      /^exact duplicates of earlier pairs +1 +16\.7 % +\S+:2$/m,
      /^contradictory: also in the other order +3 +50\.0 % +\S+:1$/m,
      /^texts over 20 tokens +5 +31\.3 %$/m,
      /^boundary tokens counted as completion +1 +-$/m,
      /^chosen is longer +\d+\.\d %$/m,
      /^saved by common prompts +\d+\.\d %$/m,
      /--overlong drop/,
    ]
  ) assert.match(text, line);
});
