/**
 * `study`: runs what is missing, and writes the report.
 * @module
 */
import { join } from "node:path";
import { openConsole } from "../command_console.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { ConfigError } from "../errors.ts";
import { planningOptions, requireFit } from "../plan.ts";
import { lockFolder, refuseLocked } from "../folder_lock.ts";
import { makeFolder } from "../write_error.ts";
import { writeMarkdown } from "../report/markdown.ts";
import { writeReport } from "../report/page.ts";
import type { RunHooks } from "../session.ts";
import { openCells } from "../study/cells.ts";
import { planStudy } from "../study/plan.ts";
import { studyReport } from "../study/report.ts";
import { FULL_STUDY, QUICK_STUDY, type StudySettings } from "../study/settings.ts";
import { runStudy } from "../study/study.ts";
import { openDevice, stopOnSignal } from "../terminal.ts";
import { type StudyFlags, studyFlagsSchema } from "./study.ts";

/**
 * @param invocation of `study`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 * @throws {RunStoppedError} on Ctrl-C; finished runs are kept
 */
export async function runStudyCommand(invocation: Invocation): Promise<number> {
  const flags = parseFlags(studyFlagsSchema, invocation);
  const { output, document } = flags;
  if (document !== undefined && !document.endsWith(".md")) {
    throw new ConfigError(`Cannot use --document: expected a .md file, found ${document}`);
  }
  await refuseLocked(output);
  using stop = stopOnSignal();
  const { log, progress, result } = openConsole(invocation, { logs: "stdout" });
  const hooks: RunHooks = { log, progress, signal: stop.signal };
  using gpu = await openDevice(flags, hooks);
  const settings = studySettings(flags);
  requireFit(await planStudy(planningOptions(gpu), settings), { action: "run the study" });
  const results = join(output, "results");
  await makeFolder(results);
  using _lock = await lockFolder(output);
  const cells = openCells(results, { adapter: gpu.adapter.name });
  const report = studyReport(await runStudy(gpu, settings, { cells, hooks }));
  const page = join(output, "report.html");
  await writeReport(page, report);
  if (document !== undefined) await writeMarkdown(document, report);
  const written = [page, ...(document === undefined ? [] : [document])].join(" and ");
  result({ output, page, document }, `\nWrote ${written}`);
  return 0;
}

function studySettings({ quick, seeds, seed }: StudyFlags): StudySettings {
  const settings = quick ? QUICK_STUDY : FULL_STUDY;
  return { ...settings, seed, seeds: seeds ?? settings.seeds };
}
