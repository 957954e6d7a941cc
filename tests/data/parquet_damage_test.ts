/**
 * Parquet files of a few bytes that would keep a decoder busy without end, or fill memory.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { readParquetRows } from "../../train/data/parquet_rows.ts";
import { DataError } from "../../train/data/errors.ts";
import { temporaryFolder } from "../tiny_model.ts";
import {
  i32,
  inner,
  type MadeColumn,
  page,
  page2,
  parquetFile,
  struct,
  uint32,
  varint,
  zigzag,
} from "./parquet_bytes.ts";

const [INT32, INT64, TEXT] = [1, 2, 6];
const [PLAIN, DELTAS, DELTA_TEXTS, DICTIONARY] = [0, 5, 7, 8];
const LZ4 = 5;
const ZSTD = 6;
const VARIANT = 16;

const path = join(temporaryFolder(), "data.parquet");

async function read(column: MadeColumn): Promise<unknown[]> {
  await Deno.writeFile(path, parquetFile(column));
  return await Array.fromAsync(readParquetRows(path));
}

/** Runs of `count` times `value`, of up to eight bits. */
const run = (count: number, value: number) => [...varint(count * 2), value];
/** Deltas of blocks of 128 in 4 parts: the first value, and then `step` more each time. */
const deltas = (count: number, first: number, step = 0) => [
  ...[...varint(128), ...varint(4), ...varint(count), ...zigzag(first)],
  ...(count > 1 ? [...zigzag(step), 0, 0, 0, 0] : []),
];
const levels = (bytes: number[]) => [...uint32(bytes.length), ...bytes];

Deno.test("what the damaged files below are made of is read", async () => {
  const two = [...uint32(7), ...uint32(8)];
  assert.deepEqual(await read({ type: INT32, pages: page(two, { encoding: PLAIN, values: 2 }), rows: 2 }), [{
    a: 7,
  }, {
    a: 8,
  }]);
  const optional = [...levels(run(1, 1)), ...uint32(7)];
  assert.deepEqual(
    await read({ type: INT32, isOptional: true, pages: page(optional, { encoding: PLAIN }) }),
    [{ a: 7 }],
  );
  assert.deepEqual(
    await read({ type: INT32, pages: page2(deltas(3, 5, 2), { encoding: DELTAS, values: 3 }), rows: 3 }),
    [{ a: 5 }, { a: 7 }, { a: 9 }],
  );
  // Two texts: "x", and one that begins as it does.
  const texts = [...deltas(2, 0, 1), ...deltas(2, 1), ...new TextEncoder().encode("xy")];
  assert.deepEqual(
    await read({ type: TEXT, pages: page(texts, { encoding: DELTA_TEXTS, values: 2 }), rows: 2 }),
    [{ a: "x" }, { a: "xy" }],
  );
});

/** A page of no size, behind whose header the decoder's place is not a number: it reads the same byte for ever. */
const SIZELESS = struct([i32(1, 0), i32(2, 4), inner(5, [i32(1, 1), i32(2, 0), i32(3, 3), i32(4, 3)])]);

const DAMAGED: Record<string, { column: MadeColumn; found: RegExp }> = {
  "a page's header without a size": {
    column: { type: INT32, rows: 2, pages: [...SIZELESS, ...uint32(1)] },
    found: /without a size in field 3/,
  },
  "a page longer than its column": {
    column: { type: INT32, pages: page(uint32(7), { encoding: PLAIN }).slice(0, -1) },
    found: /4 bytes at byte/,
  },
  "a run of two thousand million levels": {
    column: {
      type: INT32,
      isOptional: true,
      pages: page([...levels(run(2 ** 31 - 1, 1)), ...uint32(1)], { encoding: PLAIN }),
    },
    found: /a run of 2147483647 with 1 values left/,
  },
  "a packed run of less than nothing, of no bits": {
    column: { type: INT32, pages: page2([0, ...varint(2 ** 29 + 1), 0], { encoding: DICTIONARY }) },
    found: /a run of \d+ with 1 values left/,
  },
  "blocks of less than no parts": {
    // The decoder goes back by as many bytes as it has read.
    column: {
      type: INT32,
      rows: 5,
      pages: page([...varint(128), ...varint(2 ** 32 - 1), 5, 0, 0, 0, 0, 0], {
        encoding: DELTAS,
        values: 5,
      }),
    },
    found: /blocks of 128 values in 4294967295 parts/,
  },
  "a number as long as its page": {
    column: { type: INT64, pages: page(Array(100_000).fill(255), { encoding: DELTAS }) },
    found: /a number longer than 5 bytes/,
  },
  "a first number as long as its page": {
    column: {
      type: INT64,
      pages: page([...varint(128), 4, 1, ...Array(400_000).fill(255)], { encoding: DELTAS }),
    },
    found: /a number longer than 10 bytes/,
  },
  "LZ4 frames that go back": {
    column: {
      ...{ type: INT32, codec: LZ4 },
      pages: page([0, 0, 0, 0, 255, 255, 255, 248, 0, 0, 0, 0], { encoding: PLAIN, unpackedBytes: 4 }),
    },
    found: /lz4/,
  },
  "texts that begin with a text that there is not": {
    column: {
      ...{ type: TEXT, rows: 64 },
      pages: page([...deltas(64, 2 ** 30), ...deltas(64, 0)], { encoding: DELTA_TEXTS, values: 64 }),
    },
    found: /begins with more than the one before it/,
  },
  "texts that begin with all of the text before them": {
    column: {
      ...{ type: TEXT, rows: 2 ** 20 },
      // One character more each time.
      pages: page(
        [
          ...[...varint(2 ** 20), ...varint(4), ...varint(2 ** 20), ...zigzag(0), ...zigzag(1), 0, 0, 0, 0],
          ...[...varint(2 ** 20), ...varint(4), ...varint(2 ** 20), ...zigzag(1), ...zigzag(0), 0, 0, 0, 0],
          ...Array(2 ** 20).fill(120),
        ],
        { encoding: DELTA_TEXTS, values: 2 ** 20 },
      ),
    },
    found: /more bytes, which a file of \d+ bytes is not to hold/,
  },
  "two thousand million rows": {
    column: { type: INT32, rows: 2 ** 31 - 1, pages: page(uint32(7), { encoding: PLAIN }) },
    found: /2147483647 more values, which a file of \d+ bytes is not to hold/,
  },
  "two thousand million values in a page": {
    column: { type: INT32, pages: page2([0, ...run(2 ** 30, 0)], { encoding: DICTIONARY, values: 2 ** 30 }) },
    found: /1073741824 more values, which a file of \d+ bytes is not to hold/,
  },
  "a page that unpacks to more than the file may": {
    column: {
      ...{ type: INT32, codec: ZSTD },
      pages: page([0], { encoding: PLAIN, unpackedBytes: 2 ** 31 - 1 }),
    },
    found: /2147483647 more bytes, which a file of \d+ bytes is not to hold/,
  },
  "fewer rows than the footer says": {
    column: { type: INT32, rows: 3, pages: page(uint32(7), { encoding: PLAIN }) },
    found: /1 rows in a column of 3/,
  },
  "a list of two thousand million in the footer": {
    column: {
      ...{ type: INT32, pages: page(uint32(7), { encoding: PLAIN }) },
      extra: [5, 9, [0xf9, ...varint(2 ** 31 - 1)]],
    },
    found: /a list of 2147483647 with \d+ bytes left/,
  },
  "lists in lists in the footer": {
    column: {
      ...{ type: INT32, pages: page(uint32(7), { encoding: PLAIN }) },
      extra: [5, 9, Array(10_000).fill(0x19)],
    },
    found: /a list 17 deep/,
  },
  "values of a kind that unfolds": {
    column: { type: TEXT, kind: VARIANT, pages: page([...uint32(1), 65], { encoding: PLAIN }) },
    found: /a column of kind VARIANT, which is not read/,
  },
};

for (const [name, { column, found }] of Object.entries(DAMAGED)) {
  Deno.test(`refused at once: ${name}`, async () => {
    const began = performance.now();
    await assert.rejects(read(column), (error: Error) => {
      assert.ok(error instanceof DataError, error.stack);
      assert.match(error.message, found);
      return true;
    });
    const elapsedMs = performance.now() - began;
    assert.ok(elapsedMs < 5000, `${elapsedMs} ms`);
  });
}
