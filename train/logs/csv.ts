/**
 * A run's metrics as a table of comma-separated values, RFC 4180: the same records as metrics.jsonl.
 * @module
 */
import type { MetricsRecord } from "../metrics.ts";
import type { MetricsSink } from "../metrics_sink.ts";
import { parseMetrics } from "../report/read_run.ts";
import { type AppendedFile, openAppended } from "../run_folder.ts";
import { cannotWrite } from "../write_error.ts";

/** The table's name in a run's folder. */
export const CSV_FILE = "metrics.csv";

/**
 * Writes a row per record and a column per metric, the columns in the order in which metrics first appear. A record that
 * brings new ones (held-out metrics, or another phase's) has the table written again with these at the right; cells of
 * metrics that a record has not are empty. So the table always is that of metrics.jsonl.
 *
 * @param path of the table; replaced where it exists
 * @param options.metricsFile a metrics.jsonl, which has each record before this sink is told of it
 * @returns the sink; each row is with the system before `append` returns
 * @throws {InputError} naming the file that cannot be written, or the line of metrics.jsonl that is no record
 * @example
 * ```ts
 * const folder = await Deno.makeTempDir();
 * const [path, metricsFile] = [`${folder}/metrics.csv`, `${folder}/metrics.jsonl`];
 * await Deno.writeTextFile(metricsFile, '{"global_step":1,"loss":0.5}\n{"global_step":2,"loss":0.25}\n');
 * using _sink = openCsv(path, { metricsFile });
 * if (await Deno.readTextFile(path) !== "global_step,loss\r\n1,0.5\r\n2,0.25\r\n") throw new Error("the same records");
 * ```
 */
export function openCsv(path: string, { metricsFile }: { metricsFile: string }): MetricsSink {
  let columns: ReadonlySet<string> = new Set();
  let file: AppendedFile | undefined;
  const writeAll = () => {
    const records = parseMetrics(readText(metricsFile), metricsFile);
    columns = new Set(records.flatMap((record) => Object.keys(record)));
    // Windows renames over no open file.
    file?.close();
    replaceFile(
      path,
      encode([...(columns.size ? [[...columns]] : []), ...records.map((record) => cells(record, columns))]),
    );
    file = openAppended(path);
  };
  writeAll();
  const close = () => file?.close();
  return {
    append(record) {
      if (Object.keys(record).every((name) => columns.has(name))) {
        file!.append(encode([cells(record, columns)]));
      } else writeAll();
    },
    flush: () => void file!.flush(),
    close,
    [Symbol.dispose]: close,
  };
}

function cells(record: MetricsRecord, columns: ReadonlySet<string>): string[] {
  return Array.from(columns, (name) => String(record[name] ?? ""));
}

function encode(rows: readonly (readonly string[])[]): Uint8Array {
  return new TextEncoder().encode(rows.map((row) => `${row.map(quoted).join(",")}\r\n`).join(""));
}

function quoted(cell: string): string {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

/** As `writeFileAtomically`, which waits: records are taken without waiting. */
function replaceFile(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.${Deno.pid}.partial`;
  try {
    Deno.writeFileSync(temporary, bytes);
    Deno.renameSync(temporary, path);
  } catch (cause) {
    try {
      Deno.removeSync(temporary);
    } catch {
      // That it cannot be removed either, or was never made, only follows from the first error.
    }
    throw cannotWrite(path, cause);
  }
}
