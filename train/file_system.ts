/**
 * What writing needs of the file system, as one object, so that tests can have any of its operations fail.
 * @module
 */
import { dirname } from "node:path";

/** Deno's own functions, or some that fail where a test wants them to. */
export type FileSystem = Pick<typeof Deno, "open" | "mkdir" | "rename" | "remove" | "readDir" | "lstat">;

/**
 * Flushes a folder: after a power cut, the names in it are there only if that was done. Windows has no such call.
 *
 * @param folder whose names have changed
 * @param fileSystem Deno by default
 */
export async function syncFolder(folder: string, fileSystem: FileSystem = Deno): Promise<void> {
  if (Deno.build.os === "windows") return;
  using handle = await fileSystem.open(folder);
  await handle.sync();
}

/**
 * The same after something in a folder got its name, by a process that may not be allowed to open the folder: the name is
 * on the disk a little later then.
 *
 * @param folder in which the name is
 * @param fileSystem Deno by default
 */
export async function syncNames(folder: string, fileSystem: FileSystem = Deno): Promise<void> {
  try {
    await syncFolder(folder, fileSystem);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotCapable)) throw error;
  }
}

/**
 * Makes a folder that is not there yet, and those above it where they are not. What is there is left alone, as permissions
 * may end below it.
 *
 * @param path the folder; of two processes that make the same one, one is refused
 * @param fileSystem Deno by default
 */
export async function makeNewFolder(path: string, fileSystem: FileSystem = Deno): Promise<void> {
  try {
    await fileSystem.mkdir(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    await fileSystem.mkdir(dirname(path), { recursive: true });
    await fileSystem.mkdir(path);
  }
}
