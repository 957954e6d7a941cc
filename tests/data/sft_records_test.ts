import assert from "node:assert/strict";
import { join } from "node:path";
import { holdsPreferences, readCompletions } from "../../train/data/sft_records.ts";
import { instructionPrompt } from "../../train/data/records.ts";
import { temporaryFolder } from "../tiny_model.ts";

async function write(...records: unknown[]): Promise<string> {
  const path = join(temporaryFolder(), "sft.jsonl");
  await Deno.writeTextFile(path, records.map((record) => `${JSON.stringify(record)}\n`).join(""));
  return path;
}

const read = async (...records: unknown[]) => await readCompletions(await write(...records));
const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });

Deno.test("a file of any form of supervised data gives its prompts and completions", async () => {
  const cases: [object, string, unknown, unknown][] = [
    [{ prompt: "Q:", completion: " A", score: 1 }, "completion", "Q:", " A"],
    [{ prompt: [user("Q")], completion: [assistant("A")] }, "completion", [user("Q")], [assistant("A")]],
    [{ instruction: "Count.", input: "", output: "1" }, "answer", instructionPrompt("Count."), "1"],
    [{ instruction: "Fix.", input: "teh", output: "the" }, "answer", instructionPrompt("Fix.", "teh"), "the"],
    [{ messages: [user("Q"), assistant("A")] }, "dialogue", [user("Q")], [assistant("A")]],
    [
      { conversations: [{ from: "human", value: "Q" }, { from: "gpt", value: "A" }] },
      "turns",
      [user("Q")],
      [assistant("A")],
    ],
    [{ question: "1+1?", answer: "2" }, "question", "Question: 1+1?\nAnswer:", " 2"],
    [{ text: "All." }, "text", "", "All."],
    [{ prompt: "Q:", chosen: " A", rejected: " B" }, "prompt", "Q:", " A"],
    [
      { chosen: [user("Q"), assistant("A")], rejected: [user("Q"), assistant("B")] },
      "conversations",
      [user("Q")],
      [assistant("A")],
    ],
  ];
  for (const [value, form, prompt, completion] of cases) {
    const data = await read(value);
    assert.equal(data.form, form);
    assert.deepEqual([data.records[0].prompt, data.records[0].completion], [prompt, completion], form);
    assert.equal(data.records[0].desirable, undefined);
    assert.equal(data.records[0].source.line, 1);
  }
});

Deno.test("records that nothing can be learnt from are left out by reason; preferences keep their own reasons", async () => {
  const { records, skipped } = await read(
    { prompt: "Q:", completion: " A" },
    { prompt: "Q:", completion: " " },
    { prompt: "", completion: "A" },
    { prompt: "Q:", completion: null },
  );
  assert.equal(records.length, 1);
  assert.deepEqual(skipped, { emptyCompletion: 1, emptyPrompt: 1, missingCompletion: 1 });
  const pairs = await read({ prompt: "Q:", chosen: "A", rejected: "B" }, {
    prompt: "Q:",
    chosen: "A",
    rejected: "A",
  });
  assert.deepEqual([pairs.records.length, pairs.skipped.identical], [1, 1]);
});

Deno.test("every turn of a dialogue is in the completion where all are learnt", async () => {
  const path = await write({
    messages: [user("1"), assistant("2"), user("3"), assistant("4"), user("5")],
  }, { messages: [user("1"), assistant("2")] });
  const { records } = await readCompletions(path, { allTurns: true });
  assert.deepEqual(records[0].prompt, [user("1")]);
  assert.deepEqual(records[0].completion, [assistant("2"), user("3"), assistant("4")]);
  const last = await readCompletions(path);
  assert.deepEqual(last.skipped, { noAssistantTurn: 1 }); // it ends with the user
});

Deno.test("labelled answers, other forms, several forms, or nothing usable are refused", async () => {
  const name = "DataError";
  const refused: [unknown[], RegExp][] = [
    [
      [{ prompt: "Q", completion: "A", label: false }],
      /sft\.jsonl:1: .*found labelled answers, which are for kto$/,
    ],
    [
      [{ prompt: "Q", output: "A" }],
      /sft\.jsonl:1: expected "prompt" and "completion".*found "prompt", "output"$/,
    ],
    [
      [{ text: "A" }, { prompt: "Q", completion: "A" }],
      /sft\.jsonl:2: .*"text" as in .*:1, found the form "completion"$/,
    ],
    [
      [{ text: "A" }, { prompt: "Q", chosen: "A", rejected: "B" }],
      /sft\.jsonl:2: .*found none that has a completion$/,
    ],
    [[{ prompt: "Q:", completion: 3 }], /sft\.jsonl:1: key "completion": expected a string/],
    [[{ prompt: "Q:", completion: " " }], /expected a usable record, found only 1 emptyCompletion$/],
    [[], /sft\.jsonl/],
  ];
  for (const [records, message] of refused) await assert.rejects(read(...records), { name, message });
});

Deno.test("a file's first record says whether it holds preferences", async () => {
  assert.equal(await holdsPreferences(await write({ chosen: "a", rejected: "b" })), true);
  assert.equal(await holdsPreferences(await write({ prompt: "Q", chosen: null, rejected: null })), true);
  assert.equal(await holdsPreferences(await write({ prompt: "Q", completion: "A" })), false);
});
