/**
 * Preference records from a file.
 * @module
 */
import type { ColumnOptions } from "./columns.ts";
import { readRows } from "./readers.ts";
import { collectPreferences, type PreferenceData } from "./records.ts";

/**
 * Read the preference records of a file of any kind that {@linkcode readRows} reads, by {@linkcode collectPreferences}.
 *
 * @param path the file
 * @param options which columns are read beside the texts
 * @returns the records, and what was left out
 * @throws {DataError} a file that cannot be read, a record of another form or with a key of the wrong type, or no
 *   usable record at all
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const path = await Deno.makeTempFile({ suffix: ".jsonl" });
 * await Deno.writeTextFile(path, '{"prompt": "Q:", "chosen": " yes", "rejected": " no"}\n{"prompt": "Q:", "chosen": " yes"}\n');
 * const { records, skipped } = await readPreferences(path);
 * assert.equal(records.length, 1);
 * assert.equal(skipped.missingRejected, 1);
 * await Deno.remove(path);
 * ```
 */
export async function readPreferences(path: string, options: ColumnOptions = {}): Promise<PreferenceData> {
  return await collectPreferences(readRows(path), path, options);
}
