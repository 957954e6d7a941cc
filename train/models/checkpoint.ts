/**
 * The weights of a model folder as one object: model.safetensors, or several files with model.safetensors.index.json.
 *
 * @module
 */
import { join } from "node:path";
import { type DType, DTYPE_SIZE_BYTES } from "../../engine/dtype.ts";
import { CheckpointError } from "../errors.ts";
import { type CheckpointIndex, parseCheckpointIndex } from "./checkpoint_index.ts";
import { openSafetensors, type SafetensorsFile, type WeightsReader } from "./safetensors.ts";
import type { TensorEntry } from "./safetensors_header.ts";

/** The weights in one file. */
export const SINGLE_FILE = "model.safetensors";

/** What names the files of weights in several. */
export const INDEX_FILE = "model.safetensors.index.json";

/** Files that are kept open at a time: a checkpoint may have hundreds. */
const MAX_OPEN_FILES = 16;

/** How a checkpoint lay on the disk, to write it back in the same way. */
export interface CheckpointLayout {
  /** Whether there was an index. */
  readonly isSharded: boolean;
  /** Tensor -> name of its file. */
  readonly files: ReadonlyMap<string, string>;
  /** Tensor -> its element type, for those that are weights. */
  readonly dtypes: ReadonlyMap<string, DType>;
}

/** Open weights. Dispose of them (`using`) when they are loaded. */
export interface Checkpoint extends WeightsReader {
  /** The model's folder. */
  readonly folder: string;
  /** How it lies on the disk. */
  readonly layout: CheckpointLayout;
}

/**
 * Opens the weights of a model folder and checks the headers of all files, and the files against the index: every tensor
 * in exactly one file, the one that the index names, and the sizes adding up to its total. Where both are there,
 * model.safetensors counts, as for transformers.
 *
 * @param folder A folder in Hugging Face layout.
 * @returns All tensors under one roof. Reads of one file are done in turn; at most 16 files are open at a time.
 * @throws {CheckpointError} Naming the file, tensor or key that is missing, damaged or contradicts the others.
 * @example
 * ```ts
 * import { writeCheckpoint } from "./checkpoint_write.ts";
 *
 * const folder = Deno.makeTempDirSync();
 * const tensors = ["a", "b"].map((name) => ({ name, shape: [2], data: () => new Float32Array([1, 2]) }));
 * await writeCheckpoint(folder, tensors, { dtype: "f32", maxShardBytes: 8 });
 * using checkpoint = await openCheckpoint(folder);
 * if (!checkpoint.tensors.get("b")?.file.endsWith("model-00002-of-00002.safetensors")) throw new Error("in two files");
 * if ((await checkpoint.read("b", { finite: true })).join() !== "1,2") throw new Error("as written");
 * ```
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const { path, index } = await findWeights(folder);
  const names = index ? [...new Set(index.weightMap.values())].sort() : [SINGLE_FILE];
  const files = openFiles(folder);
  try {
    const holders = new Map<string, string[]>();
    const entries = new Map<string, TensorEntry>();
    for (const name of names) {
      await files.use(name, ({ tensors }) => {
        for (const [tensor, entry] of tensors) {
          holders.set(tensor, [...holders.get(tensor) ?? [], name]);
          entries.set(tensor, entry);
        }
      });
    }
    if (index) checkIndex(index, { path, holders, entries });
    return reader({ folder, path, index, entries, holders, files });
  } catch (error) {
    files[Symbol.dispose]();
    throw error;
  }
}

function reader(parts: {
  folder: string;
  path: string;
  index?: CheckpointIndex;
  entries: ReadonlyMap<string, TensorEntry>;
  holders: ReadonlyMap<string, string[]>;
  files: OpenFiles;
}): Checkpoint {
  const { folder, path, index, entries: tensors, holders, files } = parts;
  const layout = {
    isSharded: index !== undefined,
    files: new Map(Array.from(holders, ([tensor, [name]]) => [tensor, name])),
    dtypes: new Map([...tensors].flatMap(([tensor, { dtype }]) => {
      const name = dtype.toLowerCase();
      return name in DTYPE_SIZE_BYTES ? [[tensor, name as DType]] : [];
    })),
  };
  const inFile = <Result>(tensor: string, action: (file: SafetensorsFile) => Promise<Result>) => {
    const name = layout.files.get(tensor);
    if (name === undefined) throw noSuchTensor(path, { tensor, others: tensors.size });
    return files.use(name, (file) => {
      refuseChanged(file.tensors.get(tensor), tensors.get(tensor)!);
      return action(file);
    });
  };
  return {
    ...{ folder, path, tensors, layout },
    read: async (name, options) => await inFile(name, (file) => file.read(name, options)),
    readStored: async (name, rows, options) =>
      await inFile(name, (file) => file.readStored(name, rows, options)),
    [Symbol.dispose]: files[Symbol.dispose],
  };
}

function noSuchTensor(path: string, { tensor, others }: { tensor: string; others: number }): CheckpointError {
  return new CheckpointError(
    `Cannot read ${path}: expected tensor ${JSON.stringify(tensor)}, found ${others} others`,
  );
}

/** Files are closed and opened again when there are many: another process may have replaced one meanwhile. */
function refuseChanged(now: TensorEntry | undefined, then: TensorEntry): void {
  if (JSON.stringify(now) === JSON.stringify(then)) return;
  throw new CheckpointError(
    `Cannot read ${then.file}: tensor ${
      JSON.stringify(then.name)
    }: expected it as it was on opening, found it changed`,
  );
}

/** Which file to open first: the weights themselves, or their index. */
async function findWeights(folder: string): Promise<{ path: string; index?: CheckpointIndex }> {
  const single = join(folder, SINGLE_FILE);
  if (await isThere(single)) return { path: single };
  const path = join(folder, INDEX_FILE);
  if (await isThere(path)) return { path, index: parseCheckpointIndex(await readText(path), { file: path }) };
  const pickled = join(folder, "pytorch_model.bin");
  const found = await isThere(pickled) ? "pytorch_model.bin, which can run code when it is read" : "nothing";
  throw new CheckpointError(
    `Cannot read ${folder}: expected ${SINGLE_FILE} or ${INDEX_FILE}, found ${found}`,
  );
}

async function isThere(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw unreadable(path, error);
  }
}

async function readText(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): CheckpointError {
  const message = error instanceof Error ? error.message : String(error);
  return new CheckpointError(`Cannot read ${path}: ${message}`, { cause: error });
}

/** Holds the files against the index. */
function checkIndex(
  { weightMap, totalBytes }: CheckpointIndex,
  found: {
    path: string;
    holders: ReadonlyMap<string, string[]>;
    entries: ReadonlyMap<string, TensorEntry>;
  },
): void {
  const { path, holders, entries } = found;
  const refuse = (tensor: string, what: string) =>
    new CheckpointError(`Cannot read ${path}: tensor ${JSON.stringify(tensor)}: ${what}`);
  for (const [tensor, names] of holders) {
    if (names.length > 1) {
      throw refuse(tensor, `expected it in one file, found it in ${names.join(" and in ")}`);
    }
    const expected = weightMap.get(tensor);
    if (expected === undefined) throw refuse(tensor, `expected no such tensor, found it in ${names[0]}`);
    if (expected !== names[0]) throw refuse(tensor, `expected it in ${expected}, found it in ${names[0]}`);
  }
  for (const [tensor, file] of weightMap) {
    if (!holders.has(tensor)) throw refuse(tensor, `expected it in ${file}, found no such tensor there`);
  }
  if (totalBytes === undefined) return;
  const sizeBytes = [...entries.values()].reduce(
    (sum, { startByte, endByte }) => sum + endByte - startByte,
    0,
  );
  if (sizeBytes !== totalBytes) {
    throw new CheckpointError(
      `Cannot read ${path}: metadata: total_size: expected ${sizeBytes}, the bytes of all tensors, found ${totalBytes}`,
    );
  }
}

/** The files of a folder, opened when they are used. */
interface OpenFiles extends Disposable {
  /** Runs `action` on a file, which stays open until it has ended. */
  use<Result>(name: string, action: (file: SafetensorsFile) => Result | Promise<Result>): Promise<Result>;
}

function openFiles(folder: string): OpenFiles {
  // The one used longest ago comes first.
  const open = new Map<string, { opening: Promise<SafetensorsFile>; file?: SafetensorsFile; uses: number }>();
  const closeIdle = () => {
    for (const [name, { file, uses }] of open) {
      if (open.size <= MAX_OPEN_FILES) break;
      if (uses > 0) continue;
      open.delete(name);
      file?.[Symbol.dispose]();
    }
  };
  return {
    async use(name, action) {
      const entry = open.get(name) ?? { opening: openSafetensors(join(folder, name)), uses: 0 };
      open.delete(name);
      open.set(name, entry);
      entry.uses++;
      try {
        entry.file = await entry.opening;
        return await action(entry.file);
      } finally {
        entry.uses--;
        if (!entry.file) open.delete(name);
        closeIdle();
      }
    },
    [Symbol.dispose]() {
      for (const { file } of open.values()) file?.[Symbol.dispose]();
      open.clear();
    },
  };
}
