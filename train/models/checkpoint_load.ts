/**
 * Weights from an open checkpoint to the GPU: piece after piece in the order of the files, so that host memory holds two
 * pieces, one being read while the one before is checked and sent.
 *
 * @module
 */
import { type DType, DTYPE_SIZE_BYTES, findUnusable, widen } from "../../engine/dtype.ts";
import type { Parameters } from "../../engine/parameters.ts";
import { sizeOf } from "../../engine/shape.ts";
import { CheckpointError, showFound } from "../errors.ts";
import type { Checkpoint, CheckpointLayout } from "./checkpoint.ts";
import { refuseNonFinite, type StoredElements, weightDType } from "./safetensors.ts";
import type { TensorEntry } from "./safetensors_header.ts";

/** Bytes that are read at a time, unless a single row has more: they stay in a cache from reading to sending. */
const PIECE_BYTES = 2 ** 22;

/** Rows of one tensor. */
interface Piece {
  /** Of the parameter. */
  readonly name: string;
  readonly entry: TensorEntry;
  readonly rows: readonly [number, number];
  readonly sizeBytes: number;
}

const layouts = new WeakMap<Parameters, CheckpointLayout>();

/**
 * How the checkpoint lay on the disk that parameters were loaded from.
 *
 * @param parameters Of a model.
 * @returns Its layout, or undefined for parameters that were not loaded.
 */
export function loadedLayout(parameters: Parameters): CheckpointLayout | undefined {
  return layouts.get(parameters);
}

/**
 * Loads all parameters of a model from a checkpoint. Elements go to the GPU as they are stored where the parameter's
 * storage is the same, else they are converted.
 *
 * @param parameters The model's; the checkpoint holds at least these.
 * @param checkpoint Open weights, of which other tensors are passed over.
 * @param options.pieceBytes Bytes that are read at a time, unless a single row has more.
 * @param options.storedName A parameter's name to that in the checkpoint; the same by default.
 * @param options.onProgress Told how many bytes of how many are on the GPU.
 * @throws {CheckpointError} Naming file and tensor: not there, of another shape or type, NaN or infinite (with its
 *   index), or too large for the storage.
 * @example
 * ```ts
 * import { openGpu } from "../../engine/gpu.ts";
 * import { createParameters } from "../../engine/parameters.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 * import { openCheckpoint } from "./checkpoint.ts";
 * import { writeCheckpoint } from "./checkpoint_write.ts";
 *
 * const folder = Deno.makeTempDirSync();
 * await writeCheckpoint(folder, [{ name: "w", shape: [2], data: () => new Float32Array([1, 2]) }], { dtype: "f32" });
 * await ensureAdapter();
 * using gpu = await openGpu();
 * using parameters = createParameters(gpu, new Map([["w", [2]]]), { trainable: false });
 * using checkpoint = await openCheckpoint(folder);
 * await loadWeights(parameters, checkpoint);
 * if ((await parameters.read("w")).join() !== "1,2") throw new Error("as stored");
 * ```
 */
export async function loadWeights(
  parameters: Parameters,
  checkpoint: Checkpoint,
  options: {
    pieceBytes?: number;
    storedName?: (name: string) => string;
    onProgress?: (doneBytes: number, totalBytes: number) => void;
  } = {},
): Promise<void> {
  const { pieceBytes = PIECE_BYTES, storedName = (name) => name } = options;
  const pieces = piecesOf(parameters, { checkpoint, pieceBytes, storedName });
  const totalBytes = pieces.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  let doneBytes = 0;
  const largest = pieces.reduce((most, { sizeBytes }) => Math.max(most, sizeBytes), 0);
  const buffers = pieces.slice(0, 2).map(() => new Uint8Array(largest));
  const reads: Promise<StoredElements>[] = [];
  const read = (index: number) => {
    const { entry, rows } = pieces[index];
    reads[index % 2] = checkpoint.readStored(entry.name, rows, { into: buffers[index % 2] });
    // One that fails early is no unhandled rejection: its turn to be awaited comes.
    reads[index % 2].catch(() => {});
  };
  for (const index of buffers.keys()) read(index);
  try {
    for (const [index, piece] of pieces.entries()) {
      send(parameters, { checkpoint, piece, stored: await reads[index % 2] });
      doneBytes += piece.sizeBytes;
      options.onProgress?.(doneBytes, totalBytes);
      if (index + 2 < pieces.length) read(index + 2);
    }
  } finally {
    // The files must not be closed while they are read.
    await Promise.allSettled(reads);
  }
  layouts.set(parameters, underParameterNames(checkpoint.layout, parameters, storedName));
}

/** Saving asks for parameters by their own names. */
function underParameterNames(
  layout: CheckpointLayout,
  { shapes }: Parameters,
  storedName: (name: string) => string,
): CheckpointLayout {
  const named = <Value>(map: ReadonlyMap<string, Value>) => {
    const values = Array.from(shapes.keys(), (name) => [name, map.get(storedName(name))!] as const);
    return new Map([...map, ...values]);
  };
  return { ...layout, files: named(layout.files), dtypes: named(layout.dtypes) };
}

/** All rows of all parameters, in the order in which they lie on the disk. */
function piecesOf(
  parameters: Parameters,
  { checkpoint, pieceBytes, storedName }: {
    checkpoint: Checkpoint;
    pieceBytes: number;
    storedName: (name: string) => string;
  },
): Piece[] {
  const parts = Array.from(parameters.shapes, ([name, shape]) => {
    const stored = storedName(name);
    const entry = checkpoint.tensors.get(stored);
    if (entry && showFound(entry.shape) === showFound(shape)) return { name, entry };
    const found = entry ? showFound(entry.shape) : "no such tensor";
    throw new CheckpointError(
      `Cannot read ${entry?.file ?? checkpoint.path}: tensor ${JSON.stringify(stored)}: expected shape ` +
        `${showFound(shape)}, found ${found}`,
    );
  });
  parts.sort(({ entry: a }, { entry: b }) =>
    a.file < b.file ? -1 : a.file > b.file ? 1 : a.startByte - b.startByte
  );
  return parts.flatMap(({ name, entry }) => {
    const rowBytes = sizeOf(entry.shape.slice(1)) * DTYPE_SIZE_BYTES[weightDType(entry)];
    const rowCount = entry.shape[0] ?? 1;
    const step = Math.max(1, Math.floor(pieceBytes / rowBytes));
    return Array.from({ length: Math.ceil(rowCount / step) }, (_, index): Piece => {
      const rows = [index * step, Math.min(rowCount, (index + 1) * step)] as const;
      return { name, entry, rows, sizeBytes: (rows[1] - rows[0]) * rowBytes };
    });
  });
}

function send(
  parameters: Parameters,
  { checkpoint, piece, stored }: { checkpoint: Checkpoint; piece: Piece; stored: StoredElements },
): void {
  const { name, entry, rows: [firstRow] } = piece;
  const storage = parameters.storage(name);
  const at = findUnusable(stored.bytes, stored.dtype, { storage });
  if (at >= 0) {
    refuseNonFinite(stored, { entry, firstRow });
    throw tooLarge(stored, { folder: checkpoint.folder, name: entry.name, storage, at });
  }
  parameters.writeStored(name, stored.bytes, { dtype: stored.dtype, firstRow });
}

/** A weight that becomes infinite would make every loss NaN. */
function tooLarge(
  { dtype, bytes }: StoredElements,
  place: { folder: string; name: string; storage: DType; at: number },
): CheckpointError {
  const { folder, name, storage, at } = place;
  const size = DTYPE_SIZE_BYTES[dtype];
  const [value] = widen(bytes.slice(at * size, (at + 1) * size), dtype);
  return new CheckpointError(
    `Cannot load ${folder} as ${storage}: expected weights that it can hold, found ${value} in ${name}`,
  );
}
