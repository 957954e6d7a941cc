/**
 * Everything that a run logs its metrics to.
 * @module
 */
import { join } from "node:path";
import type { MetricsRecord } from "../metrics.ts";
import { combineSinks, type MetricsSink } from "../metrics_sink.ts";
import { parseMetrics } from "../report/read_run.ts";
import { openMetrics } from "../run_folder.ts";
import { CSV_FILE, openCsv } from "./csv.ts";
import { openTensorBoard, TENSORBOARD_FOLDER } from "./tensorboard.ts";

/** Its lines are what all else of a run's metrics follows from. */
export const METRICS_FILE = "metrics.jsonl";

/** Names in a run's folder. */
export const LOG_ENTRIES = [METRICS_FILE, CSV_FILE, TENSORBOARD_FOLDER];

/** What is written of a run's metrics besides metrics.jsonl. */
export interface RunLogOptions {
  readonly csv: boolean;
  readonly tensorboard: boolean;
  /** Whether steps are counted anew in each phase. */
  readonly isByPhase: boolean;
  /** Of a run that goes on: what stays of metrics.jsonl. */
  readonly keepBytes?: number;
}

/** A run's metrics files as one. */
export interface RunLogs extends MetricsSink {
  /** The record that was logged last; of a run that goes on, also one that was kept. */
  readonly last?: MetricsRecord;
  /**
   * Waits until every record is on the disk in each of them.
   *
   * @returns the length of metrics.jsonl
   */
  flush(): number;
}

/**
 * Opens a run's metrics files.
 *
 * @param folder of the run, which must exist
 * @param options which
 * @throws {InputError} naming the file that cannot be written
 */
export function openRunLogs(folder: string, options: RunLogOptions): RunLogs {
  using stack = new DisposableStack();
  const metricsFile = join(folder, METRICS_FILE);
  const { csv, tensorboard, keepBytes, isByPhase } = options;
  const lines = stack.use(openMetrics(metricsFile, { keepBytes }));
  let last = keepBytes === undefined ? undefined : lastRecord(metricsFile);
  const sinks: MetricsSink[] = [lines];
  if (csv) sinks.push(stack.use(openCsv(join(folder, CSV_FILE), { metricsFile })));
  if (tensorboard) {
    const resumedAfter = keepBytes === undefined ? undefined : Number(last?.global_step ?? 0);
    const events = openTensorBoard(join(folder, TENSORBOARD_FOLDER), { isByPhase, resumedAfter });
    sinks.push(stack.use(events));
  }
  stack.move();
  const all = combineSinks(sinks);
  return {
    ...all,
    get last() {
      return last;
    },
    append(record) {
      all.append(record);
      last = record;
    },
    flush() {
      all.flush();
      return lines.flush();
    },
  };
}

function lastRecord(metricsFile: string): MetricsRecord | undefined {
  return parseMetrics(Deno.readTextFileSync(metricsFile), metricsFile).at(-1);
}
