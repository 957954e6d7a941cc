/**
 * A checkpoint's state back to the GPU and the host.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { join } from "node:path";
import { byteLength, storageOf } from "../../engine/tensor.ts";
import { CheckpointError, InputError, showFound } from "../errors.ts";
import { LENGTH_BYTES, parseHeader, readHeaderLength } from "../models/safetensors_header.ts";
import type { TensorEntry } from "../models/safetensors_header.ts";
import { expectHash } from "./files.ts";
import type { FoundCheckpoint } from "./find.ts";
import { cannotRead } from "./folders.ts";
import { TENSORS_FILE } from "./manifest.ts";
import type { NamedTensor, RunState } from "./run_state.ts";

/** Bytes that are read and sent at a time. */
const PIECE_BYTES = 2 ** 22;

/**
 * Sets a run's state to that of a checkpoint. Names, types and shapes are checked first; then the tensors are sent piece
 * by piece, so that host memory holds one piece, and hashed once more on the way; then the numbers are set.
 *
 * @param found from `findCheckpoint`
 * @param state of a run that was set up in the same way; when this throws after sending has begun, the run cannot go on
 * @throws {CheckpointError} naming what the checkpoint lacks, has too much, or has in another shape
 */
export async function restoreCheckpoint(found: FoundCheckpoint, state: RunState): Promise<void> {
  const path = join(found.folder, TENSORS_FILE);
  checkParts(found, state);
  const expected = found.manifest.files.find((file) => file.path === TENSORS_FILE)!;
  const tensors = new Map(
    Object.values(state.parts).flatMap((part) => part.tensors).map((named) => [named.name, named]),
  );
  const hash = createHash("sha256");
  try {
    if (!(await Deno.lstat(path)).isFile) {
      throw new CheckpointError(`Cannot read ${path}: expected a file, found a link or a folder`);
    }
    using file = await Deno.open(path);
    const { size } = await file.stat();
    if (size !== expected.sizeBytes) {
      throw new CheckpointError(`Cannot read ${path}: expected ${expected.sizeBytes} bytes, found ${size}`);
    }
    const reader = { file, path, hash };
    const entries = await readHeader(reader, size);
    checkTensors(entries, { tensors, path });
    // In the order of the file, which they cover without a gap: every byte of it is hashed.
    for (const entry of entries.values()) await sendTensor(tensors.get(entry.name)!, entry, reader);
  } catch (error) {
    throw cannotRead(path, error);
  }
  expectHash(path, expected.sha256, hash);
  for (const [name, part] of Object.entries(state.parts)) part.restore(found.numbers.parts.get(name)!);
}

interface Reader {
  readonly file: Deno.FsFile;
  readonly path: string;
  /** Of all that was read. */
  readonly hash: Hash;
}

/** Reads on from where the last read ended. */
async function readNext({ file, path, hash }: Reader, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) {
    const got = await file.read(bytes.subarray(done));
    if (got === null) {
      const missing = bytes.byteLength - done;
      throw new CheckpointError(`Cannot read ${path}: expected ${missing} more bytes, found the end`);
    }
    done += got;
  }
  hash.update(bytes);
}

async function readHeader(reader: Reader, fileBytes: number): Promise<ReadonlyMap<string, TensorEntry>> {
  const place = { file: reader.path, fileBytes };
  const start = new Uint8Array(Math.min(LENGTH_BYTES, fileBytes));
  await readNext(reader, start);
  const json = new Uint8Array(readHeaderLength(start, place));
  await readNext(reader, json);
  return parseHeader(json, place).tensors;
}

function checkParts({ folder, numbers: { parts } }: FoundCheckpoint, state: RunState): void {
  const compare = (what: string, saved: Iterable<string>, now: Iterable<string>) => {
    const [a, b] = [[...saved].sort(), [...now].sort()];
    if (a.join("\0") === b.join("\0")) return;
    const difference = [
      ...a.filter((name) => !b.includes(name)).map((name) => `${name} in the checkpoint alone`),
      ...b.filter((name) => !a.includes(name)).map((name) => `${name} in the run alone`),
    ];
    throw new InputError(
      `Cannot resume from ${folder}: expected the same ${what}, found ${difference.join(", ")}`,
    );
  };
  compare("parts of the run", parts.keys(), Object.keys(state.parts));
  for (const [name, part] of Object.entries(state.parts)) {
    compare(`numbers of ${name}`, Object.keys(parts.get(name)!), Object.keys(part.numbers()));
  }
}

function checkTensors(
  entries: ReadonlyMap<string, TensorEntry>,
  { tensors, path }: { tensors: ReadonlyMap<string, NamedTensor>; path: string },
): void {
  const refuse = (name: string, expected: string, found: string) =>
    new CheckpointError(
      `Cannot read ${path}: tensor ${JSON.stringify(name)}: expected ${expected}, found ${found}`,
    );
  for (const { name, dtype, shape } of entries.values()) {
    const tensor = tensors.get(name)?.tensor;
    if (!tensor) throw refuse(name, "no such tensor in this run", "it");
    const expected = `${storageOf(tensor).toUpperCase()} ${showFound([...tensor.shape])}`;
    const found = `${dtype} ${showFound([...shape])}`;
    if (found !== expected) throw refuse(name, expected, found);
  }
  for (const name of tensors.keys()) {
    if (!entries.has(name)) throw refuse(name, "such a tensor", "none");
  }
}

async function sendTensor({ tensor }: NamedTensor, { startByte, endByte }: TensorEntry, reader: Reader) {
  const { gpu, range: { allocation, offsetBytes } } = tensor;
  const sizeBytes = Math.min(byteLength(tensor), endByte - startByte);
  const piece = new Uint8Array(Math.min(PIECE_BYTES, sizeBytes));
  for (let done = 0; done < sizeBytes;) {
    const bytes = piece.subarray(0, Math.min(piece.byteLength, sizeBytes - done));
    await readNext(reader, bytes);
    gpu.queue.write({ allocation, offsetBytes: offsetBytes + done, sizeBytes: bytes.byteLength }, bytes);
    done += bytes.byteLength;
  }
}
