/**
 * Answers that are good or bad each by itself, from a file of labelled answers or of preferences.
 * @module
 */
import {
  type CompletionRecord,
  detectCompletionForm,
  normalizeCompletion,
  unpairRecords,
} from "./completion_records.ts";
import { DataError, formatSource, type RecordSource } from "./errors.ts";
import type { RecordForm } from "./forms.ts";
import { readRows } from "./readers.ts";
import { readPreferences } from "./preference_files.ts";

/** What a data file held. */
export interface LabelledData {
  /** The usable records; of preferences all chosen answers, then all rejected ones. */
  records: (CompletionRecord & { desirable: boolean })[];
  /** The form of every record of the file. */
  form: "labelled" | RecordForm;
  /** How many were left out, by reason; of preferences, whole pairs. */
  skipped: Record<string, number>;
  /** For each reason, the first record left out for it. */
  firstSkipped: Record<string, RecordSource>;
}

/**
 * Read labelled answers, `{prompt, completion, label}`; of a file of preferences both answers, as TRL does for KTO.
 *
 * @param path a file of any kind that `readRows` reads
 * @returns the records, and what was left out
 * @throws {DataError} a file that cannot be read, a record of another form or with a key of the wrong type, or no usable
 *   record at all
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const path = await Deno.makeTempFile({ suffix: ".jsonl" });
 * await Deno.writeTextFile(path, '{"prompt": "Q:", "chosen": " yes", "rejected": " no"}\n');
 * const { records } = await readLabelled(path);
 * assert.deepEqual(records.map(({ completion, desirable }) => [completion, desirable]), [[" yes", true], [" no", false]]);
 * await Deno.remove(path);
 * ```
 */
export async function readLabelled(path: string): Promise<LabelledData> {
  const records: LabelledData["records"] = [];
  const skipped: LabelledData["skipped"] = {};
  const firstSkipped: LabelledData["firstSkipped"] = {};
  for await (const row of readRows(path)) {
    const form = detectCompletionForm(row.value);
    if (form === undefined && records.length === 0 && Object.keys(skipped).length === 0) {
      const preferences = await readPreferences(path);
      return {
        records: unpairRecords(preferences.records) as LabelledData["records"],
        form: preferences.form,
        skipped: preferences.skipped,
        firstSkipped: preferences.firstSkipped,
      };
    }
    if (form !== "labelled") {
      throw new DataError(
        `Cannot read ${formatSource(row.source)}: expected {prompt, completion, label}, found ${
          form === undefined ? "a preference" : `the form "${form}", which has no label`
        }`,
      );
    }
    const record = normalizeCompletion(row, form);
    if (typeof record === "string") {
      skipped[record] = (skipped[record] ?? 0) + 1;
      firstSkipped[record] ??= row.source;
    } else records.push(record as LabelledData["records"][number]);
  }
  if (records.length === 0) {
    throw new DataError(`Cannot use ${path}: expected a usable labelled answer, found none`);
  }
  return { records, form: "labelled", skipped, firstSkipped };
}
