/**
 * Writing safetensors, byte for byte as Hugging Face's library does for tensors of one element type: sorted by name,
 * header padded with spaces to 8 bytes. Tensors are asked for one after the other, so host memory holds one at a time.
 *
 * @module
 */
import { type DType, DTYPE_SIZE_BYTES, findOverflow, narrow, widen } from "../../engine/dtype.ts";
import { type StagedFile, stageFile } from "../atomic_file.ts";
import { CheckpointError } from "../errors.ts";
import type { FileSystem } from "../file_system.ts";
import { isSystemError } from "../write_error.ts";

/** Consecutive values of a tensor: f32, or as they are stored somewhere else, which saves widening and narrowing. */
export type TensorPiece = Float32Array | { readonly dtype: DType; readonly bytes: Uint8Array };

/** The values of a tensor: all at once, or in consecutive pieces (row shards read back one by one). */
export type TensorValues =
  | Float32Array
  | Promise<Float32Array>
  | Iterable<TensorPiece>
  | AsyncIterable<TensorPiece>;

/** A tensor to be written. */
export interface TensorSource {
  /** The tensor's name, as Hugging Face spells it. */
  name: string;
  /** Row-major; empty for a scalar. */
  shape: readonly number[];
  /** Its element type, where it differs from that of the others. */
  dtype?: DType;
  /** Called once, when the tensor's turn has come. */
  data(): TensorValues;
}

/** How tensors are written. */
export interface WriteOptions {
  /** The element type of all tensors that do not say theirs. */
  dtype: DType;
  /** The strings of `__metadata__`. Default `format: "pt"`, without which transformers refuses a file. */
  metadata?: Iterable<readonly [string, string]>;
  /** Deno by default. */
  fileSystem?: FileSystem;
}

/**
 * Writes a safetensors file; it appears under its name only when it is complete.
 *
 * @param path The file; an existing one is replaced.
 * @param tensors The tensors, in any order; names must differ.
 * @param options Element type and metadata.
 * @throws {CheckpointError} When the file cannot be written, or a finite value is too large for the element type.
 * @throws {RangeError} When a name occurs twice or a tensor's values are not as many as its shape says.
 * @example
 * ```ts
 * const path = `${Deno.makeTempDirSync()}/model.safetensors`;
 * await writeSafetensors(path, [{ name: "w", shape: [3], data: () => new Float32Array([1, 2, 3]) }], { dtype: "f16" });
 * if (Deno.statSync(path).size % 2 !== 0) throw new Error("halves have two bytes");
 * ```
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorSource>,
  options: WriteOptions,
): Promise<void> {
  const staged = await stageSafetensors(path, tensors, options);
  await namingFile(path, () => staged.commit());
}

/**
 * Writes a safetensors file under a temporary name; committing it makes it appear. See {@link writeSafetensors}.
 *
 * @param path The final name.
 * @param tensors The tensors, in any order; names must differ.
 * @param options Element type and metadata.
 * @returns The file, to be committed or discarded.
 * @throws {CheckpointError} When the file cannot be written, or a finite value is too large for the element type.
 * @throws {RangeError} When a name occurs twice or a tensor's values are not as many as its shape says.
 */
export function stageSafetensors(
  path: string,
  tensors: Iterable<TensorSource>,
  options: WriteOptions,
): Promise<StagedFile> {
  const typed = Array.from(tensors, (tensor) => ({ ...tensor, dtype: tensor.dtype ?? options.dtype }));
  const sorted = typed.sort((a, b) =>
    TYPE_ORDER.indexOf(a.dtype) - TYPE_ORDER.indexOf(b.dtype) || compareNames(a.name, b.name)
  );
  const header = buildHeader(sorted, options);
  return namingFile(path, () =>
    stageFile(path, async (append) => {
      await append(header);
      for (const tensor of sorted) {
        for await (const bytes of storedPieces(tensor, path)) await append(bytes);
      }
    }, options));
}

/** The system's errors carry a code and, often, no file name. */
export async function namingFile<Result>(path: string, action: () => Promise<Result>): Promise<Result> {
  try {
    return await action();
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw new CheckpointError(`Cannot write ${path}: ${error.message}`, { cause: error });
  }
}

/** The wider type first, then the one that the format lists last: so Hugging Face's library orders a mixed file. */
const TYPE_ORDER: readonly DType[] = ["f32", "bf16", "f16"];

/** A tensor whose element type is settled. */
type TypedSource = TensorSource & { readonly dtype: DType };

function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function buildHeader(tensors: readonly TypedSource[], options: WriteOptions): Uint8Array {
  const metadata = [...(options.metadata ?? [["format", "pt"] as const])];
  metadata.sort(([a], [b]) => compareNames(a, b));
  // Joined by hand: a JavaScript object would move names that look like numbers to the front.
  const parts: string[] = [];
  if (metadata.length > 0) {
    const pairs = metadata.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
    parts.push(`"__metadata__":{${pairs.join(",")}}`);
  }
  let startByte = 0;
  const names = new Set(["__metadata__"]);
  for (const { name, shape, dtype } of tensors) {
    if (names.has(name)) {
      throw new RangeError(
        `Cannot write tensor ${JSON.stringify(name)}: expected a name of its own, found it taken`,
      );
    }
    names.add(name);
    const endByte = startByte + elementCount(shape) * DTYPE_SIZE_BYTES[dtype];
    const entry = { dtype: dtype.toUpperCase(), shape, data_offsets: [startByte, endByte] };
    parts.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
    startByte = endByte;
  }
  const json = new TextEncoder().encode(`{${parts.join(",")}}`);
  const bytes = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true);
  bytes.set(json, 8);
  return bytes;
}

async function* storedPieces(tensor: TypedSource, path: string): AsyncGenerator<Uint8Array> {
  const { name, shape, dtype } = tensor;
  const values = await tensor.data();
  const expected = elementCount(shape);
  let found = 0;
  for await (const piece of values instanceof Float32Array ? [values] : values) {
    const bytes = storePiece(piece, { tensor, path, first: found });
    found += bytes.byteLength / DTYPE_SIZE_BYTES[dtype];
    yield bytes;
  }
  if (found !== expected) {
    throw new RangeError(
      `Cannot write tensor ${
        JSON.stringify(name)
      }: expected ${expected} values for its shape, found ${found}`,
    );
  }
}

function storePiece(
  piece: TensorPiece,
  { tensor: { name, dtype }, path, first }: { tensor: TypedSource; path: string; first: number },
): Uint8Array {
  if (!(piece instanceof Float32Array) && piece.dtype === dtype) return piece.bytes;
  const values = piece instanceof Float32Array ? piece : widen(piece.bytes, piece.dtype);
  const overflow = findOverflow(values, dtype);
  if (overflow < 0) return narrow(values, dtype);
  throw new CheckpointError(
    `Cannot write ${path}: tensor ${JSON.stringify(name)}: expected values within ${dtype}, ` +
      `found ${values[overflow]} at element ${first + overflow}`,
  );
}
