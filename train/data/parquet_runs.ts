/**
 * The encodings of Parquet's pages whose length in values is not their length in bytes:
 * https://parquet.apache.org/docs/file-format/data-pages/encodings/
 * @module
 */
import type { ParquetCursor } from "./parquet_cursor.ts";

/** The widest number that is packed into bits. */
const MAX_WIDTH_BITS = 32;
/** A miniblock has a multiple of this many values. */
const MINIBLOCK_VALUES = 32;

/**
 * Walks runs of equal numbers and of packed ones, of which none may go past the values that there are.
 *
 * @param cursor at the first run; afterwards behind the last one
 * @param options.width bits of a number
 * @param options.count values in all
 * @param options.wanted what is counted
 * @returns how many of the values equal `wanted`
 * @throws {Error} on runs that end early, or are longer than what is left
 */
export function walkRuns(
  cursor: ParquetCursor,
  { width, count, wanted }: { width: number; count: number; wanted?: number },
): number {
  if (width > MAX_WIDTH_BITS) throw new Error(`numbers of ${width} bits`);
  let found = 0;
  for (let left = count; left > 0;) {
    const header = cursor.varint();
    const length = header & 1 ? 8 * (header >>> 1) : header >>> 1;
    if (header & 1) {
      // The last run is filled up to a multiple of eight. One of no bits has no bytes that would limit it.
      if (length === 0 || (width === 0 && (length < left || length >= left + 8))) {
        throw new Error(`a run of ${length} with ${left} values left`);
      }
      const packed = cursor.take(length / 8 * width);
      if (wanted !== undefined) {
        found += countPacked(packed, { width, count: Math.min(length, left), wanted });
      }
    } else {
      if (length > left) throw new Error(`a run of ${length} with ${left} values left`);
      if (littleEndian(cursor.take((width + 7) >> 3)) === wanted) found += length;
    }
    left -= length;
  }
  return found;
}

function littleEndian(bytes: Uint8Array): number {
  return bytes.reduceRight((value, byte) => 256 * value + byte, 0);
}

/** Levels have a few bits: they never lie in more than two bytes. */
function countPacked(
  bytes: Uint8Array,
  { width, count, wanted }: { width: number; count: number; wanted: number },
): number {
  if (width > 8) throw new Error(`levels of ${width} bits`);
  const mask = (1 << width) - 1;
  let found = 0;
  for (let index = 0, bit = 0; index < count; index++, bit += width) {
    const pair = bytes[bit >> 3] | ((bytes[(bit >> 3) + 1] ?? 0) << 8);
    if (((pair >> (bit & 7)) & mask) === wanted) found++;
  }
  return found;
}

/**
 * Walks differences packed in blocks.
 *
 * @param cursor at the header of the first block; afterwards behind the last one that is needed
 * @param count values in all
 * @throws {Error} on blocks that end early, or that are none of the format's
 */
export function walkDeltas(cursor: ParquetCursor, count: number): void {
  const [blockValues, miniblocks] = [cursor.varint(), cursor.varint()];
  cursor.varint();
  cursor.skipInt64();
  const values = blockValues / miniblocks;
  if (!(values >= MINIBLOCK_VALUES && values % MINIBLOCK_VALUES === 0)) {
    throw new Error(`blocks of ${blockValues} values in ${miniblocks} parts`);
  }
  for (let left = count - 1; left > 0;) {
    cursor.skipInt64();
    for (const width of cursor.take(miniblocks)) {
      if (left <= 0) break;
      if (width > 2 * MAX_WIDTH_BITS) throw new Error(`differences of ${width} bits`);
      // Some writers cut the last one short.
      cursor.skip(Math.min(values / 8 * width, left <= values ? cursor.left : Infinity));
      left -= values;
    }
  }
}
