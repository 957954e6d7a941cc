/**
 * Checks the pages of a Parquet column before they are decoded. The decoder believes what a page says of itself: a run of
 * two thousand million values, a block that begins where the last one did, a page of no size would keep it busy without
 * end. What passes here it decodes in time and memory in proportion to the file.
 * @module
 */
import type { CompressionCodec, ParquetType } from "hyparquet";
import { deltaBinaryUnpack } from "hyparquet/src/delta.js";
import { PARQUET_CODECS } from "./parquet_codecs.ts";
import { ParquetCursor } from "./parquet_cursor.ts";
import { walkDeltas, walkRuns } from "./parquet_runs.ts";
import { readThrift, type ThriftStruct } from "./parquet_thrift.ts";

/** What a file of some bytes may hold. Real ones hold less by far; what more would take is memory and time. */
const [FREE_VALUES, VALUES_PER_BYTE] = [2 ** 21, 16];
const [FREE_BYTES, UNPACKED_PER_BYTE] = [2 ** 26, 1000];

/** What is left of that which a file may hold. */
export class ParquetBudget {
  #values: number;
  #bytes: number;

  /** @param fileBytes size of the file */
  constructor(private readonly fileBytes: number) {
    this.#values = FREE_VALUES + VALUES_PER_BYTE * fileBytes;
    this.#bytes = FREE_BYTES + UNPACKED_PER_BYTE * fileBytes;
  }

  /**
   * @param values rows, or values of a column
   * @param bytes unpacked
   * @throws {Error} when that is more than is left
   */
  take(values: number, bytes: number): void {
    this.#values -= values;
    this.#bytes -= bytes;
    if (!(this.#values >= 0 && this.#bytes >= 0)) {
      const what = this.#values >= 0 ? `${bytes} more bytes` : `${values} more values`;
      throw new Error(`${what}, which a file of ${this.fileBytes} bytes is not to hold`);
    }
  }
}

/** A column, as the footer has it. */
export interface ParquetColumn {
  readonly type: ParquetType;
  readonly codec: CompressionCodec;
  /** Bytes of a value where all have as many. */
  readonly valueBytes?: number;
  /** The largest that occur; 0 where a page holds none. */
  readonly levels: { readonly repetition: number; readonly definition: number };
  /** Whether a row is one value or null. */
  readonly isFlat: boolean;
}

const PAGE = { data: 0, dictionary: 2, data2: 3 } as const;
const ENCODING = {
  ...{ plain: 0, plainDictionary: 2, runs: 3, deltas: 5, deltaLengths: 6, deltaTexts: 7 },
  ...{ dictionary: 8, split: 9 },
} as const;

/**
 * @param bytes a column of a row group
 * @param column what it is
 * @param options.rows of the row group
 * @param options.budget what the file may still hold
 * @throws {Error} on a page that is not what it says, or when the pages hold other rows than these
 */
export function checkPages(
  bytes: Uint8Array,
  column: ParquetColumn,
  { rows, budget }: { rows: number; budget: ParquetBudget },
): void {
  const cursor = new ParquetCursor(bytes);
  let found = 0;
  // As the decoder has it: of a flat column it leaves what lies behind the last page, and a single byte of any.
  while (cursor.left > 1 && !(column.isFlat && found >= rows)) {
    const header = readThrift(cursor);
    const unpackedBytes = sizeIn(header, 2);
    const page = cursor.take(sizeIn(header, 3));
    const kind = header.get(1);
    if (kind === PAGE.dictionary) budget.take(sizeIn(structIn(header, 7), 1), unpackedBytes);
    else if (kind === PAGE.data) found += checkPage(page, { header, unpackedBytes, column, budget });
    else if (kind === PAGE.data2) found += checkPage2(page, { header, unpackedBytes, column, budget });
    else throw new Error(`a page of type ${kind}`);
  }
  if (found !== rows) throw new Error(`${found} rows in a column of ${rows}`);
}

interface PageContext {
  readonly header: ThriftStruct;
  readonly unpackedBytes: number;
  readonly column: ParquetColumn;
  readonly budget: ParquetBudget;
}

/** Returns its rows. */
function checkPage(packed: Uint8Array, { header, unpackedBytes, column, budget }: PageContext): number {
  const data = structIn(header, 5);
  const count = sizeIn(data, 1);
  budget.take(count, unpackedBytes);
  const { repetition, definition } = column.levels;
  const cursor = new ParquetCursor(unpack(packed, unpackedBytes, column));
  const levels = (largest: number, wanted: number) => {
    const own = new ParquetCursor(cursor.take(cursor.uint32()));
    return walkRuns(own, { width: bitsOf(largest), count, wanted });
  };
  const rows = repetition ? levels(repetition, 0) : count;
  const values = definition ? levels(definition, definition) : count;
  checkValues(cursor, { count: values, encoding: sizeIn(data, 2), isVersion2: false, column, budget });
  return rows;
}

/** The second version has its levels outside of what is packed. Returns its rows. */
function checkPage2(packed: Uint8Array, { header, unpackedBytes, column, budget }: PageContext): number {
  const data = structIn(header, 8);
  const [count, nulls, rows] = [sizeIn(data, 1), sizeIn(data, 2), sizeIn(data, 3)];
  budget.take(count, unpackedBytes);
  const outer = new ParquetCursor(packed);
  const levels = (largest: number, bytes: number, wanted: number) => {
    const own = new ParquetCursor(outer.take(bytes));
    return largest ? walkRuns(own, { width: bitsOf(largest), count, wanted }) : count;
  };
  const { repetition, definition } = column.levels;
  const [definitionBytes, repetitionBytes] = [sizeIn(data, 5), sizeIn(data, 6)];
  const foundRows = levels(repetition, repetitionBytes, 0);
  const values = levels(definition, definitionBytes, definition);
  if (foundRows !== rows || values !== count - nulls) {
    throw new Error(`${foundRows} rows and ${values} values in a page of ${rows} and ${count - nulls}`);
  }
  const rest = outer.take(outer.left);
  const isPacked = data.get(7) !== false;
  const inner = isPacked ? unpack(rest, unpackedBytes - definitionBytes - repetitionBytes, column) : rest;
  const cursor = new ParquetCursor(inner);
  checkValues(cursor, { count: values, encoding: sizeIn(data, 4), isVersion2: true, column, budget });
  return rows;
}

function checkValues(
  cursor: ParquetCursor,
  { count, encoding, isVersion2, column, budget }: {
    count: number;
    encoding: number;
    isVersion2: boolean;
    column: ParquetColumn;
    budget: ParquetBudget;
  },
): void {
  const isBoolean = column.type === "BOOLEAN";
  switch (encoding) {
    case ENCODING.plainDictionary:
    case ENCODING.dictionary:
    case ENCODING.runs: {
      // The decoder takes Booleans for runs of one bit behind a length, and the second version's runs for Booleans.
      const hasLength = isVersion2 ? encoding === ENCODING.runs : isBoolean;
      if (hasLength) cursor.skip(4);
      const width = hasLength ? 1 : cursor.byte();
      // Only the second version has runs of no bits.
      if (width > 0 || isVersion2) walkRuns(cursor, { width, count });
      return;
    }
    case ENCODING.split:
      if (count * (column.valueBytes ?? 1) > cursor.left) {
        throw new Error(`${count} values in a shorter page`);
      }
      return;
    case ENCODING.deltas:
    case ENCODING.deltaLengths:
      return walkDeltas(cursor, count);
    case ENCODING.deltaTexts: {
      const prefixes = deltas(cursor, count);
      const suffixes = deltas(cursor, count);
      // Prefixes are repeated: texts may take more than their page.
      for (let index = 0, before = 0; index < count; index++) {
        if (!(prefixes[index] >= 0 && prefixes[index] <= before && suffixes[index] >= 0)) {
          throw new Error("a text that begins with more than the one before it");
        }
        before = prefixes[index] + suffixes[index];
        budget.take(0, before);
      }
      return;
    }
    case ENCODING.plain:
      return;
    default:
      throw new Error(`a page in encoding ${encoding}`);
  }
}

/** Lengths, which are decoded once it is certain that this ends. */
function deltas(cursor: ParquetCursor, count: number): Int32Array {
  const { bytes, offset } = cursor;
  walkDeltas(cursor, count);
  const lengths = new Int32Array(count);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  deltaBinaryUnpack({ view, offset }, count, lengths);
  return lengths;
}

function unpack(packed: Uint8Array, unpackedBytes: number, { codec }: ParquetColumn): Uint8Array {
  const codecOrNone = codec === "UNCOMPRESSED" ? (bytes: Uint8Array) => bytes : PARQUET_CODECS[codec];
  if (!codecOrNone) throw new Error(`pages packed by ${codec}`);
  const page = codecOrNone(packed, unpackedBytes);
  if (page.length !== unpackedBytes) throw new Error(`${page.length} bytes in a page of ${unpackedBytes}`);
  return page;
}

function bitsOf(largest: number): number {
  return 32 - Math.clz32(largest);
}

function structIn(fields: ThriftStruct, id: number): ThriftStruct {
  const value = fields.get(id);
  if (!(value instanceof Map)) throw new Error(`a page's header without field ${id}`);
  return value;
}

function sizeIn(fields: ThriftStruct, id: number): number {
  const value = fields.get(id);
  if (typeof value !== "number" || value < 0) {
    throw new Error(`a page's header without a size in field ${id}`);
  }
  return value;
}
