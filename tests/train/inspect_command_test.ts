/** `inspect` and `train --inspect`, as a user runs them; on published data where it is there. */
import assert from "node:assert/strict";
import { join, resolve } from "node:path";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";
import { DIGIT_PAIRS, runTask, succeed, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";

Deno.test("inspect and train --inspect describe the same data, write nothing, and need no adapter", async () => {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model);
  const data = await writeLines(join(folder, "data.jsonl"), [...DIGIT_PAIRS, DIGIT_PAIRS[0]]);
  const flags = ["--model", model, "--data", data];
  const table = await succeed("inspect", flags);
  assert.match(table, /^exact duplicates of earlier pairs +1 +11\.1 % +\S+data\.jsonl:9$/m);
  assert.match(table, /^prompt +4 +4 +4 +4 +4 +4\.0$/m);
  const output = join(folder, "run");
  // A budget that no run fits: it is not asked.
  const inspect = ["--inspect", "--memory-budget-gb", "0.000001", "--output", output];
  assert.equal(await succeed("train", [...flags, ...inspect]), table);
  await assert.rejects(Deno.stat(output), Deno.errors.NotFound);
  // Weights are not read.
  await Deno.remove(join(model, "model.safetensors"));
  assert.equal(await succeed("inspect", flags), table);
  const report = JSON.parse(await succeed("inspect", [...flags, "--json", "--max-length", "5"]));
  assert.deepEqual([report.kind, report.records, report.used, report.maxLength], ["pairs", 9, 9, 5]);
  assert.deepEqual([report.counts.truncated, report.overMaxLength], [18, { texts: 18, share: 1 }]);
  const labelled = JSON.parse(await succeed("inspect", [...flags, "--json", "--as", "labelled"]));
  assert.deepEqual([labelled.kind, labelled.used, labelled.desirable], ["labelled", 18, 9]);
  const chosen = JSON.parse(await succeed("inspect", [...flags, "--json", "--as", "completions"]));
  assert.deepEqual([chosen.kind, chosen.used], ["completions", 9]);
});

Deno.test("inspect refuses what it cannot read, in a line", async () => {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model);
  const data = await writeLines(join(folder, "data.jsonl"), DIGIT_PAIRS);
  const refused: [string, string[], RegExp][] = [
    ["inspect", ["--model", model], /^error: Cannot inspect: expected --model and --data, found no --data$/m],
    ["inspect", ["--data", data], /^error: Cannot inspect: .*found no --model$/m],
    [
      "train",
      ["--inspect"],
      /^error: Cannot use inspect: expected --model and --data with it, found neither$/m,
    ],
    [
      "inspect",
      ["--model", model, "--data", data, "--data-weights", "1,2"],
      /^error: Cannot use --data-weights: expected a number above 0 for each of the 1 files/m,
    ],
    [
      "inspect",
      ["--model", model, "--data", data, "--as", "pairs", "--assistant-only-loss"],
      /^error: Cannot use --assistant-only-loss: expected completions, found --as pairs$/m,
    ],
    ["inspect", ["--model", model, "--data", `${data},${data}`], /^error: .*expected each file once/m],
    ["inspect", ["--model", folder, "--data", data], /^error: .*tokenizer/m],
    [
      "inspect",
      ["--model", model, "--data", join(folder, "none.jsonl")],
      /^error: Cannot read .*none\.jsonl/m,
    ],
  ];
  for (const [task, args, message] of refused) {
    const { code, out, error } = await runTask(task, args);
    assert.deepEqual([code, out], [1, ""], args.join(" "));
    assert.match(error, message);
  }
});

/** The report of a published file, by a published tokenizer. */
async function report(tokenizer: string, data: string, flags: string[] = []) {
  const path = (name: string) => join(SHARED_DATA, name);
  const args = [
    "--model",
    path(`tokenizers/${tokenizer}`),
    "--data",
    resolve(SHARED_DATA, data),
    "--json",
    ...flags,
  ];
  return JSON.parse(await succeed("inspect", args));
}

testWithSharedData("transcripts of people: chosen answers are the longer ones", async () => {
  // The whole file is in docs/data.md; here its first records, among them one that is left out.
  const text = await Deno.readTextFile(join(SHARED_DATA, "hh-rlhf/helpful-base.split-train.first1854.jsonl"));
  const data = join(temporaryFolder(), "first.jsonl");
  await Deno.writeTextFile(data, text.split("\n").slice(0, 400).join("\n"));
  const { records, used, skipped, first, repetitions, lengthBias, lengths, tokens } = await report(
    "gpt2",
    data,
    [
      "--max-length",
      "2048",
    ],
  );
  assert.deepEqual([records, used, skipped.emptyCompletion], [400, 399, 1]);
  assert.equal(first.emptyCompletion, `${data}:121`);
  assert.equal(repetitions.exact, 0);
  assert.ok(lengthBias.longer > 0.55 && lengthBias.meanDifference > 5);
  assert.equal(
    lengthBias.meanDifference.toFixed(6),
    (lengths.chosen.mean - lengths.rejected.mean).toFixed(6),
  );
  assert.ok(tokens.packed < 0.7 * tokens.separate); // the prompts are long
});

testWithSharedData("conversations in a chat template, and pairs twice in the file", async () => {
  const { files, used, repetitions } = await report(
    "minimind-6400",
    "preference/llamafactory.dpo_en_demo.json",
    [
      "--max-length",
      "8192",
    ],
  );
  assert.deepEqual([files[0].form, used], ["sharegpt", 300]);
  // The file itself says which: whole rows that are equal.
  const rows: unknown[] = JSON.parse(
    await Deno.readTextFile(join(SHARED_DATA, "preference/llamafactory.dpo_en_demo.json")),
  );
  assert.equal(repetitions.exact, rows.length - new Set(rows.map((row) => JSON.stringify(row))).size);
  assert.ok(repetitions.exact > 0);
});

testWithSharedData(
  "instructions as pairs, as labelled answers, as completions; problems with answers",
  async () => {
    const file = "preference/rasbt.instruction-data-with-preference.json";
    const pairs = await report("gpt2", file);
    assert.deepEqual([pairs.kind, pairs.used, pairs.skipped.identical], ["pairs", 1094, 6]);
    const labelled = await report("gpt2", file, ["--as", "labelled"]);
    assert.deepEqual([labelled.used, labelled.desirable, labelled.skipped.identical], [2188, 1094, 12]);
    const chosen = await report("gpt2", file, ["--as", "completions"]);
    assert.deepEqual([chosen.used, chosen.lengths.completion], [1094, pairs.lengths.chosen]);
    const problems = await report("gpt2", "gsm8k/test.jsonl");
    assert.deepEqual([problems.kind, problems.files[0].form, problems.used], [
      "completions",
      "question",
      1319,
    ]);
  },
);
