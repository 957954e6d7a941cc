/**
 * Files that are either whole or not there.
 *
 * @module
 */
import { dirname } from "node:path";

/**
 * Writes a file under a temporary name beside the final one, flushes it to the disk, then renames it. Whatever fails, an
 * older file of that name stays as it was and the temporary one is removed.
 *
 * @param path The final name; its folder must exist.
 * @param write Writes the content; what it throws is passed on. The given function writes all bytes it is handed.
 * @example
 * ```ts
 * const path = `${Deno.makeTempDirSync()}/config.json`;
 * await writeFileAtomically(path, (append) => append(new TextEncoder().encode("{}")));
 * if (Deno.readTextFileSync(path) !== "{}") throw new Error("the file is whole");
 * ```
 */
export async function writeFileAtomically(
  path: string,
  write: (append: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const temporary = `${path}.${Deno.pid}.partial`;
  const file = await Deno.open(temporary, { write: true, create: true, truncate: true });
  try {
    try {
      await write((bytes) => writeFully(file, bytes));
      await file.sync();
    } finally {
      file.close();
    }
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary);
    throw error;
  }
  await syncFolder(dirname(path));
}

async function writeFully(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) done += await file.write(bytes.subarray(done));
}

/** After a power cut the new name is there only if the folder itself was flushed. Windows has no such call. */
async function syncFolder(folder: string): Promise<void> {
  if (Deno.build.os === "windows") return;
  using handle = await Deno.open(folder);
  await handle.sync();
}
