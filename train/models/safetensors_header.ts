/**
 * The header of a safetensors file, checked in full before a byte of data is used.
 *
 * Layout: 8 bytes, the header's length N, little-endian; N bytes of JSON, name -> {dtype, shape, data_offsets}, with an
 * optional `__metadata__` of strings; then the data, which the tensors cover from first to last byte without overlap.
 *
 * @module
 */
import { z } from "zod";
import { CheckpointError, showFound } from "../errors.ts";
import { findDuplicateKey } from "./duplicate_keys.ts";

/** The format's own limit on the JSON: a longer header is an attack or not safetensors. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Bytes in front of the JSON, holding its length. */
export const LENGTH_BYTES = 8;

/** One tensor as the header describes it. */
export interface TensorEntry {
  /** The tensor's name, as Hugging Face spells it. */
  readonly name: string;
  /** The path of the file that holds it. */
  readonly file: string;
  /** The format's name of the element type: `F32`, `BF16`, `I64`... */
  readonly dtype: string;
  /** Row-major; empty for a scalar. */
  readonly shape: readonly number[];
  /** Where the data starts, counted from the end of the header. */
  readonly startByte: number;
  /** Where the data ends, counted from the end of the header. */
  readonly endByte: number;
}

/** A checked header. */
export interface SafetensorsHeader {
  /** The tensors by name, in the order of their data. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** The strings of `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Where the data starts in the file. */
  readonly dataStartByte: number;
}

/** Bits per element of every type the format defines (safetensors 0.8); only F32, F16 and BF16 can be read as weights. */
const DTYPE_BITS: ReadonlyMap<string, number> = new Map(Object.entries({
  ...{ F4: 4, F6_E2M3: 6, F6_E3M2: 6, BOOL: 8, U8: 8, I8: 8 },
  ...{ F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, F8_E4M3FNUZ: 8, F8_E5M2FNUZ: 8 },
  ...{ I16: 16, U16: 16, F16: 16, BF16: 16, I32: 32, U32: 32, F32: 32, I64: 64, U64: 64, F64: 64, C64: 64 },
}));

const count = z.number("a non-negative integer").refine(
  (value) => Number.isSafeInteger(value) && value >= 0,
  "a non-negative integer below 2^53",
);

const entrySchema = z.object({
  dtype: z.string("a type name").refine((name) => DTYPE_BITS.has(name), "an element type of the format"),
  shape: z.array(count, "a list of sizes"),
  data_offsets: z.tuple([count, count], "[start, end]"),
}, "an object of dtype, shape and data_offsets");

const metadataSchema = z.record(z.string(), z.string("a string"), "an object of strings");

/**
 * Reads the length in front of the JSON and holds it against the file and the format's limit.
 *
 * @param start The first 8 bytes of the file, or fewer where the file is shorter.
 * @param options The file's size, and its name for messages.
 * @returns Bytes of JSON.
 * @throws {CheckpointError} When the length cannot be right.
 */
export function readHeaderLength(start: Uint8Array, options: { file: string; fileBytes: number }): number {
  const { file, fileBytes } = options;
  if (start.byteLength < LENGTH_BYTES) {
    throw refuse(file, "header length", `${LENGTH_BYTES} bytes`, `${start.byteLength} bytes`);
  }
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw refuse(file, "header length", `at most ${MAX_HEADER_BYTES} bytes`, `${length}`);
  }
  if (length + BigInt(LENGTH_BYTES) > BigInt(fileBytes)) {
    throw refuse(
      file,
      "header length",
      `at most the ${fileBytes - LENGTH_BYTES} bytes that follow`,
      `${length}`,
    );
  }
  return Number(length);
}

/**
 * Parses and checks the JSON of a header.
 *
 * @param json The bytes after the length.
 * @param options The file's size, and its name for messages.
 * @returns The checked header.
 * @throws {CheckpointError} Naming the file, the tensor and the key, on any departure from the format.
 * @example
 * ```ts
 * const json = new TextEncoder().encode('{"w":{"dtype":"F16","shape":[3],"data_offsets":[0,6]}}');
 * const header = parseHeader(json, { file: "model.safetensors", fileBytes: 8 + json.length + 6 });
 * if (header.tensors.get("w")?.shape[0] !== 3) throw new Error("w has three elements");
 * ```
 */
export function parseHeader(
  json: Uint8Array,
  options: { file: string; fileBytes: number },
): SafetensorsHeader {
  const { file, fileBytes } = options;
  const dataStartByte = LENGTH_BYTES + json.byteLength;
  const entries: TensorEntry[] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, value] of Object.entries(parseObject(json, file))) {
    if (name === "__metadata__") {
      metadata = new Map(Object.entries(check(metadataSchema, value, { file, name })));
    } else {
      const { dtype, shape, data_offsets: [startByte, endByte] } = check(entrySchema, value, { file, name });
      entries.push({ name, file, dtype, shape, startByte, endByte });
    }
  }
  entries.sort((a, b) => a.startByte - b.startByte || a.endByte - b.endByte);
  checkCover(entries, { file, dataBytes: fileBytes - dataStartByte });
  for (const entry of entries) checkSize(entry);
  return { tensors: new Map(entries.map((entry) => [entry.name, entry])), metadata, dataStartByte };
}

function refuse(file: string, key: string, expected: string, found: string): CheckpointError {
  return new CheckpointError(`Cannot read ${file}: ${key}: expected ${expected}, found ${found}`);
}

function parseObject(json: Uint8Array, file: string): Record<string, unknown> {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
  } catch (cause) {
    throw new CheckpointError(`Cannot read ${file}: header: expected UTF-8, found other bytes`, { cause });
  }
  if (text[0] !== "{") throw refuse(file, "header", "{ as the first character", showFound(text[0]));
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`Cannot read ${file}: header: expected JSON, found ${detail}`, { cause });
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate) throw refuse(file, describePath(duplicate), "one key of that name", "two");
  return value as Record<string, unknown>;
}

function describePath([name, ...rest]: PropertyKey[]): string {
  const owner = name === "__metadata__" ? name : `tensor ${cut(JSON.stringify(name))}`;
  return [owner, ...rest.map((key) => cut(String(key)))].join(", ");
}

/** A name of a damaged file may be as long as the file; no model's comes near this. */
function cut(name: string): string {
  return name.length <= 200 ? name : `${name.slice(0, 197)}...`;
}

function check<T>(schema: z.ZodType<T>, value: unknown, place: { file: string; name: string }): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0];
  // deno-lint-ignore no-explicit-any -- walks a path that the schema reported, in JSON of unknown type
  const found = path.reduce((inner: any, key) => inner?.[key], value);
  throw refuse(place.file, describePath([place.name, ...path]), message, showFound(found));
}

/** Sorted by offset, each tensor must begin where the one before ended, and the last must end with the file. */
function checkCover(entries: TensorEntry[], place: { file: string; dataBytes: number }): void {
  const { file, dataBytes } = place;
  let covered = 0;
  for (const { name, startByte, endByte } of entries) {
    const key = describePath([name, "data_offsets"]);
    const found = showFound([startByte, endByte]);
    if (endByte < startByte) throw refuse(file, key, "an end not before the start", found);
    if (endByte > dataBytes) throw refuse(file, key, `offsets within the ${dataBytes} bytes of data`, found);
    if (startByte !== covered) {
      const fault = startByte < covered ? "which overlaps the tensor before" : "which leaves a hole";
      throw refuse(file, key, `a start at ${covered}`, `${found}, ${fault}`);
    }
    covered = endByte;
  }
  if (covered !== dataBytes) {
    throw refuse(file, "data", `${covered} bytes, the end of the last tensor`, `${dataBytes} bytes`);
  }
}

function checkSize({ name, file, dtype, shape, startByte, endByte }: TensorEntry): void {
  let elements = 1;
  for (const size of shape) {
    elements *= size;
    if (!Number.isSafeInteger(elements * 64)) {
      throw refuse(file, describePath([name, "shape"]), "fewer than 2^47 elements", showFound(shape));
    }
  }
  const sizeBytes = elements * DTYPE_BITS.get(dtype)! / 8;
  if (sizeBytes !== endByte - startByte) {
    const expected = `${sizeBytes} bytes for ${dtype} ${showFound(shape)}`;
    throw refuse(file, describePath([name, "data_offsets"]), expected, `${endByte - startByte} bytes`);
  }
}
