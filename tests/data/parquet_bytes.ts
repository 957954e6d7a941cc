/**
 * Parquet files byte by byte, for what no writer writes.
 *
 * @module
 */

/** A field of a Thrift struct: its bytes behind the number that it has in the struct. */
type Field = readonly [id: number, type: number, bytes: readonly number[]];

/** An unsigned number of up to 64 bits, seven to a byte. */
export function varint(value: number | bigint): number[] {
  const bytes: number[] = [];
  let left = BigInt(value);
  for (; left >= 128n; left >>= 7n) bytes.push(Number(left & 127n) | 128);
  return [...bytes, Number(left)];
}

/** A signed one. */
export const zigzag = (value: number | bigint) =>
  varint(value < 0 ? -2n * BigInt(value) - 1n : 2n * BigInt(value));

/** Four bytes, the least one first. */
export const uint32 = (value: number) => [0, 8, 16, 24].map((shift) => value >>> shift & 255);

const text = (value: string) => [...varint(value.length), ...new TextEncoder().encode(value)];
const list = (type: number, items: readonly (readonly number[])[]) => [
  ...(items.length < 15 ? [items.length << 4 | type] : [0xf0 | type, ...varint(items.length)]),
  ...items.flat(),
];

export const i32 = (id: number, value: number): Field => [id, 5, zigzag(value)];
const i64 = (id: number, value: number): Field => [id, 6, zigzag(value)];
const binary = (id: number, value: string): Field => [id, 8, text(value)];
const structs = (id: number, items: readonly (readonly number[])[]): Field => [id, 9, list(12, items)];
export const inner = (id: number, fields: readonly Field[]): Field => [id, 12, struct(fields)];

/** The bytes of a struct. */
export function struct(fields: readonly Field[]): number[] {
  let before = 0;
  const bytes = fields.flatMap(([id, type, value]) => {
    const step = id - before;
    before = id;
    return [...(step < 16 ? [step << 4 | type] : [type, ...zigzag(id)]), ...value];
  });
  return [...bytes, 0];
}

/** What a column is, by the format's numbers. */
export interface MadeColumn {
  /** 1 for numbers of 32 bits, 2 for 64, 6 for text. */
  readonly type: number;
  /** Pages with their headers. */
  readonly pages: readonly number[];
  readonly isOptional?: boolean;
  /** 0 for none. */
  readonly codec?: number;
  /** As the footer has them; 1 by default. */
  readonly rows?: number;
  /** A field more of the footer's struct. */
  readonly extra?: Field;
  /** Number of the logical type. */
  readonly kind?: number;
}

/** A file of one column, named `a`. */
export function parquetFile(
  { type, pages, isOptional = false, codec = 0, rows = 1, extra, kind }: MadeColumn,
): Uint8Array {
  const column = inner(3, [
    ...[i32(1, type), [2, 9, list(5, [zigzag(0)])] as Field, [3, 9, list(8, [text("a")])] as Field],
    ...[i32(4, codec), i64(5, rows), i64(6, pages.length), i64(7, pages.length), i64(9, 4)],
  ]);
  const logical = kind === undefined ? [] : [inner(10, [inner(kind, [])])];
  const footer = struct([
    i32(1, 2),
    structs(2, [
      struct([binary(4, "schema"), i32(5, 1)]),
      struct([i32(1, type), i32(3, isOptional ? 1 : 0), binary(4, "a"), ...logical]),
    ]),
    i64(3, rows),
    structs(4, [struct([structs(1, [struct([i64(2, 0), column])]), i64(2, pages.length), i64(3, rows)])]),
    ...(extra ? [extra] : []),
  ]);
  const magic = [...new TextEncoder().encode("PAR1")];
  return Uint8Array.from([...magic, ...pages, ...footer, ...uint32(footer.length), ...magic]);
}

/**
 * A page of data in the format's first version.
 *
 * @param content packed
 * @param options.encoding number of it
 * @param options.values 1 by default
 * @param options.unpackedBytes of the content where it is packed
 */
export function page(
  content: readonly number[],
  { encoding, values = 1, unpackedBytes = content.length }: {
    encoding: number;
    values?: number;
    unpackedBytes?: number;
  },
): number[] {
  const data = inner(5, [i32(1, values), i32(2, encoding), i32(3, 3), i32(4, 3)]);
  return [...struct([i32(1, 0), i32(2, unpackedBytes), i32(3, content.length), data]), ...content];
}

/** The same in its second version, of values that are all there. */
export function page2(
  content: readonly number[],
  { encoding, values = 1 }: { encoding: number; values?: number },
): number[] {
  const data = inner(8, [i32(1, values), i32(2, 0), i32(3, values), i32(4, encoding), i32(5, 0), i32(6, 0)]);
  return [...struct([i32(1, 3), i32(2, content.length), i32(3, content.length), data]), ...content];
}
