import assert from "node:assert/strict";
import { join } from "node:path";
import { csvParseRows } from "d3-dsv";
import { InputError } from "../../train/errors.ts";
import { openCsv } from "../../train/logs/csv.ts";
import { combineSinks } from "../../train/metrics_sink.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import { openMetrics } from "../../train/run_folder.ts";
import { temporaryFolder } from "../tiny_model.ts";

function place() {
  const folder = temporaryFolder();
  return { path: join(folder, "metrics.csv"), metricsFile: join(folder, "metrics.jsonl"), folder };
}

function log(of: ReturnType<typeof place>, records: readonly MetricsRecord[], keepBytes?: number): void {
  using lines = openMetrics(of.metricsFile, { keepBytes });
  using sinks = combineSinks([lines, openCsv(of.path, of)]);
  for (const record of records) {
    sinks.append(record);
    assert.deepEqual(
      rows(of.path).length,
      1 + linesOf(of.metricsFile).length,
      "a row as soon as it is logged",
    );
  }
}

const rows = (path: string): string[][] => csvParseRows(Deno.readTextFileSync(path));
const linesOf = (path: string) => Deno.readTextFileSync(path).split("\n").filter((line) => line !== "");

Deno.test("metrics that appear later are columns at the right, and cells without a number are empty", () => {
  const of = place();
  log(of, [
    { phase: "dpo", global_step: 1, loss: 0.1 },
    { phase: "dpo", global_step: 2, eval_loss: 1e-9, loss: 0.30000000000000004 },
    { phase: "dpo", global_step: 3, loss: -1e21 },
  ]);
  assert.deepEqual(rows(of.path), [
    ["phase", "global_step", "loss", "eval_loss"],
    ["dpo", "1", "0.1", ""],
    ["dpo", "2", "0.30000000000000004", "1e-9"],
    ["dpo", "3", "-1e+21", ""],
  ]);
});

Deno.test("quotes, commas and line ends in a text are its own (RFC 4180)", () => {
  const of = place();
  const phase = 'dpo,"sft"\r\nx';
  log(of, [{ phase, global_step: 1 }]);
  assert.equal(Deno.readTextFileSync(of.path), 'phase,global_step\r\n"dpo,""sft""\r\nx",1\r\n');
  assert.deepEqual(rows(of.path)[1], [phase, "1"]);
});

Deno.test("a run that goes on has the rows of the lines that it kept", () => {
  const of = place();
  log(of, [{ global_step: 1, loss: 1 }, { global_step: 2, loss: 2, eval_loss: 3 }]);
  const kept = Deno.readTextFileSync(of.metricsFile).indexOf("\n") + 1;
  log(of, [{ global_step: 2, loss: 4 }], kept);
  assert.deepEqual(rows(of.path), [["global_step", "loss"], ["1", "1"], ["2", "4"]]);
  assert.deepEqual([...Deno.readDirSync(of.folder)].map(({ name }) => name).sort(), [
    "metrics.csv",
    "metrics.jsonl",
  ]);
});

Deno.test("a table that cannot be written is named, and so is a line that is no record", () => {
  const { path, metricsFile } = place();
  Deno.writeTextFileSync(metricsFile, '{"global_step":1}\nnot JSON\n');
  assert.throws(() => openCsv(path, { metricsFile }), /^InputError: Cannot read .*metrics\.jsonl, line 2: /);
  Deno.writeTextFileSync(metricsFile, '{"global_step":1}\n');
  Deno.mkdirSync(path);
  assert.throws(() => openCsv(path, { metricsFile }), (error) => {
    assert.ok(error instanceof InputError, String(error));
    assert.match(error.message, /^Cannot write to .*metrics\.csv: expected a place to write, found /);
    return true;
  });
});
