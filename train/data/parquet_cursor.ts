/**
 * Bytes of a Parquet file, read one after the other and never past their end.
 * @module
 */

/** Bytes of a number of 32 bits, seven to a byte. */
const MAX_INT32_BYTES = 5;
const MAX_INT64_BYTES = 10;

/** A place in bytes. What is wrong with them is a plain Error, whose message the reader of the file puts into a line. */
export class ParquetCursor {
  constructor(
    readonly bytes: Uint8Array,
    /** Of the next byte. */
    public offset = 0,
  ) {}

  /** Bytes that are left. */
  get left(): number {
    return this.bytes.length - this.offset;
  }

  /** @throws {Error} at the end, as all that follow */
  byte(): number {
    this.require(1);
    return this.bytes[this.offset++];
  }

  skip(count: number): void {
    this.require(count);
    this.offset += count;
  }

  /** Four bytes, the least one first. */
  uint32(): number {
    this.require(4);
    const { buffer, byteOffset } = this.bytes;
    const value = new DataView(buffer, byteOffset + this.offset).getUint32(0, true);
    this.offset += 4;
    return value;
  }

  /** An unsigned number of 32 bits. */
  varint(): number {
    let value = 0;
    for (let count = 0; count < MAX_INT32_BYTES; count++) {
      const byte = this.byte();
      value |= (byte & 0x7f) << (7 * count);
      if (byte < 0x80) return value >>> 0;
    }
    throw new Error(`a number longer than ${MAX_INT32_BYTES} bytes`);
  }

  /** A signed number of 32 bits. */
  zigzag(): number {
    const value = this.varint();
    return (value >>> 1) ^ -(value & 1);
  }

  /** Leaves out a number of 64 bits. */
  skipInt64(): void {
    for (let count = 0; count < MAX_INT64_BYTES; count++) if (this.byte() < 0x80) return;
    throw new Error(`a number longer than ${MAX_INT64_BYTES} bytes`);
  }

  /** Those that come next. */
  take(count: number): Uint8Array {
    this.require(count);
    this.offset += count;
    return this.bytes.subarray(this.offset - count, this.offset);
  }

  private require(count: number): void {
    if (!(count >= 0 && count <= this.left)) {
      throw new Error(`${count} bytes at byte ${this.offset} of ${this.bytes.length}`);
    }
  }
}
