/**
 * Reading safetensors: the header is checked in full on opening, then tensors are read one at a time, whole or by rows,
 * so that host memory holds no more than what was asked for.
 *
 * @module
 */
import { join } from "node:path";
import { type DType, DTYPE_SIZE_BYTES, widen } from "../../engine/dtype.ts";
import { CheckpointError, showFound } from "../errors.ts";
import {
  LENGTH_BYTES,
  parseHeader,
  readHeaderLength,
  type SafetensorsHeader,
  type TensorEntry,
} from "./safetensors_header.ts";

/** What part of a tensor to read, and what to refuse. */
export interface ReadOptions {
  /** `[first, end)` along the first dimension; all rows when absent. A row is everything under one first index. */
  rows?: readonly [number, number];
  /** Refuse NaN and infinity, naming tensor and element. Default false. */
  finite?: boolean;
}

/** An open safetensors file. Dispose of it (`using`) when the weights are loaded. */
export interface SafetensorsFile extends Disposable {
  /** The path it was opened by, for messages. */
  readonly path: string;
  /** The checked header. */
  readonly header: SafetensorsHeader;
  /**
   * Reads a tensor's elements, widened to f32.
   *
   * @param name The tensor's name.
   * @param options Rows, and whether non-finite values are refused.
   * @returns `[N]`, row-major.
   * @throws {CheckpointError} When there is no such tensor, its type is not f32, f16 or bf16, or the file ends early.
   */
  read(name: string, options?: ReadOptions): Promise<Float32Array>;
  /**
   * Reads a tensor's bytes as they are stored, for a kernel that widens by itself.
   *
   * @param name The tensor's name.
   * @param rows `[first, end)` along the first dimension; all when absent.
   * @returns The element type and the little-endian bytes.
   * @throws {CheckpointError} As {@link SafetensorsFile.read}.
   */
  readStored(name: string, rows?: readonly [number, number]): Promise<{ dtype: DType; bytes: Uint8Array }>;
}

const READABLE: ReadonlyMap<string, DType> = new Map([["F32", "f32"], ["F16", "f16"], ["BF16", "bf16"]]);

/**
 * Opens a safetensors file and checks its header.
 *
 * @param path The file.
 * @returns The open file; reads of one file are done in turn, so they may be started together.
 * @throws {CheckpointError} When the file is missing, damaged or lies about its contents.
 * @example
 * ```ts
 * import { writeSafetensors } from "./safetensors_write.ts";
 *
 * const path = `${Deno.makeTempDirSync()}/model.safetensors`;
 * await writeSafetensors(path, [{ name: "w", shape: [2, 2], data: () => new Float32Array([1, 2, 3, 4]) }], { dtype: "bf16" });
 * using file = await openSafetensors(path);
 * const secondRow = await file.read("w", { rows: [1, 2], finite: true });
 * if (secondRow.join() !== "3,4") throw new Error("the second row is 3, 4");
 * ```
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const handle = await openFile(path);
  try {
    const readAt = inTurn(handle, path);
    const fileBytes = (await handle.stat()).size;
    const start = await readAt(0, Math.min(LENGTH_BYTES, fileBytes));
    const headerBytes = readHeaderLength(start, { file: path, fileBytes });
    const header = parseHeader(await readAt(LENGTH_BYTES, headerBytes), { file: path, fileBytes });
    return {
      path,
      header,
      async read(name, options = {}) {
        const entry = findTensor(header, { name, path });
        const { dtype, bytes } = await readEntry(entry, { header, path, readAt, rows: options.rows });
        const values = widen(bytes, dtype);
        if (options.finite) checkFinite(values, { entry, path, firstRow: options.rows?.[0] ?? 0 });
        return values;
      },
      readStored: (name, rows) =>
        readEntry(findTensor(header, { name, path }), { header, path, readAt, rows }),
      [Symbol.dispose]: () => handle.close(),
    };
  } catch (error) {
    handle.close();
    throw error;
  }
}

/**
 * Finds the weights of a model folder. Checkpoints in several files (`model.safetensors.index.json`, whose `weight_map`
 * tells the file of each tensor) would be opened here as one {@link SafetensorsFile} over all of them.
 *
 * @param folder A folder in Hugging Face layout.
 * @returns The path of its one safetensors file.
 * @throws {CheckpointError} When there is none, naming what is there instead.
 */
export async function findWeightsFile(folder: string): Promise<string> {
  const single = join(folder, "model.safetensors");
  if (await isThere(single)) return single;
  const sharded = join(folder, "model.safetensors.index.json");
  if (await isThere(sharded)) {
    throw new CheckpointError(
      `Cannot read ${sharded}: expected one model.safetensors, found a checkpoint in several files, which is not supported`,
    );
  }
  const pickled = join(folder, "pytorch_model.bin");
  const found = await isThere(pickled) ? "pytorch_model.bin, which can run code when it is read" : "nothing";
  throw new CheckpointError(`Cannot read ${folder}: expected model.safetensors, found ${found}`);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw new CheckpointError(`Cannot read ${path}: ${describe(error)}`, { cause: error });
  }
}

async function openFile(path: string): Promise<Deno.FsFile> {
  let handle: Deno.FsFile;
  try {
    if ((await Deno.stat(path)).isDirectory) {
      throw new CheckpointError(`Cannot read ${path}: expected a file, found a folder`);
    }
    handle = await Deno.open(path);
  } catch (error) {
    if (error instanceof CheckpointError) throw error;
    const found = error instanceof Deno.errors.NotFound ? "expected a file, found nothing" : describe(error);
    throw new CheckpointError(`Cannot read ${path}: ${found}`, { cause: error });
  }
  return handle;
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

type ReadAt = (position: number, sizeBytes: number) => Promise<Uint8Array>;

/** Seeking and reading share the file's position, so one read must end before the next one seeks. */
function inTurn(handle: Deno.FsFile, path: string): ReadAt {
  let last: Promise<unknown> = Promise.resolve();
  return (position, sizeBytes) => {
    const result = last.then(() => readFully(handle, { path, position, sizeBytes }));
    // A failed read is reported to its own caller; the next one in line starts afresh.
    last = result.catch(() => undefined);
    return result;
  };
}

async function readFully(
  handle: Deno.FsFile,
  place: { path: string; position: number; sizeBytes: number },
): Promise<Uint8Array> {
  const { path, position, sizeBytes } = place;
  let bytes: Uint8Array;
  let done = 0;
  try {
    bytes = new Uint8Array(sizeBytes);
    await handle.seek(position, Deno.SeekMode.Start);
    for (let got: number | null = 0; done < sizeBytes && got !== null; done += got ?? 0) {
      got = await handle.read(bytes.subarray(done));
    }
  } catch (cause) {
    const range = `bytes ${position} to ${position + sizeBytes}`;
    throw new CheckpointError(`Cannot read ${path}: ${range}: ${describe(cause)}`, { cause });
  }
  if (done < sizeBytes) {
    throw new CheckpointError(
      `Cannot read ${path}: expected ${sizeBytes} bytes at ${position}, found ${done}: the file has been cut short`,
    );
  }
  return bytes;
}

function findTensor(header: SafetensorsHeader, place: { name: string; path: string }): TensorEntry {
  const entry = header.tensors.get(place.name);
  if (entry) return entry;
  throw new CheckpointError(
    `Cannot read ${place.path}: expected tensor ${
      JSON.stringify(place.name)
    }, found ${header.tensors.size} others`,
  );
}

/**
 * The element type of a tensor that weights can be read from.
 *
 * @param entry The tensor.
 * @param path The file, for the message.
 * @returns Its element type.
 * @throws {CheckpointError} When the tensor holds integers, doubles, quantized or other values.
 */
export function weightDType(entry: TensorEntry, path: string): DType {
  const dtype = READABLE.get(entry.dtype);
  if (dtype) return dtype;
  throw new CheckpointError(
    `Cannot read ${path}: tensor ${
      JSON.stringify(entry.name)
    }, dtype: expected F32, F16 or BF16, found ${entry.dtype}`,
  );
}

async function readEntry(
  entry: TensorEntry,
  source: { header: SafetensorsHeader; path: string; readAt: ReadAt; rows?: readonly [number, number] },
): Promise<{ dtype: DType; bytes: Uint8Array }> {
  const { header, path, readAt } = source;
  const dtype = weightDType(entry, path);
  const [rowCount = 1, ...inner] = entry.shape;
  const [first, end] = source.rows ?? [0, rowCount];
  if (!(Number.isInteger(first) && Number.isInteger(end) && 0 <= first && first <= end && end <= rowCount)) {
    throw new RangeError(
      `Cannot read ${path}: tensor ${JSON.stringify(entry.name)}: expected rows within [0, ${rowCount}], ` +
        `found ${showFound([first, end])}`,
    );
  }
  const rowBytes = inner.reduce((product, size) => product * size, 1) * DTYPE_SIZE_BYTES[dtype];
  const position = header.dataStartByte + entry.startByte + first * rowBytes;
  return { dtype, bytes: await readAt(position, (end - first) * rowBytes) };
}

function checkFinite(
  values: Float32Array,
  place: { entry: TensorEntry; path: string; firstRow: number },
): void {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return;
  const { name, shape } = place.entry;
  const index: number[] = [];
  let rest = at;
  for (const size of shape.slice(1).reverse()) {
    index.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  if (shape.length > 0) index.unshift(rest + place.firstRow);
  throw new CheckpointError(
    `Cannot read ${place.path}: tensor ${JSON.stringify(name)}: expected finite values, ` +
      `found ${values[at]} at ${showFound(index)}`,
  );
}
