/**
 * Rows of a data file: the records of a `.json` array, or of a `.jsonl` file line by line, each with its place. Nothing
 * is known here of what a record means.
 * @module
 */
import { DataError, formatSource, type RecordSource } from "./errors.ts";
import { findJsonError } from "./json_position.ts";

/** One parsed JSON object of a data file, and where it stands. */
export interface Row {
  /** The object, its keys not looked at. */
  value: Record<string, unknown>;
  /** Where it stands. */
  source: RecordSource;
}

/** Longest `.json` file read whole: a JavaScript string holds little more. */
const MAX_JSON_BYTES = 2 ** 29 - 25;
const NEWLINE = 0x0a;

/**
 * Read the rows of a data file in order. A `.json` file is one array of objects; a `.jsonl` file holds one object per
 * line and is streamed, never held whole. Byte order marks, CRLF and blank lines are accepted.
 *
 * @param path a `.json` or `.jsonl` file
 * @returns the rows, at least one
 * @throws {DataError} a path that is missing, a directory or of another kind; text that is not UTF-8 or not JSON (with
 *   line and column); a row that is not an object; no rows at all
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const path = await Deno.makeTempFile({ suffix: ".jsonl" });
 * await Deno.writeTextFile(path, '{"prompt": "Q:", "chosen": " yes", "rejected": " no"}\n');
 * for await (const row of readRows(path)) assert.equal(row.source.line, 1);
 * await Deno.remove(path);
 * ```
 */
export async function* readRows(path: string): AsyncGenerator<Row, void> {
  const extension = path.match(/\.[^./\\]*$/)?.[0].toLowerCase() ?? "";
  if (extension !== ".json" && extension !== ".jsonl") {
    throw new DataError(
      `Cannot read ${path}: expected a .json or .jsonl file, found extension "${extension}"`,
    );
  }
  const sizeBytes = await fileSize(path);
  if (sizeBytes === 0) throw new DataError(`Cannot read ${path}: expected records, found an empty file`);
  let rowCount = 0;
  for await (const row of extension === ".json" ? readArray(path, sizeBytes) : readLines(path)) {
    rowCount++;
    yield row;
  }
  if (rowCount === 0) throw new DataError(`Cannot read ${path}: expected records, found none`);
}

async function fileSize(path: string): Promise<number> {
  const info = await withPath(path, () => Deno.stat(path));
  if (info.isDirectory) throw new DataError(`Cannot read ${path}: expected a file, found a directory`);
  return info.size;
}

async function withPath<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    const found = cause instanceof Deno.errors.NotFound ? "no such file" : (cause as Error).message;
    throw new DataError(`Cannot read ${path}: expected a readable file, found: ${found}`, { cause });
  }
}

async function* readArray(path: string, sizeBytes: number): AsyncGenerator<Row, void> {
  if (sizeBytes > MAX_JSON_BYTES) {
    throw new DataError(
      `Cannot read ${path}: expected at most ${MAX_JSON_BYTES} bytes of .json, found ${sizeBytes}; use .jsonl`,
    );
  }
  const text = decodeUtf8(await withPath(path, () => Deno.readFile(path)), path);
  if (text.trim() === "") {
    throw new DataError(`Cannot read ${path}: expected an array of records, found only blanks`);
  }
  const rows = parseJson(text, ({ line, column }) => `${path}:${line}:${column}`);
  if (!Array.isArray(rows)) {
    const hint = typeOf(rows) === "object" ? ` with keys ${quotedKeys(rows as Record<string, unknown>)}` : "";
    throw new DataError(`Cannot read ${path}: expected an array of records, found ${typeOf(rows)}${hint}`);
  }
  for (const [index, value] of rows.entries()) yield checkedRow(value, { file: path, index });
}

async function* readLines(path: string): AsyncGenerator<Row, void> {
  let line = 0;
  for await (const bytes of splitLines(path)) {
    line++;
    const source = { file: path, line };
    const text = decodeUtf8(bytes, formatSource(source));
    if (text.trim() === "") continue;
    if (text.trimStart().startsWith("[")) {
      throw new DataError(
        `Cannot read ${
          formatSource(source)
        }: expected one object per line, found an array; name the file .json`,
      );
    }
    yield checkedRow(parseJson(text, ({ column }) => `${formatSource(source)}:${column}`), source);
  }
}

/** Lines as bytes, so that a broken UTF-8 sequence can be blamed on its line. */
async function* splitLines(path: string): AsyncGenerator<Uint8Array, void> {
  const file = await withPath(path, () => Deno.open(path));
  let pending: Uint8Array[] = [];
  for await (const chunk of file.readable) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield concatenate([...pending, chunk.subarray(start, end)]);
      pending = [];
      start = end + 1;
    }
    if (start < chunk.length) pending.push(chunk.subarray(start));
  }
  if (pending.length > 0) yield concatenate(pending);
}

function concatenate(parts: Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0];
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new DataError(`Cannot read ${where}: expected UTF-8 text, found other bytes`, { cause });
  }
}

function parseJson(text: string, where: (position: { line: number; column: number }) => string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const error = findJsonError(text);
    if (error === undefined) throw cause;
    const isNextRecord = error.expected === "the end of the text" && error.found === '"{"';
    const hint = isNextRecord ? "; for one record per line, name the file .jsonl" : "";
    throw new DataError(
      `Cannot read ${where(error)}: malformed JSON: expected ${error.expected}, found ${error.found}${hint}`,
      { cause },
    );
  }
}

function checkedRow(value: unknown, source: RecordSource): Row {
  if (typeOf(value) !== "object") {
    throw new DataError(`Cannot read ${formatSource(source)}: expected an object, found ${typeOf(value)}`);
  }
  return { value: value as Record<string, unknown>, source };
}

function typeOf(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
}

function quotedKeys(value: Record<string, unknown>): string {
  return Object.keys(value).slice(0, 8).map((key) => `"${key}"`).join(", ") || "(none)";
}
