/**
 * What unpacks the pages of Parquet files: each ends, whatever the bytes, and makes no more than a page says that it holds.
 * @module
 */
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from "node:zlib";
import type { Compressors } from "hyparquet";
import { compressors, decompressLz4Raw } from "hyparquet-compressors";

/** A frame's two sizes in front of each block. */
const FRAME_BYTES = 8;

type Unpack = (bytes: Uint8Array, options: { maxOutputLength: number }) => Uint8Array;

const limited = (unpack: Unpack) => (input: Uint8Array, length: number) =>
  unpack(input, { maxOutputLength: Math.max(1, length) });

/**
 * By the name of the compression. hyparquet-compressors has all of them; its frames of LZ4 may go back for ever, and what
 * it makes of Brotli, gzip and Zstandard may be longer than its page.
 */
export const PARQUET_CODECS: Compressors = {
  SNAPPY: compressors.SNAPPY,
  GZIP: limited(gunzipSync),
  BROTLI: limited(brotliDecompressSync),
  ZSTD: limited(zstdDecompressSync),
  LZ4: (input, length) => unpackFrames(input, length) ?? unpackBlock(input, length),
  LZ4_RAW: unpackBlock,
};

/** The library refuses a block of nothing, which is what the dictionary of a column of nulls is packed into. */
function unpackBlock(input: Uint8Array, length: number): Uint8Array {
  return length === 0 ? new Uint8Array() : decompressLz4Raw(input, length);
}

/** LZ4 as Hadoop frames it, or nothing where it is not framed. */
function unpackFrames(input: Uint8Array, length: number): Uint8Array | undefined {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  const output = new Uint8Array(length);
  let written = 0;
  for (let start = 0; start < input.length;) {
    if (input.length - start < FRAME_BYTES) return undefined;
    const [unpacked, packed] = [view.getUint32(start), view.getUint32(start + 4)];
    start += FRAME_BYTES;
    if (packed > input.length - start || unpacked > length - written) return undefined;
    output.set(unpackBlock(input.subarray(start, start + packed), unpacked), written);
    start += packed;
    written += unpacked;
  }
  return written === length ? output : undefined;
}
