/**
 * Records of one completion each from a file, for supervised fine-tuning: completions, dialogues, texts, or the chosen
 * answers of preferences.
 * @module
 */
import {
  type CompletionForm,
  type CompletionOptions,
  type CompletionRecord,
  detectCompletionForm,
  normalizeCompletion,
  sideOf,
} from "./completion_records.ts";
import { DataError, formatSource, quoteKeys, type RecordSource } from "./errors.ts";
import type { RecordForm } from "./forms.ts";
import { readRows } from "./readers.ts";
import type { Row } from "./rows.ts";
import { formatSkipped } from "./records.ts";
import { readPreferences } from "./preference_files.ts";

/** What a data file held. */
export interface CompletionData {
  /** The usable records, in file order; at least one. */
  records: CompletionRecord[];
  /** The form of every record of the file. */
  form: CompletionForm | RecordForm;
  /** How many were left out, by reason. */
  skipped: Record<string, number>;
  /** For each reason, the first record left out for it. */
  firstSkipped: Record<string, RecordSource>;
}

/**
 * Read records of one completion each. The first record decides the form; a file of several is refused. Of preferences
 * the chosen answers are taken; labelled answers are refused, since bad ones would be learnt like good ones.
 *
 * @param path a file of any kind that `readRows` reads
 * @param options which turns of a dialogue are learnt
 * @returns the records, and what was left out
 * @throws {DataError} a file that cannot be read, a record of another form or with a key of the wrong type, or no usable
 *   record at all
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const path = await Deno.makeTempFile({ suffix: ".jsonl" });
 * await Deno.writeTextFile(path, '{"prompt": "1+1=", "completion": "2"}\n{"prompt": "1+2=", "completion": ""}\n');
 * const { records, form, skipped } = await readCompletions(path);
 * assert.deepEqual([records.length, form, skipped], [1, "completion", { emptyCompletion: 1 }]);
 * await Deno.remove(path);
 * ```
 */
export async function readCompletions(
  path: string,
  options: CompletionOptions = {},
): Promise<CompletionData> {
  const records: CompletionRecord[] = [];
  const skipped: Record<string, number> = {};
  const firstSkipped: CompletionData["firstSkipped"] = {};
  let first: { form: CompletionForm; row: Row } | undefined;
  for await (const row of readRows(path)) {
    const form = detectCompletionForm(row.value);
    if (first === undefined && isPreference(row)) return await readChosen(path);
    if (form === undefined || form === "labelled" || (first && first.form !== form)) {
      throw otherForm(row, form, first);
    }
    first ??= { form, row };
    const record = normalizeCompletion(row, form, options);
    if (typeof record === "string") {
      skipped[record] = (skipped[record] ?? 0) + 1;
      firstSkipped[record] ??= row.source;
    } else records.push(record);
  }
  if (records.length > 0) return { records, form: first!.form, skipped, firstSkipped };
  throw new DataError(`Cannot use ${path}: expected a usable record, found only ${formatSkipped(skipped)}`);
}

/**
 * Whether a file holds preferences: told from its first record.
 *
 * @param path a file of any kind that `readRows` reads
 * @throws {DataError} a file that cannot be read
 */
export async function holdsPreferences(path: string): Promise<boolean> {
  for await (const row of readRows(path)) return isPreference(row);
  return false;
}

function isPreference({ value }: Row): boolean {
  return detectCompletionForm(value) === undefined &&
    (Object.hasOwn(value, "chosen") || Object.hasOwn(value, "rejected"));
}

async function readChosen(path: string): Promise<CompletionData> {
  const { records, ...rest } = await readPreferences(path);
  const chosen = records.map((record) => {
    const { desirable: _, ...side } = sideOf(record, true);
    return side;
  });
  return { ...rest, records: chosen };
}

function otherForm(
  row: Row,
  form: CompletionForm | undefined,
  first: { form: CompletionForm; row: Row } | undefined,
): DataError {
  const where = formatSource(row.source);
  const found = form === undefined ? "none that has a completion" : `the form "${form}"`;
  if (form === "labelled") {
    return new DataError(
      `Cannot read ${where}: expected completions that are all good ones, found labelled answers, which are for kto`,
    );
  }
  if (first === undefined) {
    const keys = quoteKeys(Object.keys(row.value)) || "no keys";
    return new DataError(
      `Cannot read ${where}: expected "prompt" and "completion", "messages", "conversations", "instruction" and ` +
        `"output", "question" and "answer", "text", or a preference, found ${keys}`,
    );
  }
  return new DataError(
    `Cannot read ${where}: expected the form "${first.form}" as in ${
      formatSource(first.row.source)
    }, found ${found}`,
  );
}
