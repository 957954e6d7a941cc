/**
 * TFRecord files: `length u64, masked CRC-32C of it, payload, masked CRC-32C of it` per record, little-endian. As
 * https://www.tensorflow.org/tutorials/load_data/tfrecord has it.
 * @module
 */
import CRC32C from "crc-32/crc32c";

const LENGTH_BYTES = 8;
const CRC_BYTES = 4;
const HEADER_BYTES = LENGTH_BYTES + CRC_BYTES;

/**
 * Frames a payload.
 *
 * @param payload of one record
 * @returns the bytes that a file has of it
 */
export function frameRecord(payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length + CRC_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(payload.length), true);
  view.setUint32(LENGTH_BYTES, maskedCrc(bytes.subarray(0, LENGTH_BYTES)), true);
  bytes.set(payload, HEADER_BYTES);
  view.setUint32(HEADER_BYTES + payload.length, maskedCrc(payload), true);
  return bytes;
}

/** A record of a file. */
export interface TfRecord {
  readonly payload: Uint8Array;
  /** Where it begins in the file, and where the next one would. */
  readonly start: number;
  readonly end: number;
}

/**
 * The records of a file up to the first that is not whole, as a run that was killed may leave one, or is damaged.
 *
 * @param bytes of the file
 */
export function* readRecords(bytes: Uint8Array): Generator<TfRecord, void> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let start = 0; start + HEADER_BYTES <= bytes.length;) {
    const length = Number(view.getBigUint64(start, true));
    const payloadEnd = start + HEADER_BYTES + length;
    const end = payloadEnd + CRC_BYTES;
    if (end > bytes.length) return;
    const payload = bytes.subarray(start + HEADER_BYTES, payloadEnd);
    if (view.getUint32(payloadEnd, true) !== maskedCrc(payload)) return;
    yield { payload, start, end };
    start = end;
  }
}

/** Turned and shifted, as a CRC of data that holds CRCs would be weak: see `masked_crc32c` of TensorFlow's crc32c.h. */
function maskedCrc(bytes: Uint8Array): number {
  const crc = CRC32C.buf(bytes) >>> 0;
  return ((crc >>> 15 | crc << 17) + 0xa282ead8) >>> 0;
}
