/**
 * `report`: reads runs and writes their page.
 * @module
 */
import { join, resolve } from "node:path";
import { openConsole } from "../command_console.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { ConfigError, showFound } from "../errors.ts";
import { writeReport } from "../report/page.ts";
import { readRun } from "../report/read_run.ts";
import { runsReport } from "../report/runs_report.ts";
import { defaultReport, reportFlagsSchema } from "./report.ts";

/**
 * @param invocation of `report`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 */
export async function runReport(invocation: Invocation): Promise<number> {
  const { output } = parseFlags(reportFlagsSchema, invocation);
  const { log, result } = openConsole(invocation);
  const folders = invocation.words;
  if (folders.length === 0) {
    throw new ConfigError("Cannot report: expected a run's folder, found none (deno task report runs/dpo)");
  }
  const twice = folders.find((folder, index) =>
    folders.slice(0, index).some((earlier) => resolve(earlier) === resolve(folder))
  );
  if (twice !== undefined) {
    throw new ConfigError(`Cannot report on ${twice}: expected it once, found it twice`);
  }
  // Nobody means to put a page in the place of a run's other files.
  if (output !== undefined && !/\.html?$/i.test(output)) {
    throw new ConfigError(
      `Cannot use --output: expected a name that ends with .html, found ${showFound(output)}`,
    );
  }
  const runs = [];
  for (const folder of folders) runs.push(await readRun(folder));
  const path = output ?? defaultReport(folders[0]);
  await writeReport(path, runsReport(runs));
  for (const { folder, isCutOff } of runs) {
    if (isCutOff) {
      log(`${join(folder, "metrics.jsonl")}: the last line is cut off, and was left out`);
    }
  }
  result({ output: path, runs: folders }, `Wrote ${path}`);
  return 0;
}
