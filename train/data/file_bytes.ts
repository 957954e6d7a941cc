/**
 * The bytes of a data file, unpacked where its name ends in `.gz`.
 * @module
 */
import { Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { DataError } from "./errors.ts";

/** The kind of a data file, by its name. */
export interface FileKind {
  /** What its rows are written in. */
  format: "json" | "jsonl" | "parquet";
  /** Whether it is compressed as a whole. */
  isGzip: boolean;
}

/**
 * Tell a data file's kind from its name.
 *
 * @param path the file
 * @throws {DataError} a name of no known kind
 */
export function fileKind(path: string): FileKind {
  const found = path.toLowerCase().match(/\.(json|jsonl)(\.gz)?$|\.(parquet)$/);
  if (found) return { format: (found[1] ?? found[3]) as FileKind["format"], isGzip: found[2] !== undefined };
  const extension = path.match(/\.[^./\\]*$/)?.[0].toLowerCase() ?? "";
  throw new DataError(
    `Cannot read ${path}: expected a .json, .jsonl, .json.gz, .jsonl.gz or .parquet file, found extension "${extension}"`,
  );
}

/**
 * The size of a file that can be read.
 *
 * @param path the file
 * @throws {DataError} none there, a folder, or one that may not be read
 */
export async function fileSize(path: string): Promise<number> {
  const info = await withPath(path, () => Deno.stat(path));
  if (info.isDirectory) throw new DataError(`Cannot read ${path}: expected a file, found a directory`);
  return info.size;
}

/**
 * What an action on a file throws, with the file's name.
 *
 * @param path the file
 * @param action reads it
 * @throws {DataError} whatever it throws
 */
export async function withPath<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    const found = cause instanceof Deno.errors.NotFound ? "no such file" : (cause as Error).message;
    throw new DataError(`Cannot read ${path}: expected a readable file, found: ${found}`, { cause });
  }
}

/**
 * A file's content, chunk by chunk. Of a gzip file all members are read, as gzip itself does; the web platform's
 * DecompressionStream refuses a second one.
 *
 * @param path the file
 * @param options.isGzip whether it is compressed
 * @throws {DataError} a file that cannot be opened, or gzip data that is cut off or damaged
 */
export async function* readChunks(
  path: string,
  { isGzip }: { isGzip: boolean },
): AsyncGenerator<Uint8Array, void> {
  const file = await withPath(path, () => Deno.open(path));
  if (!isGzip) {
    yield* file.readable;
    return;
  }
  const packed = Readable.from(file.readable);
  const unpacked = createGunzip();
  packed.on("error", (error) => unpacked.destroy(error));
  try {
    for await (const chunk of packed.pipe(unpacked)) yield chunk as Uint8Array;
  } catch (cause) {
    throw new DataError(
      `Cannot read ${path}: expected a whole gzip file, found damage: ${(cause as Error).message}`,
      { cause },
    );
  } finally {
    packed.destroy();
    unpacked.destroy();
  }
}
