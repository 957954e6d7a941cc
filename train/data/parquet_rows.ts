/**
 * Rows of a Parquet file, one row group in memory at a time.
 * @module
 */
import {
  type AsyncBuffer,
  type ColumnMetaData,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
  type RowGroup,
  type SchemaTree,
} from "hyparquet";
import {
  getMaxDefinitionLevel,
  getMaxRepetitionLevel,
  getTreePath,
  isFlatColumn,
} from "hyparquet/src/schema.js";
import { DataError } from "./errors.ts";
import { fileSize, withPath } from "./file_bytes.ts";
import { PARQUET_CODECS } from "./parquet_codecs.ts";
import { ParquetCursor } from "./parquet_cursor.ts";
import { checkPages, ParquetBudget, type ParquetColumn } from "./parquet_pages.ts";
import { readThrift } from "./parquet_thrift.ts";

/** Largest row group, unpacked: it is held as JavaScript values, which take several times that. */
const MAX_GROUP_BYTES = 2 ** 30;
/** The decoder looks for each column among all. */
const MAX_COLUMNS = 4096;
/** Kinds of values that the decoder makes more of than JSON holds; a small one can unfold without end. */
const REFUSED_KINDS = ["VARIANT", "GEOMETRY", "GEOGRAPHY"];
const MAGIC = "PAR1";
/** The footer's length, and the magic number. */
const FOOTER_END_BYTES = 8;
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
  const fileBytes = await fileSize(path);
  const handle = await withPath(path, () => Deno.open(path));
  try {
    const file = bufferOf(handle, fileBytes);
    const metadata = await readMetadata(file, path);
    const budget = new ParquetBudget(fileBytes);
    let start = 0;
    for (const group of metadata.row_groups) {
      yield* await readGroup({ path, file, metadata, group, start, budget });
      start += Number(group.num_rows);
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
  return await parquet(path, "its footer", async () => {
    const end = file.byteLength - FOOTER_END_BYTES;
    const length = new DataView(await file.slice(end, end + 4)).getUint32(0, true);
    // The decoder makes lists of the length that they claim.
    readThrift(new ParquetCursor(new Uint8Array(await file.slice(Math.max(0, end - length), end))));
    const metadata = await parquetMetadataAsync(file, { geoparquet: false });
    checkColumns(metadata);
    return metadata;
  });
}

/**
 * Every row group has each leaf of the schema once, in order, as the format demands. The reader starts all columns at once;
 * one that the schema does not have, or has twice, would let another's error escape it and end the process.
 */
function checkColumns(metadata: FileMetaData): void {
  const kind = metadata.schema.find(({ logical_type }) => REFUSED_KINDS.includes(logical_type?.type ?? ""));
  if (kind) throw new Error(`a column of kind ${kind.logical_type!.type}, which is not read`);
  const leaves = leavesOf(parquetSchema(metadata));
  if (leaves.length > MAX_COLUMNS) throw new Error(`${leaves.length} columns, more than ${MAX_COLUMNS}`);
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

interface Group {
  readonly path: string;
  readonly file: AsyncBuffer;
  readonly metadata: FileMetaData;
  readonly group: RowGroup;
  /** Its first row, of the file's. */
  readonly start: number;
  readonly budget: ParquetBudget;
}

async function readGroup(context: Group): Promise<Record<string, unknown>[]> {
  const { path, file, metadata, group, start } = context;
  const [rows, sizeBytes] = [Number(group.num_rows), Number(group.total_byte_size)];
  if (sizeBytes > MAX_GROUP_BYTES) {
    throw new DataError(
      `Cannot read ${path}: expected row groups of at most ${MAX_GROUP_BYTES} bytes, found ${sizeBytes}; ` +
        "write it with smaller ones",
    );
  }
  if (rows === 0) return [];
  return await parquet(path, `rows ${start} to ${start + rows - 1}`, async () => {
    await checkGroup(context);
    // Alone, as the decoder goes through all that it is given.
    const alone = { ...metadata, row_groups: [group], num_rows: group.num_rows };
    const read = await parquetReadObjects({
      file,
      metadata: alone,
      rowEnd: rows,
      compressors: PARQUET_CODECS,
    });
    return read.map((row) => jsonValue(row) as Record<string, unknown>);
  });
}

/** Checks each column, one in memory at a time. */
async function checkGroup({ file, metadata, group, budget }: Group): Promise<void> {
  const rows = Number(group.num_rows);
  budget.take(rows, 0);
  const tree = parquetSchema(metadata);
  for (const { meta_data } of group.columns) {
    const { dictionary_page_offset, data_page_offset, total_compressed_size } = meta_data!;
    const start = Number(dictionary_page_offset || data_page_offset);
    const end = start + Number(total_compressed_size);
    if (!(start >= 0 && end >= start && end <= file.byteLength)) {
      throw new Error(`a column at bytes ${start} to ${end}`);
    }
    const bytes = new Uint8Array(await file.slice(start, end));
    checkPages(bytes, columnOf(tree, meta_data!), { rows, budget });
  }
}

function columnOf(tree: SchemaTree, { type, codec, path_in_schema }: ColumnMetaData): ParquetColumn {
  const path = getTreePath(tree, path_in_schema);
  return {
    ...{ type, codec, valueBytes: path.at(-1)!.element.type_length, isFlat: isFlatColumn(path) },
    levels: { repetition: getMaxRepetitionLevel(path), definition: getMaxDefinitionLevel(path) },
  };
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
