/**
 * Rows of a Parquet file, one row group in memory at a time.
 * @module
 */
import {
  type AsyncBuffer,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
  type SchemaTree,
} from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { DataError } from "./errors.ts";
import { fileSize, withPath } from "./file_bytes.ts";

/** Largest row group, unpacked: it is held as JavaScript values, which take several times that. */
const MAX_GROUP_BYTES = 2 ** 30;
const MAGIC = "PAR1";
/** Magic number at both ends, and the length of the footer. */
const MIN_BYTES = 12;

/**
 * Read the rows of a Parquet file in order, as JSON would hold them: structs as objects, lists as arrays, integers as
 * numbers where they are exact. Every compression that Parquet has in use is read.
 *
 * @param path the file
 * @returns the rows
 * @throws {DataError} a file that is no Parquet file or is damaged, naming the rows; a row group too large to hold
 */
export async function* readParquetRows(path: string): AsyncGenerator<Record<string, unknown>, void> {
  const sizeBytes = await fileSize(path);
  const handle = await withPath(path, () => Deno.open(path));
  try {
    const file = bufferOf(handle, sizeBytes);
    const metadata = await readMetadata(file, path);
    await parquet(path, "its footer", () => Promise.resolve(checkColumns(metadata)));
    let start = 0;
    for (const group of metadata.row_groups) {
      const end = start + Number(group.num_rows);
      yield* await readGroup(file, { path, metadata, start, end, sizeBytes: Number(group.total_byte_size) });
      start = end;
    }
  } finally {
    handle.close();
  }
}

function bufferOf(handle: Deno.FsFile, byteLength: number): AsyncBuffer {
  return {
    byteLength,
    // Seek and read are synchronous: the reader asks for several ranges at once, and they share one position.
    // deno-lint-ignore require-await -- an error must be a rejection, which the reader waits for beside its others
    async slice(start, end = byteLength) {
      const bytes = new Uint8Array(Math.max(0, Math.min(end, byteLength) - start));
      handle.seekSync(start, Deno.SeekMode.Start);
      for (let done = 0; done < bytes.length;) {
        const count = handle.readSync(bytes.subarray(done));
        if (count === null) throw new Error(`end of the file at byte ${start + done}`);
        done += count;
      }
      return bytes.buffer;
    },
  };
}

async function readMetadata(file: AsyncBuffer, path: string): Promise<FileMetaData> {
  const magic = async (start: number) => new TextDecoder().decode(await file.slice(start, start + 4));
  const isParquet = file.byteLength >= MIN_BYTES &&
    await magic(0) === MAGIC && await magic(file.byteLength - 4) === MAGIC;
  if (!isParquet) {
    throw new DataError(
      `Cannot read ${path}: expected a Parquet file, whole and not encrypted, found other bytes`,
    );
  }
  return await parquet(path, "its footer", () => parquetMetadataAsync(file));
}

/**
 * Every row group has each leaf of the schema once, in order, as the format demands. The reader starts all columns at once;
 * one that the schema does not have, or has twice, would let another's error escape it and end the process.
 */
function checkColumns(metadata: FileMetaData): void {
  const leaves = leavesOf(parquetSchema(metadata));
  if (new Set(leaves).size < leaves.length) throw new Error("a column twice in the schema");
  for (const { columns } of metadata.row_groups) {
    const found = columns.map((column) => column.meta_data?.path_in_schema.join("."));
    if (found.length !== leaves.length || found.some((name, index) => name !== leaves[index])) {
      throw new Error("columns that are not the schema's");
    }
  }
}

function leavesOf({ children, path }: SchemaTree): string[] {
  return children.length === 0 ? [path.join(".")] : children.flatMap(leavesOf);
}

async function readGroup(
  file: AsyncBuffer,
  group: { path: string; metadata: FileMetaData; start: number; end: number; sizeBytes: number },
): Promise<Record<string, unknown>[]> {
  const { path, metadata, start: rowStart, end: rowEnd, sizeBytes } = group;
  if (sizeBytes > MAX_GROUP_BYTES) {
    throw new DataError(
      `Cannot read ${path}: expected row groups of at most ${MAX_GROUP_BYTES} bytes, found ${sizeBytes}; ` +
        "write it with smaller ones",
    );
  }
  const where = `rows ${rowStart} to ${rowEnd - 1}`;
  const rows = await parquet(
    path,
    where,
    () => parquetReadObjects({ file, metadata, rowStart, rowEnd, compressors }),
  );
  // A damaged page may hold fewer values than its footer says; what is missing would read as null.
  if (rows.length !== rowEnd - rowStart) {
    throw new DataError(`Cannot read ${path}: expected ${where}, found ${rows.length} rows`);
  }
  return rows.map((row) => jsonValue(row) as Record<string, unknown>);
}

async function parquet<T>(path: string, where: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    const found = String((cause as Error).message).split("\n", 1)[0];
    throw new DataError(
      `Cannot read ${path}: expected a whole Parquet file, found damage in ${where}: ${found}`,
      {
        cause,
      },
    );
  }
}

/** Integers of 64 bits come as BigInt, and dates as objects. */
function jsonValue(value: unknown): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : String(value);
  }
  if (value === undefined || value === null) return null;
  if (value instanceof Date) return value.toISOString();
  if (ArrayBuffer.isView(value)) return value;
  if (Array.isArray(value)) return value.map(jsonValue);
  if (typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, jsonValue(inner)]));
}
