import assert from "node:assert/strict";
import type { Row } from "../../train/data/rows.ts";
import {
  collectPreferences,
  formatSkipped,
  instructionPrompt,
  transcriptPrompt,
} from "../../train/data/records.ts";

const rows = (values: Record<string, unknown>[]): Row[] =>
  values.map((value, i) => ({ value, source: { file: "x.jsonl", line: i + 1 } }));
const collect = (...values: Record<string, unknown>[]) => collectPreferences(rows(values), "x.jsonl");
const refuses = (values: Record<string, unknown>[], message: string) =>
  assert.rejects(collect(...values), { name: "DataError", message });

Deno.test("instruction records get the headed prompt, with and without input", async () => {
  const { records, form } = await collect(
    { instruction: "Fix it.", input: "teh", output: "the", chosen: "the", rejected: "duh" },
    { instruction: "Count.", input: "", chosen: "1", rejected: "2" },
    { instruction: "Count.", input: null, chosen: "1", rejected: "2" },
  );
  assert.equal(form, "instruction");
  assert.deepEqual(records[0], {
    prompt: "### Instruction:\nFix it.\n\n### Input:\nteh\n\n### Response:\n",
    chosen: "the",
    rejected: "duh",
    source: { file: "x.jsonl", line: 1 },
  });
  assert.equal(records[1].prompt, "### Instruction:\nCount.\n\n### Response:\n");
  assert.equal(records[2].prompt, instructionPrompt("Count."));
});

Deno.test("prompt records are taken as they are, other columns ignored", async () => {
  const { records, form } = await collect({
    prompt: " Q ",
    chosen: "\nA",
    rejected: "B ",
    score: 3,
    id: null,
  });
  assert.equal(form, "prompt");
  assert.deepEqual([records[0].prompt, records[0].chosen, records[0].rejected], [" Q ", "\nA", "B "]);
});

Deno.test("transcripts are cut at the last common assistant's turn", async () => {
  const prompt = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:";
  const { records, form } = await collect({ chosen: `${prompt} The one`, rejected: `${prompt} The other` });
  assert.equal(form, "transcript");
  assert.deepEqual([records[0].prompt, records[0].chosen, records[0].rejected], [
    prompt,
    " The one",
    " The other",
  ]);
});

Deno.test("a turn marker that only one side completes does not count", () => {
  const start = "\n\nHuman: a\n\nAssistant:";
  assert.equal(transcriptPrompt(`${start} b\n\nAssistant: c`, `${start} b\n\nAssist`), start);
  assert.equal(transcriptPrompt(`${start}`, `${start} x`), start);
  assert.equal(transcriptPrompt("\n\nHuman: a", "\n\nHuman: b"), undefined);
});

Deno.test("unusable records are counted by reason and the rest kept in order", async () => {
  const prompt = { prompt: "p" };
  const { records, skipped, firstSkipped } = await collect(
    { ...prompt, chosen: "1", rejected: "2" },
    { ...prompt, rejected: "2" },
    { ...prompt, chosen: null, rejected: "2" },
    { ...prompt, chosen: "1" },
    { ...prompt, chosen: "1", rejected: "1" },
    { ...prompt, chosen: "1", rejected: " \n" },
    { prompt: " ", chosen: "1", rejected: "2" },
    { ...prompt, chosen: "3", rejected: "4" },
  );
  assert.deepEqual(records.map((record) => record.source.line), [1, 8]);
  assert.deepEqual(skipped, {
    missingChosen: 2,
    missingRejected: 1,
    identical: 1,
    emptyCompletion: 1,
    emptyPrompt: 1,
    noCommonPrompt: 0,
    laterTurn: 0,
  });
  assert.equal(firstSkipped.missingChosen?.line, 2);
  assert.equal(firstSkipped.laterTurn, undefined);
  assert.equal(
    formatSkipped(skipped),
    "2 missingChosen, 1 missingRejected, 1 identical, 1 emptyCompletion, 1 emptyPrompt",
  );
});

Deno.test("transcripts that share no turn, part too early, or end without an answer are skipped", async () => {
  const start = "\n\nHuman: a\n\nAssistant:";
  const { skipped } = await collect(
    { chosen: `${start} b`, rejected: `${start} c` },
    { chosen: `${start} b`, rejected: "\n\nHuman: z\n\nAssistant: b" },
    { chosen: `${start} b\n\nHuman: d\n\nAssistant: e`, rejected: `${start} c` },
    { chosen: `${start} b`, rejected: `${start} ` },
    { chosen: `${start} b` },
  );
  assert.equal(formatSkipped(skipped), "1 missingRejected, 1 emptyCompletion, 1 noCommonPrompt, 1 laterTurn");
});

Deno.test("nothing usable is an error that says why", async () => {
  await refuses(
    [{ prompt: "p", chosen: "1", rejected: "1" }, { prompt: "p", chosen: "1" }],
    "Cannot use x.jsonl: expected a usable record, found only 1 missingRejected, 1 identical",
  );
  await refuses([], "Cannot use x.jsonl: expected records, found none");
});

Deno.test("a key of the wrong type is an error, not a skip", async () => {
  const good = { prompt: "p", chosen: "1", rejected: "2" };
  await refuses(
    [good, { ...good, chosen: 42 }],
    'Cannot read x.jsonl:2: key "chosen": expected a string, found number',
  );
  await refuses(
    [{ ...good, prompt: null }],
    'Cannot read x.jsonl:1: key "prompt": expected a string, found null',
  );
  await refuses(
    [{ ...good, rejected: [{ role: "user" }] }],
    'Cannot read x.jsonl:1: key "chosen": expected a list of messages, found "1"',
  );
  await refuses(
    [{ instruction: "i", input: {}, chosen: "1", rejected: "2" }],
    'Cannot read x.jsonl:1: key "input": expected a string, found object',
  );
});

Deno.test("unknown, ambiguous and unsupported forms are refused", async () => {
  await assert.rejects(
    collect({ question: "q", answer: "a" }),
    /Cannot read x\.jsonl:1: expected a preference record: .* found "question", "answer"$/,
  );
  await assert.rejects(
    collect({ prompt: "p", instruction: "i", chosen: "1", rejected: "2" }),
    /expected either/,
  );
  await assert.rejects(collect({ prompt: "p", system: "Be brief.", chosen: "1", rejected: "2" }), /"system"/);
  const { records } = await collect({ prompt: "p", system: "", history: [], chosen: "1", rejected: "2" });
  assert.equal(records.length, 1);
});

Deno.test("a file of two forms is refused, naming both records", async () => {
  await refuses(
    [{ prompt: "p", chosen: "1", rejected: "2" }, { chosen: "1", rejected: "2" }],
    'Cannot read x.jsonl:2: expected the form "prompt" as in x.jsonl:1, found the form "transcript"',
  );
});
