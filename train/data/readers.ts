/**
 * Rows of a data file: the records of a `.json` array, of a `.jsonl` file line by line, either packed by gzip, or of a
 * `.parquet` file, each with its place. Nothing is known here of what a record means.
 * @module
 */
import { DataError, formatSource, quoteKeys, type RecordSource } from "./errors.ts";
import { type FileKind, fileKind, fileSize, readChunks } from "./file_bytes.ts";
import { findJsonError } from "./json_position.ts";
import { readParquetRows } from "./parquet_rows.ts";
import type { Row } from "./rows.ts";

/** Longest `.json` file, and longest line, read whole: a JavaScript string holds little more. */
const MAX_TEXT_BYTES = 2 ** 29 - 25;
const NEWLINE = 0x0a;

/**
 * Read the rows of a data file in order. A `.json` file is one array of objects; a `.jsonl` file holds one object per
 * line and is streamed, never held whole. Byte order marks, CRLF and blank lines are accepted. Both may be packed by gzip,
 * with `.gz` at the end of the name. A `.parquet` file is read row group by row group, a row's columns as its keys.
 *
 * @param path a `.json`, `.jsonl`, `.json.gz`, `.jsonl.gz` or `.parquet` file
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
  const kind = fileKind(path);
  if (await fileSize(path) === 0) {
    throw new DataError(`Cannot read ${path}: expected records, found an empty file`);
  }
  let rowCount = 0;
  for await (const row of rowsOf(path, kind)) {
    rowCount++;
    yield row;
  }
  if (rowCount === 0) throw new DataError(`Cannot read ${path}: expected records, found none`);
}

function rowsOf(path: string, { format, isGzip }: FileKind): AsyncGenerator<Row, void> {
  if (format === "parquet") return readTable(path);
  const chunks = readChunks(path, { isGzip });
  return format === "json" ? readArray(path, chunks) : readLines(path, chunks);
}

async function* readTable(path: string): AsyncGenerator<Row, void> {
  let index = 0;
  for await (const value of readParquetRows(path)) yield { value, source: { file: path, index: index++ } };
}

async function* readArray(path: string, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Row, void> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of chunks) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_TEXT_BYTES) {
      throw new DataError(
        `Cannot read ${path}: expected at most ${MAX_TEXT_BYTES} bytes of .json, found more; use .jsonl`,
      );
    }
    parts.push(chunk);
  }
  const text = decodeUtf8(concatenate(parts), path);
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

async function* readLines(path: string, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Row, void> {
  let line = 0;
  for await (const bytes of splitLines(path, chunks)) {
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
async function* splitLines(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void> {
  let pending: Uint8Array[] = [];
  let [pendingBytes, line] = [0, 1];
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield concatenate([...pending, chunk.subarray(start, end)]);
      line++;
      [pending, pendingBytes] = [[], 0];
      start = end + 1;
    }
    if (start < chunk.length) pending.push(chunk.subarray(start));
    pendingBytes += chunk.length - start;
    if (pendingBytes > MAX_TEXT_BYTES) {
      throw new DataError(
        `Cannot read ${path}:${line}: expected a line of at most ${MAX_TEXT_BYTES} bytes, found more`,
      );
    }
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
  return quoteKeys(Object.keys(value)) || "(none)";
}
