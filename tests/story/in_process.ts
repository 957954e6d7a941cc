/**
 * `train` without a process or a device of its own: for tests of many runs.
 *
 * @module
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { parseCommandLine } from "../../train/command_line.ts";
import { effectiveSettings, parseRunConfig } from "../../train/config.ts";
import { loadRun, runTraining } from "../../train/run.ts";
import { readRunData } from "../../train/run_data.ts";
import { writeRunConfig } from "../../train/run_folder.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import type { SftResult } from "../../train/run_completions.ts";
import type { PhaseResult, Session } from "../../train/session.ts";

/** What a run left. */
export interface FinishedRun {
  /** Lines of metrics.jsonl. */
  readonly records: readonly MetricsRecord[];
  /** Of results.json. */
  readonly results: readonly (PhaseResult | SftResult)[];
  /** What it said. */
  readonly log: string;
  /** Of config.json: given back, the same run. */
  readonly config: Readonly<Record<string, unknown>>;
}

/**
 * Does what `deno task train` does with these flags, on a device that is open.
 *
 * @param gpu The shared test device.
 * @param argv Flags, `--output` among them.
 */
export async function trainInProcess(gpu: Gpu, argv: readonly string[]): Promise<FinishedRun> {
  const invocation = parseCommandLine(["train", ...argv]);
  if (invocation.help) throw new TypeError("Cannot train: expected flags of a run, found a request for help");
  const config = parseRunConfig(invocation.raw, invocation.source);
  const [log, records]: [string[], MetricsRecord[]] = [[], []];
  const folder = config.output!;
  const session: Session = {
    ...{ gpu, folder, log: (line) => void log.push(line) },
    metrics: {
      flush: () => 0,
      append: (record) => void records.push(record as MetricsRecord),
      close() {},
      [Symbol.dispose]() {},
    },
    progress: () => ({ update() {}, finish() {} }),
  };
  using prepared = await loadRun(gpu, await readRunData(config, session));
  await mkdir(folder, { recursive: true });
  const settings = effectiveSettings(config);
  await writeRunConfig(folder, settings);
  const results = await runTraining(session, prepared, {
    cacheFolder: join(folder, "..", "reference-logps"),
  });
  return { records, results, log: log.join("\n"), config: settings };
}
