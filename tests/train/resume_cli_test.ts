/**
 * `train --resume`: runs that go on in another process equal those that were not interrupted, bit for bit.
 */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { findCheckpoint } from "../../train/checkpoints/find.ts";
import { DIGIT_PAIRS, runTask, succeed, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";

/** What differs from process to process: how fast it was, and what its device has allocated so far. */
const OF_THE_PROCESS = ["tokens_per_second", "gpu_memory_bytes"];

async function metricsOf(run: string): Promise<Record<string, unknown>[]> {
  const text = await Deno.readTextFile(join(run, "metrics.jsonl"));
  return text.trimEnd().split("\n").map((line) => {
    const record = JSON.parse(line);
    for (const name of OF_THE_PROCESS) delete record[name];
    return record;
  });
}

/** Contents of the files in a folder, in hexadecimal. */
async function contents(folder: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for await (const { name } of Deno.readDir(folder)) {
    files[name] = (await Deno.readFile(join(folder, name))).toHex();
  }
  return files;
}

async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (isDirectory) await copyFolder(join(from, name), join(to, name));
    else await Deno.copyFile(join(from, name), join(to, name));
  }
}

async function assertSame(resumed: string, whole: string): Promise<void> {
  assert.deepEqual(await metricsOf(resumed), await metricsOf(whole));
  assert.deepEqual(await contents(join(resumed, "model")), await contents(join(whole, "model")));
  // Completions alone have no samples; how often a run is saved is its own affair.
  const names = async (run: string) =>
    (await Array.fromAsync(Deno.readDir(run), ({ name }) => name)).filter((name) => name !== "checkpoints");
  assert.deepEqual((await names(resumed)).sort(), (await names(whole)).sort());
  const read = async (run: string, name: string) =>
    (await names(run)).includes(name) ? await Deno.readTextFile(join(run, name)) : "";
  for (const name of ["results.json", "samples.jsonl"]) {
    assert.equal(await read(resumed, name), await read(whole, name), name);
  }
}

interface Place {
  readonly folder: string;
  readonly flags: readonly string[];
}

async function place(): Promise<Place> {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model);
  const data = [join(folder, "a.jsonl"), join(folder, "b.jsonl")];
  await writeLines(data[0], DIGIT_PAIRS.slice(0, 5));
  await writeLines(data[1], DIGIT_PAIRS.slice(5));
  const labelled = DIGIT_PAIRS.map(({ prompt, chosen, rejected }, digit) => ({
    ...{ prompt, completion: digit % 2 === 0 ? chosen : rejected, label: digit % 2 === 0 },
  }));
  await writeLines(join(folder, "labelled.jsonl"), labelled);
  const sft = DIGIT_PAIRS.map(({ prompt, chosen }) => ({ prompt, completion: chosen }));
  await writeLines(join(folder, "sft.jsonl"), sft);
  const flags = ["--model", model, "--batch-size", "4", "--learning-rate", "0.01", "--log-every", "3"];
  return { folder, flags: [...flags, "--max-steps", "8", "--save-steps", "1", "--save-total-limit", "9"] };
}

const CASES: Record<string, (folder: string) => string[]> = {
  "dpo, several files with weights, SPO's dual lambda": (folder) => [
    ...["--data", `${folder}/a.jsonl,${folder}/b.jsonl`, "--data-weights", "3,1"],
    ...["--spo.solver", "penalty", "--spo.lambda-schedule", "dual", "--spo.dual-rate", "0.5"],
  ],
  "dpo, LoRA, micro-batches": (folder) => [
    ...["--data", `${folder}/a.jsonl,${folder}/b.jsonl`, "--lora.rank", "2"],
    ...["--gradient-accumulation-steps", "2"],
  ],
  "kto": (folder) => ["--data", `${folder}/labelled.jsonl`, "--loss", "kto"],
  "sft in f16": (folder) => ["--data", `${folder}/sft.jsonl`, "--loss", "sft", "--dtype", "f16"],
};

for (const [index, [name, data]] of Object.entries(CASES).entries()) {
  Deno.test(`${name}: --resume ends as the run that was not interrupted`, async () => {
    const { folder, flags } = await place();
    const whole = join(folder, "whole");
    await succeed("train", [...flags, ...data(folder), "--output", whole]);
    // As a process that is killed leaves them: later lines are there, later checkpoints are not. After a step that
    // logs, once, and after one that does not; from every kind of step: resume_test.ts, without processes.
    for (const step of index === 0 ? [3, 5] : [5]) {
      const output = join(folder, `from-${step}`);
      await copyFolder(whole, output);
      for (const entry of ["results.json", "model"]) {
        await Deno.remove(join(output, entry), { recursive: true });
      }
      for await (const { name: other } of Deno.readDir(join(output, "checkpoints"))) {
        if (Number(other.slice(5)) > step) {
          await Deno.remove(join(output, "checkpoints", other), { recursive: true });
        }
      }
      const out = await succeed("train", ["--resume", "--output", output]);
      assert.match(out, new RegExp(`^Going on after step ${step}, from .*step-00000${step}$`, "m"));
      await assertSame(output, whole);
    }
  });
}

Deno.test("a run that was stopped goes on, other settings are refused by name, and a killed one starts again", async () => {
  const { folder, flags } = await place();
  const own = [...flags.slice(0, 8), "--max-steps", "150", "--data", join(folder, "a.jsonl")];
  const [whole, output] = [join(folder, "whole"), join(folder, "stopped")];
  await succeed("train", [...own, "--output", whole]);
  const stopped = await runTask("train", [...own, "--output", output], { stopAfter: "dpo " });
  assert.equal(stopped.code, 130, stopped.error);
  const found = await findCheckpoint(output);
  assert.ok(found && found.step > 0 && found.step < 150, `stopped after ${found?.step}`);
  const refused = await runTask("train", ["--resume", "--output", output, "--beta", "0.2", "--seed", "1"]);
  assert.equal(refused.code, 1);
  assert.match(refused.error, /^error: Cannot resume from .*: .*beta: expected 0\.1, found 0\.2/m);
  assert.match(refused.error, /seed: expected 0, found 1/);
  const moved = join(folder, "moved", "a.jsonl");
  await Deno.mkdir(dirname(moved));
  await Deno.copyFile(join(folder, "a.jsonl"), moved);
  const more = ["--data", moved, "--memory-budget-gb", "1", "--save-steps", "50", "--save-total-limit", "1"];
  await succeed("train", ["--resume", "--output", output, ...more]);
  await assertSame(output, whole);
  // Only the last and the best stay.
  const kept = await Array.fromAsync(Deno.readDir(join(output, "checkpoints")), (entry) => entry.name);
  assert.ok(kept.includes("step-000150") && kept.length <= 2, kept.join());
  await writeLines(moved, DIGIT_PAIRS);
  const changed = await runTask("train", ["--resume", "--output", output]);
  assert.match(changed.error, /^error: Cannot resume from .*: data: expected \["[0-9a-f]/m);
  // A run that died before its first checkpoint.
  await Deno.remove(join(output, "checkpoints"), { recursive: true });
  const out = await succeed("train", ["--resume", "--output", output, "--data", join(folder, "a.jsonl")]);
  assert.match(out, /^Starting again: .* holds no whole checkpoint$/m);
  await assertSame(output, whole);
});

Deno.test("--resume is refused without a run, and with --overwrite", async () => {
  const folder = temporaryFolder();
  const cases: [string[], RegExp][] = [
    [["--resume"], /Cannot use --resume: expected --output with the folder of the run, found none/],
    [
      ["--resume", "--output", folder, "--overwrite"],
      /--resume: expected a run that is kept, found overwrite/,
    ],
    [["--resume", "--output", folder], /config\.json: expected a JSON file, found no such file/],
  ];
  for (const [args, expected] of cases) {
    const { code, error } = await runTask("train", args);
    assert.equal(code, 1);
    assert.match(error, expected);
  }
});
