/**
 * `train --csv --tensorboard`: every file has the numbers of metrics.jsonl, also of a run that was resumed, and every
 * saved model its card.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { csvParse } from "d3-dsv";
import { parse } from "yaml";
import { DIGIT_PAIRS, runTask, succeed, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { eventFiles, readEventFile, readScalars } from "./read_events.ts";

type MetricsLine = Record<string, number | string>;

async function linesOf(run: string): Promise<MetricsLine[]> {
  const text = await Deno.readTextFile(join(run, "metrics.jsonl"));
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

async function assertSameEvents(run: string): Promise<void> {
  const lines = await linesOf(run);
  assert.ok(lines.some((line) => "eval_loss" in line) && lines.some((line) => !("eval_loss" in line)));
  const expected = new Map<string, [number, number][]>();
  for (const { phase: _, global_step: step, ...numbers } of lines) {
    for (const [name, value] of Object.entries(numbers)) {
      const tag = name.startsWith("eval_") ? `eval/${name.slice(5)}` : `train/${name}`;
      expected.set(tag, [...expected.get(tag) ?? [], [Number(step), Math.fround(Number(value))]]);
    }
  }
  const scalars = readScalars(join(run, "tensorboard"));
  assert.ok(scalars.has("train/rewards/chosen") && scalars.has("eval/rewards/chosen"));
  assert.deepEqual(scalars, expected);
}

async function assertSameTable(run: string): Promise<void> {
  const lines = await linesOf(run);
  const rows: Record<string, string>[] = csvParse(await Deno.readTextFile(join(run, "metrics.csv")));
  assert.deepEqual(
    rows.map((row) => Object.fromEntries(Object.entries(row).filter(([, cell]) => cell !== ""))),
    lines.map((line) =>
      Object.fromEntries(Object.entries(line).map(([name, value]) => [name, String(value)]))
    ),
  );
}

Deno.test("events, table and cards say what metrics.jsonl says, of a whole run and of one that went on", async () => {
  const folder = temporaryFolder();
  const [model, data, evalData] = [
    join(folder, "base"),
    join(folder, "pairs.jsonl"),
    join(folder, "held.jsonl"),
  ];
  await writeCheckpoint(model);
  await writeLines(data, DIGIT_PAIRS.slice(0, 6));
  await writeLines(evalData, DIGIT_PAIRS.slice(6));
  const run = join(folder, "run");
  const flags = [
    ...["--model", model, "--data", data, "--eval-data", evalData, "--batch-size", "4", "--lora.rank", "2"],
    ...["--log-every", "2", "--max-steps", "8", "--eval-steps", "4", "--spo.solver", "penalty"],
    ...["--save-steps", "3", "--save-total-limit", "9", "--tensorboard"],
  ];
  await succeed("train", [...flags, "--output", run]);
  await assertSameEvents(run);
  assert.equal(eventFiles(join(run, "tensorboard")).length, 1);

  // As a process that was killed leaves it: later lines are there, later checkpoints are not.
  await Deno.remove(join(run, "checkpoints", "step-000006"), { recursive: true });
  await succeed("train", ["--resume", "--output", run, "--csv"]);
  await assertSameEvents(run);
  await assertSameTable(run);
  const [kept, added] = eventFiles(join(run, "tensorboard")).map(readEventFile);
  assert.deepEqual(kept.map(({ step }) => step), [0, 2]);
  assert.deepEqual(added.map(({ step }) => step), [0, 3, 4, 6, 8]);

  const readCard = (...names: string[]) => Deno.readTextFile(join(run, ...names, "README.md"));
  const card = await readCard("model");
  assert.deepEqual(parse(card.split("---\n")[1]), {
    ...{ library_name: "keel", pipeline_tag: "text-generation" },
    tags: ["keel", "peft", "lora", "dpo", "spo"],
  });
  const sha256 = createHash("sha256").update(await Deno.readFile(evalData)).digest("hex");
  assert.match(card, new RegExp(`^\\| held out \\| \`held.jsonl\` +\\| \`${sha256}\` \\|$`, "m"));
  assert.match(card, /^6 pairs to train on, 2 to measure with\.$/m);
  const last = (await linesOf(run)).at(-1)!;
  assert.match(
    card,
    new RegExp(`^\\| \`eval_loss\` +\\| +${Number(Number(last.eval_loss).toPrecision(6))} \\|$`, "m"),
  );
  assert.match(card, /^### Results$/m);
  assert.ok(!card.includes(folder), "no folder of this machine");
  const early = await readCard("checkpoints", "step-000003", "model");
  assert.match(early, /^Of `dpo\+spo`, step 2, /m);
  assert.doesNotMatch(early, /^### Results$/m);

  const merged = join(folder, "merged");
  await succeed("merge", ["--model", join(run, "model"), "--output", merged]);
  const path = join(merged, "README.md");
  assert.ok((await Deno.readTextFile(path)).endsWith(card.slice(card.indexOf("## Training"))));
  await Deno.writeTextFile(path, "mine\n");
  const refused = await runTask("merge", ["--model", join(run, "model"), "--output", merged, "--overwrite"]);
  assert.equal(refused.code, 1);
  assert.match(
    refused.error,
    /^error: Cannot write .*README\.md: expected no file or a card of Keel's, found /m,
  );
  assert.equal(await Deno.readTextFile(path), "mine\n");

  const plain = flags.filter((flag) => flag !== "--tensorboard");
  await succeed("train", [...plain, "--output", run, "--overwrite"]);
  const names = [...Deno.readDirSync(run)].map(({ name }) => name);
  assert.ok(!names.includes("metrics.csv") && !names.includes("tensorboard"), names.join());
});
