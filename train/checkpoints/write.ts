/**
 * Writing a checkpoint, so that it is whole or not there whatever happens on the way.
 * @module
 */
import { join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import { byteLength, storageOf, type Tensor } from "../../engine/tensor.ts";
import { stageFile } from "../atomic_file.ts";
import { CheckpointError } from "../errors.ts";
import { type FileSystem, syncFolder } from "../file_system.ts";
import { namingFile, type TensorPiece, writeSafetensors } from "../models/safetensors_write.ts";
import { hashFile, listFiles } from "./files.ts";
import { CHECKPOINTS_FOLDER, stepName } from "./folders.ts";
import { FORMAT_VERSION, formatManifest, MANIFEST_FILE, STATE_FILE, TENSORS_FILE } from "./manifest.ts";
import { pruneCheckpoints, removeUnfinished } from "./prune.ts";
import type { RunState } from "./run_state.ts";
import { formatNumbers } from "./state_json.ts";

/** The folder in a checkpoint that holds what the run would save as its model. */
export const MODEL_FOLDER = "model";

/** Bytes of a tensor that are read back at a time. */
const PIECE_BYTES = 2 ** 22;

/** Where a checkpoint goes, and what is written besides the state. */
export interface CheckpointContext {
  /** The run's folder, which must exist. */
  readonly folder: string;
  /** Settings and hashes of files that the run's result depends on, of values that JSON can hold. */
  readonly identity: Readonly<Record<string, unknown>>;
  /** How many of the last checkpoints stay, at least 1. */
  readonly keep: number;
  /** Writes the model to a folder that is there. */
  saveModel(folder: string): Promise<void>;
  /** Of the metric by which the best checkpoint is kept besides the last ones: a finite number, higher is better. */
  readonly score?: number;
  /** Deno by default. */
  readonly fileSystem?: FileSystem;
}

/**
 * Writes a checkpoint, then removes those that are no longer kept. Everything is written to a hidden folder and flushed
 * to the disk, the manifest last; then the folder gets its name. Tensors are read back and written piece by piece.
 *
 * @param state the run's
 * @param context where to, and how many are kept
 * @returns the checkpoint's folder, `checkpoints/step-000100` in the run's
 * @throws {CheckpointError} naming the file that could not be written or removed; earlier checkpoints are as they were
 * @throws {RangeError} on a number that is not finite
 */
export async function writeCheckpoint(state: RunState, context: CheckpointContext): Promise<string> {
  const { folder, keep, score, fileSystem = Deno } = context;
  if (!(Number.isInteger(keep) && keep >= 1)) {
    throw new RangeError(`Cannot save a checkpoint: expected at least one to be kept, found ${keep}`);
  }
  if (score !== undefined && !Number.isFinite(score)) {
    throw new RangeError(`Cannot save a checkpoint: expected a finite score, found ${score}`);
  }
  const root = join(folder, CHECKPOINTS_FOLDER);
  await makeRoot(folder, fileSystem);
  await removeUnfinished(folder, fileSystem);
  const partial = join(root, `.${stepName(state.step)}.${Deno.pid}.partial`);
  try {
    await writePartial(partial, state, context);
    await moveIntoPlace(partial, { root, step: state.step, fileSystem });
  } catch (error) {
    // That it cannot be removed either only follows from the first error; the next save or start removes it.
    await fileSystem.remove(partial, { recursive: true }).catch(() => undefined);
    throw error;
  }
  await pruneCheckpoints(folder, { step: state.step, keep, fileSystem });
  return join(root, stepName(state.step));
}

/** The run's folder is not made anew: where it is gone, that is an error. */
async function makeRoot(folder: string, fileSystem: FileSystem): Promise<void> {
  const root = join(folder, CHECKPOINTS_FOLDER);
  await namingFile(root, async () => {
    try {
      await fileSystem.mkdir(root);
    } catch (error) {
      // Whether it is a folder is checked by who lists it.
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
    await syncFolder(folder, fileSystem);
  });
}

async function writePartial(partial: string, state: RunState, context: CheckpointContext): Promise<void> {
  const { fileSystem = Deno } = context;
  const model = join(partial, MODEL_FOLDER);
  await namingFile(partial, () => fileSystem.mkdir(partial));
  await namingFile(model, async () => {
    await fileSystem.mkdir(model);
    await context.saveModel(model);
  });
  await writeTensors(join(partial, TENSORS_FILE), state, fileSystem);
  await writeText(join(partial, STATE_FILE), formatNumbers(state), fileSystem);
  const listing = await listFiles(partial, fileSystem);
  const files: { path: string; sizeBytes: number; sha256: string }[] = [];
  for (const [path, sizeBytes] of [...listing.files].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    // What saveModel wrote need not be on the disk yet.
    const sha256 = await hashFile(join(partial, path), { sizeBytes, sync: true, fileSystem });
    files.push({ path, sizeBytes, sha256 });
  }
  for (const name of listing.folders) {
    await namingFile(join(partial, name), () => syncFolder(join(partial, name), fileSystem));
  }
  const { step } = state;
  const { identity, score } = context;
  const text = formatManifest({
    ...{ formatVersion: FORMAT_VERSION, keelVersion: project.version, step },
    ...(score === undefined ? {} : { score }),
    ...{ identity, files },
  });
  // Flushes the folder too, with all names in it.
  await writeText(join(partial, MANIFEST_FILE), text, fileSystem);
}

async function writeText(path: string, text: string, fileSystem: FileSystem): Promise<void> {
  const bytes = new TextEncoder().encode(text);
  await namingFile(path, async () => {
    await (await stageFile(path, (append) => append(bytes), { fileSystem })).commit();
  });
}

async function writeTensors(path: string, state: RunState, fileSystem: FileSystem): Promise<void> {
  const tensors = Object.values(state.parts).flatMap((part) => part.tensors).map(({ name, tensor }) => ({
    name,
    shape: tensor.shape,
    dtype: storageOf(tensor),
    data: () => readPieces(tensor),
  }));
  await writeSafetensors(path, tensors, { dtype: "f32", metadata: [], fileSystem });
}

/**
 * Reads a state back as saving it does, and writes no file: for planning devices.
 *
 * @param state a run's state
 */
export async function saveStateNowhere(state: RunState): Promise<void> {
  for (const { tensor } of Object.values(state.parts).flatMap((part) => part.tensors)) {
    for await (const _piece of readPieces(tensor));
  }
}

async function* readPieces(tensor: Tensor): AsyncGenerator<TensorPiece> {
  const { gpu, range: { allocation, offsetBytes } } = tensor;
  const dtype = storageOf(tensor);
  const most = PIECE_BYTES;
  const total = byteLength(tensor);
  for (let done = 0; done < total; done += most) {
    const sizeBytes = Math.min(most, total - done);
    const bytes = await gpu.queue.read({ allocation, offsetBytes: offsetBytes + done, sizeBytes });
    yield { dtype, bytes: new Uint8Array(bytes) };
  }
}

/** Where a damaged checkpoint of this step is in the way, it is put aside until the new one is in place. */
async function moveIntoPlace(
  partial: string,
  { root, step, fileSystem }: { root: string; step: number; fileSystem: FileSystem },
): Promise<void> {
  const path = join(root, stepName(step));
  const replaced = join(root, `.${stepName(step)}.replaced`);
  await namingFile(path, async () => {
    if (await exists(path, fileSystem)) await fileSystem.rename(path, replaced);
    await fileSystem.rename(partial, path);
    await syncFolder(root, fileSystem);
    // Also one that a run left which died between the two names.
    if (await exists(replaced, fileSystem)) await fileSystem.remove(replaced, { recursive: true });
  });
}

async function exists(path: string, fileSystem: FileSystem): Promise<boolean> {
  try {
    const { isDirectory } = await fileSystem.lstat(path);
    if (isDirectory) return true;
    throw new CheckpointError(`Cannot write ${path}: expected a folder, found a file or a link`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
