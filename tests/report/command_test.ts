/**
 * `deno task report`: what it reads and refuses.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { LAUNCHER } from "../launcher.ts";
import { parseCommandLine } from "../../train/command_line.ts";
import { configTable } from "../../train/report/config_table.ts";
import { helpText } from "../../train/help.ts";
import { readRun } from "../../train/report/read_run.ts";
import { runsReport } from "../../train/report/runs_report.ts";
import { HOSTILE, writeGeneratedRun } from "./generated_run.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "keel-report-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** With the task's own permissions. */
async function report(...args: string[]): Promise<{ code: number; out: string; error: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...LAUNCHER, "report", ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), error: text(stderr) };
}

Deno.test("report writes the page into the first run's folder, or where it is told", () =>
  inFolder(async (folder) => {
    const [a, b] = [join(folder, "a"), join(folder, "b")];
    await writeGeneratedRun(a);
    await writeGeneratedRun(b, { shift: 1, phase: "dpo+spo" });
    assert.deepEqual(await report(a), { code: 0, out: `Wrote ${join(a, "report.html")}\n`, error: "" });
    const output = join(folder, "both.html");
    assert.deepEqual(await report(a, b, "--output", output), {
      code: 0,
      out: `Wrote ${output}\n`,
      error: "",
    });
    const page = await Deno.readTextFile(output);
    for (const text of ["a: dpo", "b: dpo+spo", "Settings that differ", "invented/metric"]) {
      assert.ok(page.includes(text), text);
    }
  }));

Deno.test("report refuses what it cannot read, in a line, and writes nothing", () =>
  inFolder(async (folder) => {
    const run = join(folder, "run");
    await writeGeneratedRun(run);
    const cases: [string[], RegExp][] = [
      [[], /Cannot report: expected a run's folder, found none/],
      [[run, `${run}/`], /Cannot report on .*run\/: expected it once, found it twice/],
      [[folder], /Cannot report on .*: expected a run's folder with metrics\.jsonl, found none/],
      [[run, "--output", join(run, "metrics.jsonl")], /--output: expected a name that ends with \.html/],
      [[run, "--output", join(folder, "none", "r.html")], /Cannot write .*r\.html/],
      [[run, "--out", "x.html"], /Cannot use --out: .*did you mean --output/],
    ];
    for (const [args, expected] of cases) {
      const { code, error } = await report(...args);
      assert.equal(code, 1, error);
      assert.match(error, expected);
      assert.equal(error.trim().split("\n").length, 1, error);
    }
    assert.ok(![...Deno.readDirSync(run)].some(({ name }) => name.includes("report")));
  }));

Deno.test("a damaged line is named; a last line without its end is left out and told", () =>
  inFolder(async (folder) => {
    const file = join(folder, "metrics.jsonl");
    const first = '{"global_step":1,"loss":0.5}\n';
    const read = async (text: string) => {
      await Deno.writeTextFile(file, text);
      return await readRun(folder);
    };
    const cut = await read(`${first}{"global_step":2,"lo`);
    assert.deepEqual([cut.records.length, cut.isCutOff], [1, true]);
    assert.ok(JSON.stringify(runsReport([cut])).includes("1 line left out"));
    assert.match((await report(folder)).error, /the last line is cut off, and was left out/);
    const whole = await read(`${first}{"global_step":2,"loss":0.4}`);
    assert.deepEqual([whole.records.length, whole.isCutOff], [2, false]);
    const cases: [string, RegExp][] = [
      [`${first}{"global_step":2,"lo\n${first}`, /metrics\.jsonl, line 2: expected a JSON object, found "\{/],
      [`${first}{"global_step":2,"lo\n`, /metrics\.jsonl, line 2: expected a JSON object/],
      [`${first}\n${first}`, /metrics\.jsonl, line 2: expected a JSON object, found ""/],
      [`${first}[1]\n`, /metrics\.jsonl, line 2: expected a value of type object, found \[1\]/],
      [
        `${first}{"loss":1}\n`,
        /metrics\.jsonl, line 2, key global_step: expected a value of type number, found nothing/,
      ],
      [`${first}{"global_step":2,"loss":null}`, /line 2, key loss: expected .*number.*, found null/],
      [`${first}{"global_step":2,"loss":1e999}`, /line 2, key loss: expected .*number.*, found Infinity/],
      ["", /expected logged steps in metrics\.jsonl, found none/],
    ];
    for (const [text, expected] of cases) await assert.rejects(read(text), expected);
    for (const name of ["config.json", "results.json", "samples.jsonl"]) {
      const path = join(folder, name);
      await Deno.writeTextFile(path, '"text"\n');
      await assert.rejects(read(first), new RegExp(`Cannot read .*${name}.*: expected .*object`));
      await Deno.remove(path);
    }
  }));

Deno.test("runs of one name go by their folders; answers stand beside each other", () =>
  inFolder(async (folder) => {
    const [a, b] = [join(folder, "x", "run"), join(folder, "y", "run")];
    await writeGeneratedRun(a);
    await writeGeneratedRun(b);
    const { sections } = runsReport([await readRun(a), await readRun(b)]);
    const loss = sections.find(({ title }) => title === "Loss")!;
    assert.deepEqual(loss.figures!.map(({ title }) => title), [
      "Loss: supervised training",
      "Loss: preference training",
    ]);
    assert.deepEqual(loss.figures![0].legend.map(({ name }) => name), [`${a}: sft`, `${b}: sft`]);
    const samples = sections.find(({ title }) => title === "Samples")!.tables![0];
    assert.deepEqual(samples.headers, ["prompt", "preferred", "before", "after"]);
    assert.deepEqual(samples.rows, [[HOSTILE, "58,07$", `${HOSTILE} before`, `${HOSTILE} after`]]);
    assert.ok(!sections.some(({ title }) => title === "Settings that differ"), "they do not");
  }));

Deno.test("only settings that differ are listed", () => {
  const { rows } = configTable([{ seed: 0, spo: { lambda: 1 } }, { seed: 0, spo: { lambda: 2 }, x: null }], [
    "a",
    "b",
  ]);
  assert.deepEqual(rows, [["spo.lambda", "1", "2"], ["x", "-", "null"]]);
});

Deno.test("words without a flag reach the command that takes them", () => {
  const line = parseCommandLine(["report", "a", "--output", "c.html", "b", "--", "-d"]);
  assert.ok(!line.help);
  assert.deepEqual(line.words, ["a", "b", "-d"]);
  assert.deepEqual(line.raw, { output: "c.html" });
  assert.match(helpText("report"), /^Usage: deno task report RUN\.\.\. \[flags\]/);
  assert.throws(() => parseCommandLine(["merge", "a"]), /found a word of no flag/);
});
