/**
 * The error of everything that reads or encodes data, and the way it names where a record came from.
 * @module
 */
import { InputError } from "../errors.ts";

/** Where a record stands: a line (from 1) of a file of lines, or an index (from 0) into a file's array. */
export interface RecordSource {
  /** The path as the user gave it, or the name of a generated data set. */
  file: string;
  /** Line number, from 1, in a `.jsonl` file. */
  line?: number;
  /** Index, from 0, in a `.json` array or a generated data set. */
  index?: number;
}

/**
 * Data that cannot be used: a file that is missing or malformed, a record of the wrong form, a text too long. The
 * message names the file, and the line or index and key where there is one.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { readPreferences } from "./preference_files.ts";
 *
 * await assert.rejects(readPreferences("no/such.jsonl"), DataError);
 * ```
 */
export class DataError extends InputError {
  /** Always `DataError`. */
  override name = "DataError";
}

/**
 * A source as text, as editors and JSON tools write it.
 *
 * @param source a record's place
 * @returns `file:line`, `file[index]`, or the file alone
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(formatSource({ file: "a.jsonl", line: 3 }), "a.jsonl:3");
 * assert.equal(formatSource({ file: "a.json", index: 0 }), "a.json[0]");
 * ```
 */
export function formatSource(source: RecordSource): string {
  if (source.line !== undefined) return `${source.file}:${source.line}`;
  if (source.index !== undefined) return `${source.file}[${source.index}]`;
  return source.file;
}

/** Keys of a record that a message names, and characters of each: a damaged file may have any number of either. */
const [MAX_KEYS, MAX_KEY_LENGTH] = [8, 40];

/**
 * Keys as a message names them.
 *
 * @param keys of a record
 * @returns the first few in quotes, none longer than a line holds
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(quoteKeys(["prompt", "x".repeat(1000)]), `"prompt", "${"x".repeat(40)}..."`);
 * ```
 */
export function quoteKeys(keys: readonly string[]): string {
  const quoted = keys.slice(0, MAX_KEYS).map((key) =>
    key.length > MAX_KEY_LENGTH ? `"${key.slice(0, MAX_KEY_LENGTH)}..."` : `"${key}"`
  );
  return quoted.join(", ") + (keys.length > MAX_KEYS ? ` and ${keys.length - MAX_KEYS} more` : "");
}
