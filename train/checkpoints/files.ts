/**
 * The files of a checkpoint: listed without following a link, hashed piece by piece, held against a manifest.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import type { FileSystem } from "../file_system.ts";
import { cannotRead } from "./folders.ts";
import { MAX_JSON_BYTES } from "./json_text.ts";
import { MANIFEST_FILE, type ManifestFile, parseManifest } from "./manifest.ts";
import type { Manifest } from "./manifest.ts";

/** Bytes that are read at a time. */
const PIECE_BYTES = 2 ** 20;

/** Folders in folders: a checkpoint has two. */
const MAX_DEPTH = 8;

/** What lies under a checkpoint's folder. */
export interface Listing {
  /** Path with `/` -> bytes, of plain files. */
  readonly files: ReadonlyMap<string, number>;
  /** Folders under it, the inner ones first. */
  readonly folders: readonly string[];
}

/**
 * Lists a folder and those in it. Links, pipes and devices are left out: nothing here opens them.
 *
 * @param folder the checkpoint's folder
 * @param fileSystem Deno by default
 * @throws {CheckpointError} where it cannot be read
 */
export async function listFiles(folder: string, fileSystem: FileSystem = Deno): Promise<Listing> {
  const files = new Map<string, number>();
  const folders: string[] = [];
  const visit = async (prefix: string, depth: number) => {
    const path = join(folder, prefix);
    try {
      for await (const { name } of fileSystem.readDir(path)) {
        const inner = `${prefix}${name}`;
        const { isFile, isDirectory, size } = await fileSystem.lstat(join(folder, inner));
        if (isFile) files.set(inner, size);
        if (!isDirectory || depth === MAX_DEPTH) continue;
        await visit(`${inner}/`, depth + 1);
        folders.push(inner);
      }
    } catch (error) {
      throw cannotRead(path, error);
    }
  };
  await visit("", 1);
  return { files, folders };
}

/**
 * The SHA-256 of a file that is not larger than it was.
 *
 * @param path the file
 * @param options.sizeBytes what it should have
 * @param options.sync whether it is flushed to the disk too
 * @param options.fileSystem Deno by default
 * @returns 64 hexadecimal digits
 * @throws {CheckpointError} when it cannot be read, or its size is another
 */
export async function hashFile(
  path: string,
  options: { sizeBytes: number; sync?: boolean; fileSystem?: FileSystem },
): Promise<string> {
  const { sizeBytes, sync = false, fileSystem = Deno } = options;
  try {
    using file = await fileSystem.open(path, { read: true, write: sync });
    if (sync) await file.sync();
    const hash = createHash("sha256");
    const piece = new Uint8Array(Math.min(PIECE_BYTES, sizeBytes + 1));
    let done = 0;
    for (let got = await file.read(piece); got !== null && done <= sizeBytes; got = await file.read(piece)) {
      hash.update(piece.subarray(0, got));
      done += got;
    }
    if (done === sizeBytes) return hash.digest("hex");
    throw new CheckpointError(`Cannot read ${path}: expected ${sizeBytes} bytes, found ${done}`);
  } catch (error) {
    throw cannotRead(path, error);
  }
}

/**
 * Refuses content whose hash is another.
 *
 * @param path the file, for the message
 * @param expected 64 hexadecimal digits
 * @param found what was hashed, or its digest
 */
export function expectHash(path: string, expected: string, found: Hash | string): void {
  const digest = typeof found === "string" ? found : found.digest("hex");
  if (digest === expected) return;
  throw new CheckpointError(`Cannot read ${path}: expected SHA-256 ${expected}, found ${digest}`);
}

/**
 * Reads a small file whose size is checked before it is read.
 *
 * @param folder where it lies
 * @param name one that {@link listFiles} gave, or that this program chose
 * @throws {CheckpointError} when it is a link, too large, or cannot be read
 */
export async function readSmallFile(folder: string, name: string): Promise<Uint8Array<ArrayBuffer>> {
  const path = join(folder, name);
  try {
    const { isFile, size } = await Deno.lstat(path);
    if (!isFile) throw new CheckpointError(`Cannot read ${path}: expected a file, found a link or a folder`);
    if (size > MAX_JSON_BYTES) {
      throw new CheckpointError(
        `Cannot read ${path}: expected at most ${MAX_JSON_BYTES} bytes, found ${size}`,
      );
    }
    return await Deno.readFile(path);
  } catch (error) {
    throw cannotRead(path, error);
  }
}

/**
 * Reads a checkpoint's manifest and holds names and sizes against it; contents are left to {@link verifyFiles}.
 *
 * @param folder the checkpoint's folder
 * @param step which its name says
 * @returns the manifest
 * @throws {CheckpointError} naming the file that is missing, of another size, or a link
 */
export async function readManifest(folder: string, step: number): Promise<Manifest> {
  const path = join(folder, MANIFEST_FILE);
  const manifest = parseManifest(await readSmallFile(folder, MANIFEST_FILE), { file: path });
  if (manifest.step !== step) {
    throw new CheckpointError(`Cannot read ${path}: step: expected ${step}, found ${manifest.step}`);
  }
  const { files } = await listFiles(folder);
  for (const { path: name, sizeBytes } of manifest.files) {
    const found = files.get(name);
    if (found === sizeBytes) continue;
    const what = found === undefined ? "no such file" : `${found}`;
    throw new CheckpointError(
      `Cannot read ${join(folder, name)}: expected ${sizeBytes} bytes, found ${what}`,
    );
  }
  return manifest;
}

/**
 * Holds the content of all files against a manifest.
 *
 * @param folder the checkpoint's folder
 * @param files of its manifest, as {@link readManifest} returned it
 * @throws {CheckpointError} naming the first file that is damaged
 */
export async function verifyFiles(folder: string, files: readonly ManifestFile[]): Promise<void> {
  for (const { path, sizeBytes, sha256 } of files) {
    const file = join(folder, path);
    expectHash(file, sha256, await hashFile(file, { sizeBytes }));
  }
}
