/**
 * Folders that are either whole or not there.
 * @module
 */
import { dirname } from "node:path";
import { partialName } from "./atomic_file.ts";
import { type FileSystem, makeNewFolder, syncNames } from "./file_system.ts";
import { cannotWrite } from "./write_error.ts";

/**
 * Writes a folder under a temporary name beside the final one, then renames it. Whatever fails before that, an older
 * folder of that name stays as it was and the temporary one is removed.
 *
 * @param folder the final name
 * @param write writes its content to the folder that it is given; what it throws is passed on
 * @param options.fileSystem Deno by default
 * @param options.makesParents whether the folders that it is in are made where they are not there
 * @throws {InputError} where the folder cannot be made or renamed
 * @example
 * ```ts
 * const folder = `${Deno.makeTempDirSync()}/model`;
 * await writeFolderAtomically(folder, (partial) => Deno.writeTextFile(`${partial}/config.json`, "{}"));
 * if (Deno.readTextFileSync(`${folder}/config.json`) !== "{}") throw new Error("the folder is whole");
 * ```
 */
export async function writeFolderAtomically(
  folder: string,
  write: (partial: string) => Promise<void>,
  { fileSystem = Deno, makesParents = false }: { fileSystem?: FileSystem; makesParents?: boolean } = {},
): Promise<void> {
  const { partial, replaced } = partialFolders(folder);
  const naming = async (action: () => Promise<void>) => {
    try {
      await action();
    } catch (cause) {
      throw cannotWrite(folder, cause);
    }
  };
  await naming(() => makesParents ? makeNewFolder(partial, fileSystem) : fileSystem.mkdir(partial));
  let isReplaced: boolean;
  try {
    await write(partial);
    isReplaced = await putAside(folder, replaced, fileSystem);
    await naming(() => fileSystem.rename(partial, folder));
  } catch (error) {
    // The first error says what is wrong; what cannot be undone either only follows from it.
    await fileSystem.rename(replaced, folder).catch(() => undefined);
    await fileSystem.remove(partial, { recursive: true }).catch(() => undefined);
    throw error;
  }
  await naming(async () => {
    await syncNames(dirname(folder), fileSystem);
    if (isReplaced) await fileSystem.remove(replaced, { recursive: true });
  });
}

/** The names that a folder has while this process writes it, and that the one before has then. */
export function partialFolders(folder: string): { partial: string; replaced: string } {
  return { partial: partialName(folder), replaced: partialName(`${folder}.replaced`) };
}

/** Whether there was one. */
async function putAside(folder: string, replaced: string, fileSystem: FileSystem): Promise<boolean> {
  try {
    await fileSystem.rename(folder, replaced);
    return true;
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return false;
    throw cannotWrite(folder, cause);
  }
}
