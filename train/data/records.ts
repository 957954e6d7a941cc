/**
 * Preference records from rows, all in one form, with a count of what was left out and why.
 * @module
 */
import { type ColumnOptions, createColumnReader, type PairColumns } from "./columns.ts";
import type { ConversationRecord } from "./conversations.ts";
import { DataError, formatSource, type RecordSource } from "./errors.ts";
import {
  detectForm,
  normalizeRecord,
  type PreferenceRecord,
  type RecordForm,
  type SkipReason,
} from "./forms.ts";
import type { Row } from "./rows.ts";

export { instructionPrompt, transcriptPrompt } from "./forms.ts";
export type { ColumnOptions, PairColumns } from "./columns.ts";
export type { ConversationForm, ConversationRecord } from "./conversations.ts";
export type { PreferenceRecord, RecordForm, SkipReason } from "./forms.ts";

/** What a data file held. */
export interface PreferenceData {
  /** The usable records, in file order; at least one. */
  records: (PreferenceRecord | ConversationRecord)[];
  /** The form of every record of the file. */
  form: RecordForm;
  /** How many records were left out, by reason; every reason is a key. */
  skipped: Record<SkipReason, number>;
  /** For each reason that occurred, the first record left out for it. */
  firstSkipped: Partial<Record<SkipReason, RecordSource>>;
  /** What every record has besides its texts. */
  columns: (keyof PairColumns)[];
}

/**
 * Bring rows from any source into preference records, all of one form: the first decides it; data of several is
 * refused, since a record that merely lost its prompt would otherwise pass for a transcript.
 *
 * @param rows parsed objects with their places
 * @param name the data's name, for the errors that concern no single record
 * @param options which columns are read beside the texts
 * @returns the records, and what was left out
 * @throws {DataError} a record of another form or with a key of the wrong type, or no usable record at all
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const source = { file: "mine", index: 0 };
 * const rows = [{ value: { prompt: "Q:", chosen: " yes", rejected: " no" }, source }];
 * const { records, form } = await collectPreferences(rows, "mine");
 * assert.equal(form, "prompt");
 * assert.deepEqual(records, [{ prompt: "Q:", chosen: " yes", rejected: " no", source }]);
 * ```
 */
export async function collectPreferences(
  rows: AsyncIterable<Row> | Iterable<Row>,
  name: string,
  options: ColumnOptions = {},
): Promise<PreferenceData> {
  const readColumns = createColumnReader(options);
  const records: PreferenceData["records"] = [];
  const skipped: PreferenceData["skipped"] = {
    missingChosen: 0,
    missingRejected: 0,
    identical: 0,
    emptyCompletion: 0,
    emptyPrompt: 0,
    noCommonPrompt: 0,
    laterTurn: 0,
  };
  const firstSkipped: PreferenceData["firstSkipped"] = {};
  let present: (keyof PairColumns)[] | undefined;
  let first: { form: RecordForm; source: RecordSource } | undefined;
  for await (const row of rows) {
    const form = detectForm(row);
    first ??= { form, source: row.source };
    if (form !== first.form) throw mixedForms(row, { found: form, first });
    const record = normalizeRecord(row, form);
    const columns = readColumns(row);
    present ??= Object.keys(columns) as (keyof PairColumns)[];
    if (typeof record === "string") {
      skipped[record]++;
      firstSkipped[record] ??= row.source;
    } else {
      records.push({ ...record, ...columns });
    }
  }
  if (first === undefined) throw new DataError(`Cannot use ${name}: expected records, found none`);
  if (records.length === 0) {
    throw new DataError(`Cannot use ${name}: expected a usable record, found only ${formatSkipped(skipped)}`);
  }
  return { records, form: first.form, skipped, firstSkipped, columns: present ?? [] };
}

function mixedForms(
  row: Row,
  forms: { found: RecordForm; first: { form: RecordForm; source: RecordSource } },
): DataError {
  const { found, first } = forms;
  return new DataError(
    `Cannot read ${formatSource(row.source)}: expected the form "${first.form}" as in ${
      formatSource(first.source)
    }, ` +
      `found the form "${found}"`,
  );
}

/**
 * The counts that are not zero, as text for a log line or an error.
 *
 * @param counts a count per reason
 * @returns for example `6 identical, 1 missingChosen`; `nothing` when all are zero
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(formatSkipped({ identical: 6, laterTurn: 0 }), "6 identical");
 * ```
 */
export function formatSkipped(counts: Readonly<Record<string, number>>): string {
  const parts = Object.entries(counts).filter(([, count]) => count > 0).map(([reason, count]) =>
    `${count} ${reason}`
  );
  return parts.join(", ") || "nothing";
}
