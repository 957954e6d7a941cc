/**
 * One process at a time in a folder that a run or a study writes.
 * @module
 */
import { join } from "node:path";
import { InputError } from "./errors.ts";
import { cannotWrite } from "./write_error.ts";

/** An empty file that stays; what counts is the lock on it. */
export const LOCK_FILE = ".lock";

/**
 * Takes a folder for this process. The system lets go of the lock when the process ends, however it ends.
 *
 * @param folder which is there
 * @returns the lock; dispose it to let go
 * @throws {InputError} when another process has it, or the file system knows no locks
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const folder = await Deno.makeTempDir();
 * {
 *   using _lock = await lockFolder(folder);
 *   await assert.rejects(lockFolder(folder), /found one that is at work/);
 * }
 * using _again = await lockFolder(folder);
 * ```
 */
export async function lockFolder(folder: string): Promise<Disposable> {
  return await lock(folder, { write: true, create: true });
}

async function lock(folder: string, options: Deno.OpenOptions): Promise<Disposable> {
  const path = join(folder, LOCK_FILE);
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, options);
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
  try {
    if (await file.tryLock(true)) return file;
  } catch (cause) {
    file.close();
    throw new InputError(
      `Cannot lock ${path}: expected a file system with locks, found ${(cause as Error).message} ` +
        "(use another --output)",
      { cause },
    );
  }
  file.close();
  throw new InputError(
    `Cannot write to ${folder}: expected no other process in it, found one that is at work`,
  );
}

/**
 * Refuses a folder that another process has taken, and changes nothing: for before the long work.
 *
 * @param folder which need not be there
 * @throws {InputError} when another process has it
 */
export async function refuseLocked(folder: string): Promise<void> {
  try {
    await Deno.lstat(join(folder, LOCK_FILE));
  } catch {
    // What keeps it from being looked at, keeps it from being written, and is told there.
    return;
  }
  // To read is enough, and all that a command may that leaves the folder as it is.
  (await lock(folder, { read: true }))[Symbol.dispose]();
}
