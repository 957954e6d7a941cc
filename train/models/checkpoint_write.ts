/**
 * Writing the weights of a model folder: one file where they fit, else shards with an index, as Hugging Face names them.
 *
 * @module
 */
import { join } from "node:path";
import { type DType, DTYPE_SIZE_BYTES } from "../../engine/dtype.ts";
import { sizeOf } from "../../engine/shape.ts";
import { type StagedFile, stageFile } from "../atomic_file.ts";
import { type CheckpointLayout, INDEX_FILE, SINGLE_FILE } from "./checkpoint.ts";
import { formatCheckpointIndex, parseCheckpointIndex } from "./checkpoint_index.ts";
import { namingFile, stageSafetensors, type TensorSource, type WriteOptions } from "./safetensors_write.ts";

/** Bytes of tensors in one file, unless a tensor alone has more: as transformers has had it for long. */
export const DEFAULT_SHARD_BYTES = 5e9;

/** How weights are written. */
export interface CheckpointWriteOptions extends Omit<WriteOptions, "dtype"> {
  /** Of all tensors; `loaded` for that which each had in `layout`, and f32 where it had none. */
  dtype: DType | "loaded";
  /** Bytes of tensors in one file; by default {@link DEFAULT_SHARD_BYTES}, or the files are those of `layout`. */
  maxShardBytes?: number;
  /** How the weights lay on the disk when they were loaded. */
  layout?: CheckpointLayout;
}

/** A file to be written. */
export interface PlannedFile {
  /** Its name in the folder. */
  readonly name: string;
  /** What it holds. */
  readonly tensors: readonly (TensorSource & { readonly dtype: DType })[];
}

/**
 * Writes the weights of a model folder. Everything is written under temporary names first, the index last, so whatever
 * fails until then leaves an older checkpoint as it was. Then the files get their names; those of an older checkpoint
 * that lie in the new one's place in another layout are removed at the end.
 *
 * @param folder The model's folder, which must exist.
 * @param tensors In the order of the forward pass; they are asked for one after the other.
 * @param options Element type, and how the tensors are spread over files.
 * @returns The names of the files written.
 * @throws {CheckpointError} When a file cannot be written, or a finite value is too large for the element type.
 * @throws {RangeError} When a name occurs twice, or the shard size is no positive number.
 * @example
 * ```ts
 * const folder = Deno.makeTempDirSync();
 * const tensors = ["a", "b"].map((name) => ({ name, shape: [2], data: () => new Float32Array([1, 2]) }));
 * const names = await writeCheckpoint(folder, tensors, { dtype: "bf16", maxShardBytes: 4 });
 * if (names.join() !== "model-00001-of-00002.safetensors,model-00002-of-00002.safetensors,model.safetensors.index.json") {
 *   throw new Error("4 bytes to a file");
 * }
 * await writeCheckpoint(folder, tensors, { dtype: "bf16" });
 * if ([...Deno.readDirSync(folder)].length !== 1) throw new Error("the shards are gone");
 * ```
 */
export async function writeCheckpoint(
  folder: string,
  tensors: Iterable<TensorSource>,
  options: CheckpointWriteOptions,
): Promise<string[]> {
  const files = planFiles(tensors, options);
  const isSharded = files[0].name !== SINGLE_FILE;
  const staged: StagedFile[] = [];
  try {
    for (const { name, tensors } of files) {
      staged.push(await stageSafetensors(join(folder, name), tensors, { ...options, dtype: "f32" }));
    }
    if (isSharded) staged.push(await stageIndex(folder, files, options));
    await replaceFiles(folder, staged, options);
  } catch (error) {
    for (const file of staged) await file.discard();
    throw error;
  }
  return [...files.map(({ name }) => name), ...(isSharded ? [INDEX_FILE] : [])];
}

/**
 * Decides which tensor goes to which file. By size, tensors fill files in order, and one that is larger than a file has
 * one for itself, in front of that which is being filled when it comes, as Hugging Face has it; by layout, each goes where it was, and one that was nowhere to the last file.
 *
 * @param tensors In order.
 * @param options As for {@link writeCheckpoint}.
 * @returns The files, each with at least one tensor unless there is none at all.
 * @throws {RangeError} When a name occurs twice, or the shard size is no positive number.
 * @example
 * ```ts
 * const tensors = [1, 1, 3].map((rows, i) => ({ name: `${i}`, shape: [rows, 2], data: () => new Float32Array(rows * 2) }));
 * const files = planFiles(tensors, { dtype: "f32", maxShardBytes: 16 });
 * if (files.map(({ tensors }) => tensors.length).join() !== "1,2") throw new Error("one of 24 bytes, two of 8");
 * ```
 */
export function planFiles(tensors: Iterable<TensorSource>, options: CheckpointWriteOptions): PlannedFile[] {
  const { layout, maxShardBytes } = options;
  const typed = Array.from(tensors, (tensor) => ({ ...tensor, dtype: dtypeOf(tensor, options) }));
  const seen = new Set<string>();
  for (const { name } of typed) {
    if (seen.has(name)) {
      throw new RangeError(
        `Cannot write tensor ${JSON.stringify(name)}: expected one of that name, found two`,
      );
    }
    seen.add(name);
  }
  if (maxShardBytes === undefined && layout) return asBefore(typed, layout);
  return bySize(typed, maxShardBytes ?? DEFAULT_SHARD_BYTES);
}

type TypedTensor = PlannedFile["tensors"][number];

function dtypeOf({ name, dtype }: TensorSource, options: CheckpointWriteOptions): DType {
  if (dtype) return dtype;
  return options.dtype === "loaded" ? options.layout?.dtypes.get(name) ?? "f32" : options.dtype;
}

function bytesOf({ shape, dtype }: TypedTensor): number {
  return sizeOf(shape) * DTYPE_SIZE_BYTES[dtype];
}

function bySize(tensors: readonly TypedTensor[], maxBytes: number): PlannedFile[] {
  if (!(maxBytes > 0)) {
    throw new RangeError(`Cannot write a checkpoint: expected a positive shard size, found ${maxBytes}`);
  }
  const groups: TypedTensor[][] = [];
  let filling: TypedTensor[] = [];
  let filledBytes = 0;
  for (const tensor of tensors) {
    const sizeBytes = bytesOf(tensor);
    if (sizeBytes > maxBytes) {
      groups.push([tensor]);
      continue;
    }
    if (filledBytes + sizeBytes > maxBytes) {
      groups.push(filling);
      [filling, filledBytes] = [[], 0];
    }
    filling.push(tensor);
    filledBytes += sizeBytes;
  }
  if (filling.length > 0 || groups.length === 0) groups.push(filling);
  return named(groups);
}

function asBefore(tensors: readonly TypedTensor[], layout: CheckpointLayout): PlannedFile[] {
  const names = [...new Set(layout.files.values())].sort();
  if (!layout.isSharded || names.length === 0) return named([tensors]);
  const files = names.map((name) => ({
    name,
    tensors: tensors.filter((tensor) => (layout.files.get(tensor.name) ?? names.at(-1)) === name),
  }));
  const kept = files.filter((file) => file.tensors.length > 0);
  // A file that held nothing but what a model does not keep would leave a gap in the numbers.
  return kept.length === files.length ? files : named(kept.map((file) => file.tensors));
}

function named(groups: readonly (readonly TypedTensor[])[]): PlannedFile[] {
  if (groups.length === 1) return [{ name: SINGLE_FILE, tensors: groups[0] }];
  const five = (number: number) => String(number).padStart(5, "0");
  return groups.map((tensors, i) => ({
    name: `model-${five(i + 1)}-of-${five(groups.length)}.safetensors`,
    tensors,
  }));
}

function stageIndex(
  folder: string,
  files: readonly PlannedFile[],
  { fileSystem }: Pick<WriteOptions, "fileSystem">,
): Promise<StagedFile> {
  const weightMap = new Map(
    files.flatMap(({ name, tensors }) => tensors.map((tensor) => [tensor.name, name] as const)),
  );
  const totalBytes = files.flatMap(({ tensors }) => tensors).reduce(
    (sum, tensor) => sum + bytesOf(tensor),
    0,
  );
  const path = join(folder, INDEX_FILE);
  const text = formatCheckpointIndex({ weightMap, totalBytes });
  return namingFile(
    path,
    () => stageFile(path, (append) => append(new TextEncoder().encode(text)), { fileSystem }),
  );
}

/** Gives staged files their names, then removes what is left of an older checkpoint. Takes them out of the list. */
async function replaceFiles(
  folder: string,
  staged: StagedFile[],
  { fileSystem = Deno }: Pick<WriteOptions, "fileSystem">,
): Promise<void> {
  const paths = new Set(staged.map(({ path }) => path));
  const old = await oldFiles(folder);
  const index = join(folder, INDEX_FILE);
  const overwrites = old.some((path) => path !== index && paths.has(path));
  if (paths.has(index) && old.includes(index) && overwrites) {
    // Its shards are replaced one by one: without it, a half-replaced checkpoint is none, rather than a mixture.
    await namingFile(index, () => fileSystem.remove(index));
  }
  while (staged.length > 0) {
    const file = staged.shift()!;
    await namingFile(file.path, () => file.commit());
  }
  for (const path of old) if (!paths.has(path)) await namingFile(path, () => fileSystem.remove(path));
}

const SHARD = /^model-\d{5}-of-\d{5}\.safetensors$/;

/**
 * Whether a name is one of those that {@link writeCheckpoint} gives its files.
 *
 * @param name without its folder
 */
export function isCheckpointFile(name: string): boolean {
  return name === SINGLE_FILE || name === INDEX_FILE || SHARD.test(name);
}

/** The files of a checkpoint in either layout, those first by which it is found. */
async function oldFiles(folder: string): Promise<string[]> {
  const shards = new Set<string>();
  const there = new Set<string>();
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) continue;
    there.add(name);
    if (SHARD.test(name)) shards.add(name);
  }
  if (there.has(INDEX_FILE)) {
    for (const name of await indexedFiles(join(folder, INDEX_FILE))) shards.add(name);
  }
  return [SINGLE_FILE, INDEX_FILE, ...shards].filter((name) => there.has(name)).map((name) =>
    join(folder, name)
  );
}

/** What an older index names; one that cannot be read names nothing, and is about to go. */
async function indexedFiles(path: string): Promise<Iterable<string>> {
  try {
    return new Set(parseCheckpointIndex(await Deno.readTextFile(path), { file: path }).weightMap.values());
  } catch {
    return [];
  }
}
