/**
 * Thrift's compact protocol, in which a Parquet file holds its footer and the headers of its pages:
 * https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
 * @module
 */
import type { ParquetCursor } from "./parquet_cursor.ts";

/** A struct by the numbers of its fields. What no check needs (text, lists, numbers of 64 bits) is null. */
export type ThriftStruct = ReadonlyMap<number, ThriftValue>;

/** What a field holds. */
export type ThriftValue = number | boolean | ThriftStruct | null;

/** Deeper than any struct of the format. */
const MAX_DEPTH = 16;

/** Numbers of types, as in a field's first byte. */
const TYPE = {
  ...{ stop: 0, true: 1, false: 2, byte: 3, i16: 4, i32: 5, i64: 6 },
  ...{ double: 7, binary: 8, list: 9, struct: 12 },
} as const;

/**
 * Reads a struct, in time and memory in proportion to its bytes: a list has at most as many elements as bytes are left.
 *
 * @param cursor at its first byte; afterwards behind its last
 * @throws {Error} on anything that is none
 */
export function readThrift(cursor: ParquetCursor): ThriftStruct {
  return readStruct(cursor, 0);
}

function readStruct(cursor: ParquetCursor, depth: number): ThriftStruct {
  if (depth > MAX_DEPTH) throw new Error(`a struct ${depth} deep`);
  const fields = new Map<number, ThriftValue>();
  for (let id = 0;;) {
    const byte = cursor.byte();
    const type = byte & 0x0f;
    if (type === TYPE.stop) return fields;
    id = byte >> 4 ? id + (byte >> 4) : cursor.zigzag();
    fields.set(id, readValue(cursor, type, depth));
  }
}

function readValue(cursor: ParquetCursor, type: number, depth: number): ThriftValue {
  switch (type) {
    case TYPE.true:
    case TYPE.false:
      return type === TYPE.true;
    case TYPE.i16:
    case TYPE.i32:
      return cursor.zigzag();
    case TYPE.struct:
      return readStruct(cursor, depth + 1);
    default:
      skipValue(cursor, type, depth);
      return null;
  }
}

function skipValue(cursor: ParquetCursor, type: number, depth: number): void {
  if (type === TYPE.byte) cursor.skip(1);
  else if (type === TYPE.i64) cursor.skipInt64();
  else if (type === TYPE.double) cursor.skip(8);
  else if (type === TYPE.binary) cursor.skip(cursor.varint());
  else if (type === TYPE.list) skipList(cursor, depth + 1);
  else throw new Error(`a field of type ${type}`);
}

function skipList(cursor: ParquetCursor, depth: number): void {
  if (depth > MAX_DEPTH) throw new Error(`a list ${depth} deep`);
  const byte = cursor.byte();
  const type = byte & 0x0f;
  const size = byte >> 4 === 15 ? cursor.varint() : byte >> 4;
  if (size > cursor.left) throw new Error(`a list of ${size} with ${cursor.left} bytes left`);
  for (let index = 0; index < size; index++) {
    // In a list, unlike in a field, true and false have a byte.
    if (type === TYPE.true || type === TYPE.false) cursor.skip(1);
    else readValue(cursor, type, depth);
  }
}
