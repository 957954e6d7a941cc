/**
 * Reading safetensors: the header is checked in full on opening, then tensors are read one at a time, whole or by rows,
 * so that host memory holds no more than what was asked for.
 *
 * @module
 */
import { type DType, DTYPE_SIZE_BYTES, findUnusable, widen } from "../../engine/dtype.ts";
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

/** Stored elements of a tensor. */
export interface StoredElements {
  /** What the bytes hold. */
  readonly dtype: DType;
  /** Little-endian, row-major. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Tensors that can be read by name, from one file or from several. */
export interface WeightsReader extends Disposable {
  /** The file to name in messages: the one that holds the tensors, or says which file does. */
  readonly path: string;
  /** The tensors by name; of one file in the order of their data. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
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
   * @param options.into Where the bytes go, as many as they are or more; new memory by default.
   * @returns The element type and the little-endian bytes.
   * @throws {CheckpointError} As {@link WeightsReader.read}.
   */
  readStored(
    name: string,
    rows?: readonly [number, number],
    options?: { into?: Uint8Array<ArrayBuffer> },
  ): Promise<StoredElements>;
}

/** An open safetensors file. Dispose of it (`using`) when the weights are loaded. */
export interface SafetensorsFile extends WeightsReader {
  /** The checked header. */
  readonly header: SafetensorsHeader;
}

/** Element types that weights are quantized to; they are of no use without scales that other tensors hold. */
const QUANTIZED = /^([IU](8|32)|F[468](_.*)?)$/;

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
    const start = await readAt(0, new Uint8Array(Math.min(LENGTH_BYTES, fileBytes)));
    const headerBytes = readHeaderLength(start, { file: path, fileBytes });
    const header = parseHeader(await readAt(LENGTH_BYTES, new Uint8Array(headerBytes)), {
      file: path,
      fileBytes,
    });
    return {
      path,
      header,
      tensors: header.tensors,
      async read(name, { rows, finite } = {}) {
        const entry = findTensor(header, { name, path });
        const stored = await readEntry(entry, { header, readAt, rows });
        if (finite) refuseNonFinite(stored, { entry, firstRow: rows?.[0] ?? 0 });
        return widen(stored.bytes, stored.dtype);
      },
      // async: what is wrong with the name or the rows is a rejection, as what is wrong with the file.
      // deno-lint-ignore require-await
      async readStored(name, rows, options) {
        return readEntry(findTensor(header, { name, path }), { header, readAt, rows, ...options });
      },
      [Symbol.dispose]: () => handle.close(),
    };
  } catch (error) {
    handle.close();
    throw error;
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

/** Fills `bytes` from a place in the file. */
type ReadAt = (position: number, bytes: Uint8Array<ArrayBuffer>) => Promise<Uint8Array<ArrayBuffer>>;

/** Seeking and reading share the file's position, so one read must end before the next one seeks. */
function inTurn(handle: Deno.FsFile, path: string): ReadAt {
  let last: Promise<unknown> = Promise.resolve();
  return (position, bytes) => {
    const result = last.then(() => readFully(handle, { path, position, bytes }));
    // A failed read is reported to its own caller; the next one in line starts afresh.
    last = result.catch(() => undefined);
    return result;
  };
}

async function readFully(
  handle: Deno.FsFile,
  place: { path: string; position: number; bytes: Uint8Array<ArrayBuffer> },
): Promise<Uint8Array<ArrayBuffer>> {
  const { path, position, bytes } = place;
  const sizeBytes = bytes.byteLength;
  let done = 0;
  try {
    // Without waiting: the read then starts before whoever waited for the one before goes on with its bytes.
    handle.seekSync(position, Deno.SeekMode.Start);
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
 * @param path The file, for the message; the one that holds the tensor by default.
 * @returns Its element type.
 * @throws {CheckpointError} When the tensor holds integers, doubles, quantized or other values.
 */
export function weightDType(entry: TensorEntry, path: string = entry.file): DType {
  const dtype = READABLE.get(entry.dtype);
  if (dtype) return dtype;
  const found = QUANTIZED.test(entry.dtype)
    ? `${entry.dtype}: quantized weights are not supported`
    : entry.dtype;
  throw new CheckpointError(
    `Cannot read ${path}: tensor ${
      JSON.stringify(entry.name)
    }, dtype: expected F32, F16 or BF16, found ${found}`,
  );
}

async function readEntry(
  entry: TensorEntry,
  source: {
    header: SafetensorsHeader;
    readAt: ReadAt;
    rows?: readonly [number, number];
    into?: Uint8Array<ArrayBuffer>;
  },
): Promise<StoredElements> {
  const { header, readAt, into } = source;
  const dtype = weightDType(entry);
  const [rowCount = 1, ...inner] = entry.shape;
  const [first, end] = source.rows ?? [0, rowCount];
  if (!(Number.isInteger(first) && Number.isInteger(end) && 0 <= first && first <= end && end <= rowCount)) {
    throw new RangeError(
      `Cannot read ${entry.file}: tensor ${
        JSON.stringify(entry.name)
      }: expected rows within [0, ${rowCount}], ` +
        `found ${showFound([first, end])}`,
    );
  }
  const rowBytes = inner.reduce((product, size) => product * size, 1) * DTYPE_SIZE_BYTES[dtype];
  const position = header.dataStartByte + entry.startByte + first * rowBytes;
  const sizeBytes = (end - first) * rowBytes;
  if (into && into.byteLength < sizeBytes) {
    throw new RangeError(
      `Cannot read ${entry.file}: expected room for ${sizeBytes} bytes, found ${into.byteLength}`,
    );
  }
  const bytes = into ? into.subarray(0, sizeBytes) : allocate(sizeBytes, entry);
  return { dtype, bytes: await readAt(position, bytes) };
}

/** A tensor may be larger than what one array can hold. */
function allocate(sizeBytes: number, { file, name }: TensorEntry): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(sizeBytes);
  } catch (cause) {
    const tensor = `tensor ${JSON.stringify(name)}`;
    throw new CheckpointError(
      `Cannot read ${file}: ${tensor}: ${sizeBytes} bytes at once: ${describe(cause)}`,
      {
        cause,
      },
    );
  }
}

/**
 * Refuses NaN and infinity in weights.
 *
 * @param stored Whole rows of a tensor.
 * @param place The tensor, and which row they begin with.
 * @throws {CheckpointError} Naming file, tensor and the first such element's index.
 */
export function refuseNonFinite(
  { dtype, bytes }: StoredElements,
  place: { entry: TensorEntry; firstRow: number },
): void {
  const at = findUnusable(bytes, dtype);
  if (at < 0) return;
  const { name, file, shape } = place.entry;
  const index: number[] = [];
  let rest = at;
  for (const size of shape.slice(1).reverse()) {
    index.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  if (shape.length > 0) index.unshift(rest + place.firstRow);
  const size = DTYPE_SIZE_BYTES[dtype];
  const [value] = widen(bytes.slice(at * size, (at + 1) * size), dtype);
  throw new CheckpointError(
    `Cannot read ${file}: tensor ${JSON.stringify(name)}: expected finite values, ` +
      `found ${value} at ${showFound(index)}`,
  );
}
