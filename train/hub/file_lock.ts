/**
 * Locks between processes.
 * @module
 */
import { HubError } from "./hub_error.ts";

/**
 * Takes a lock, waiting for whoever has it. The system lets go of it when the process ends, however it ends.
 *
 * @param path of the lock's file, which stays; its folder must exist
 * @param onWait told once when another has it
 * @returns the lock; dispose it to let go
 * @throws {HubError} where the file system knows no locks
 */
export async function takeLock(path: string, onWait?: () => void): Promise<Disposable> {
  const file = await Deno.open(path, { write: true, create: true });
  try {
    if (!await file.tryLock(true)) {
      onWait?.();
      await file.lock(true);
    }
  } catch (cause) {
    file.close();
    const detail = (cause as Error).message;
    throw new HubError(`Cannot lock ${path}: ${detail}; HF_HUB_CACHE names a folder on another disk`, {
      cause,
    });
  }
  return file;
}
