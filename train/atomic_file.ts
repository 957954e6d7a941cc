/**
 * Files that are either whole or not there.
 *
 * @module
 */
import { dirname } from "node:path";
import { type FileSystem, syncNames } from "./file_system.ts";
import { cannotWrite } from "./write_error.ts";

/**
 * Writes a file under a temporary name beside the final one, flushes it to the disk, then renames it. Whatever fails, an
 * older file of that name stays as it was and the temporary one is removed.
 *
 * @param path The final name; its folder must exist.
 * @param write Writes the content; what it throws is passed on. The given function writes all bytes it is handed.
 * @param options.fileSystem Deno by default.
 * @throws {InputError} Naming the file, where the system refuses it.
 * @example
 * ```ts
 * const path = `${Deno.makeTempDirSync()}/config.json`;
 * await writeFileAtomically(path, (append) => append(new TextEncoder().encode("{}")));
 * if (Deno.readTextFileSync(path) !== "{}") throw new Error("the file is whole");
 * ```
 */
export async function writeFileAtomically(
  path: string,
  write: WriteContent,
  options: { fileSystem?: FileSystem } = {},
): Promise<void> {
  try {
    await (await stageFile(path, write, options)).commit();
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

/** The name of a file that this process is writing. */
export function partialName(path: string): string {
  return `${path}.${Deno.pid}.partial`;
}

/** Writes a file's content by the function that it is given, which writes all bytes it is handed. */
export type WriteContent = (append: (bytes: Uint8Array) => Promise<void>) => Promise<void>;

/** A file that is complete and on the disk, under a temporary name. */
export interface StagedFile {
  /** The final name. */
  readonly path: string;
  /** Gives it its final name, in place of an older file; when that fails, the temporary file is removed. */
  commit(): Promise<void>;
  /** Removes it. */
  discard(): Promise<void>;
}

/**
 * The first half of {@link writeFileAtomically}, for files that have to appear together: all are staged before the first
 * is committed.
 *
 * @param path The final name; its folder must exist.
 * @param write Writes the content; when it throws, nothing is left, and the error is passed on.
 * @param options.fileSystem Deno by default.
 * @returns The file, to be committed or discarded.
 * @example
 * ```ts
 * const path = `${Deno.makeTempDirSync()}/config.json`;
 * const staged = await stageFile(path, (append) => append(new TextEncoder().encode("{}")));
 * await staged.commit();
 * if (Deno.readTextFileSync(path) !== "{}") throw new Error("the file is whole");
 * ```
 */
export async function stageFile(
  path: string,
  write: WriteContent,
  options: { fileSystem?: FileSystem } = {},
): Promise<StagedFile> {
  const { fileSystem = Deno } = options;
  const temporary = partialName(path);
  const file = await fileSystem.open(temporary, { write: true, create: true, truncate: true });
  const discard = () => fileSystem.remove(temporary);
  const orDiscard = async (action: () => Promise<void>) => {
    try {
      await action();
    } catch (error) {
      // The first error says what is wrong; that the temporary file cannot be removed either only follows from it.
      await discard().catch(() => undefined);
      throw error;
    }
  };
  await orDiscard(async () => {
    try {
      await write((bytes) => writeFully(file, bytes));
      await file.sync();
    } finally {
      file.close();
    }
  });
  const commit = async () => {
    await orDiscard(() => fileSystem.rename(temporary, path));
    await syncNames(dirname(path), fileSystem);
  };
  return { path, commit, discard };
}

async function writeFully(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) done += await file.write(bytes.subarray(done));
}
