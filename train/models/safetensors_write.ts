/**
 * Writing safetensors, byte for byte as Hugging Face's library does for tensors of one element type: sorted by name,
 * header padded with spaces to 8 bytes. Tensors are asked for one after the other, so host memory holds one at a time.
 *
 * @module
 */
import { type DType, DTYPE_SIZE_BYTES, findOverflow, narrow } from "../../engine/dtype.ts";
import { writeFileAtomically } from "../atomic_file.ts";
import { CheckpointError } from "../errors.ts";

/** The values of a tensor: all at once, or in consecutive pieces (row shards read back one by one). */
export type TensorValues =
  | Float32Array
  | Promise<Float32Array>
  | Iterable<Float32Array>
  | AsyncIterable<Float32Array>;

/** A tensor to be written. */
export interface TensorSource {
  /** The tensor's name, as Hugging Face spells it. */
  name: string;
  /** Row-major; empty for a scalar. */
  shape: readonly number[];
  /** Called once, when the tensor's turn has come. */
  data(): TensorValues;
}

/** How tensors are written. */
export interface WriteOptions {
  /** The element type of all tensors. */
  dtype: DType;
  /** The strings of `__metadata__`. Default `format: "pt"`, without which transformers refuses a file. */
  metadata?: Iterable<readonly [string, string]>;
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
  const sorted = [...tensors].sort((a, b) => compareNames(a.name, b.name));
  const header = buildHeader(sorted, options);
  try {
    await writeFileAtomically(path, async (append) => {
      await append(header);
      for (const tensor of sorted) {
        for await (const bytes of storedPieces(tensor, { path, dtype: options.dtype })) await append(bytes);
      }
    });
  } catch (error) {
    if (!(error instanceof Error) || !("code" in error)) throw error;
    throw new CheckpointError(`Cannot write ${path}: ${error.message}`, { cause: error });
  }
}

function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function buildHeader(tensors: TensorSource[], options: WriteOptions): Uint8Array {
  const metadata = [...(options.metadata ?? [["format", "pt"] as const])];
  metadata.sort(([a], [b]) => compareNames(a, b));
  // Joined by hand: a JavaScript object would move names that look like numbers to the front.
  const parts: string[] = [];
  if (metadata.length > 0) {
    const pairs = metadata.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
    parts.push(`"__metadata__":{${pairs.join(",")}}`);
  }
  let startByte = 0;
  for (const [i, { name, shape }] of tensors.entries()) {
    if (name === tensors[i - 1]?.name || name === "__metadata__") {
      throw new RangeError(
        `Cannot write tensor ${JSON.stringify(name)}: expected a name of its own, found it taken`,
      );
    }
    const endByte = startByte + elementCount(shape) * DTYPE_SIZE_BYTES[options.dtype];
    const entry = { dtype: options.dtype.toUpperCase(), shape, data_offsets: [startByte, endByte] };
    parts.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
    startByte = endByte;
  }
  const json = new TextEncoder().encode(`{${parts.join(",")}}`);
  const bytes = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true);
  bytes.set(json, 8);
  return bytes;
}

async function* storedPieces(
  tensor: TensorSource,
  place: { path: string; dtype: DType },
): AsyncGenerator<Uint8Array> {
  const { name, shape } = tensor;
  const values = await tensor.data();
  const expected = elementCount(shape);
  let found = 0;
  for await (const piece of values instanceof Float32Array ? [values] : values) {
    const overflow = findOverflow(piece, place.dtype);
    if (overflow >= 0) {
      throw new CheckpointError(
        `Cannot write ${place.path}: tensor ${
          JSON.stringify(name)
        }: expected values within ${place.dtype}, ` +
          `found ${piece[overflow]} at element ${found + overflow}`,
      );
    }
    found += piece.length;
    yield narrow(piece, place.dtype);
  }
  if (found !== expected) {
    throw new RangeError(
      `Cannot write tensor ${
        JSON.stringify(name)
      }: expected ${expected} values for its shape, found ${found}`,
    );
  }
}
