/**
 * Links, in what a process may touch: Deno compares names with its permissions as they are written when it opens a file,
 * wherever links on the way lead, and where the file is in truth when it looks at one that is open.
 * @module
 */
import { basename, dirname, join, resolve, sep } from "node:path";
import { InputError } from "../errors.ts";
import type { Grants } from "./grants.ts";

/** Entries below a folder that are looked at; a model's or a run's has a few hundred. */
const MAX_ENTRIES = 100_000;

/**
 * Adds where things are in truth to what they are called, for those that lie behind links.
 *
 * @param grants as the user names things
 * @returns the same and more names for it
 */
export async function withRealPaths<Given extends Pick<Grants, "read" | "write">>(
  grants: Given,
): Promise<Given> {
  return {
    ...grants,
    read: await addNames(grants.read, realPlaces),
    write: await addNames(grants.write, async (path) => [await whereItIsWritten(path)]),
  };
}

async function addNames(
  paths: readonly string[],
  namesOf: (path: string) => Promise<string[]>,
): Promise<string[]> {
  const names = await Promise.all(paths.map(async (path) => {
    const others = (await namesOf(path)).filter((name) => name !== resolve(path));
    return [path, ...others];
  }));
  return [...new Set(names.flat())];
}

/** Where a place is; with a snapshot of the hub's cache come the blobs beside it, which its files link to. */
async function realPlaces(path: string): Promise<string[]> {
  const real = await realPath(path);
  if (real === undefined) return [await placeInParent(path)];
  const isSnapshot = basename(dirname(real)) === "snapshots";
  return isSnapshot ? [real, resolve(real, "..", "..", "blobs")] : [real];
}

/** A file is replaced by another of its name: what it links to stays as it is. */
async function whereItIsWritten(path: string): Promise<string> {
  return await isFolder(path) ? (await realPath(path))! : await placeInParent(path);
}

async function placeInParent(path: string): Promise<string> {
  const [full, parent] = [resolve(path), dirname(resolve(path))];
  if (parent === full) return full;
  return join(await realPath(parent) ?? await placeInParent(parent), basename(full));
}

/**
 * Refuses folders in which a link leads out of them. A folder that is a link itself is where its user wants it.
 * Files of the hub's cache are links to the blobs beside their snapshot: these may be.
 *
 * @param folders with all below them; what is no folder, or not there, has no links
 * @throws {InputError} naming the link and where it leads, or a folder that cannot be looked through
 */
export async function refuseStrayLinks(folders: readonly string[]): Promise<void> {
  for (const folder of folders) {
    if (!await isFolder(folder)) continue;
    await checkFolder(folder, { folder, roots: await realPlaces(folder), left: MAX_ENTRIES });
  }
}

interface Walk {
  /** As the user named it. */
  readonly folder: string;
  /** Where links may lead. */
  readonly roots: readonly string[];
  /** Entries that may still come. */
  left: number;
}

async function checkFolder(path: string, walk: Walk): Promise<void> {
  for (const entry of await listFolder(path)) {
    if (--walk.left < 0) {
      throw new InputError(
        `Cannot use ${walk.folder}: expected the folder of a model or a run, found one with more than ${MAX_ENTRIES} ` +
          "files below it",
      );
    }
    const inner = join(path, entry.name);
    if (entry.isDirectory) await checkFolder(inner, walk);
    if (!entry.isSymlink) continue;
    const target = await realPath(inner);
    // A link to nothing gives nothing away, and the process cannot make what it leads to.
    if (target === undefined || walk.roots.some((root) => isWithin(target, root))) continue;
    throw new InputError(
      `Cannot use ${walk.folder}: expected links that stay in the folder, found ${inner}, which leads to ${target} ` +
        "(copy that file into the folder)",
    );
  }
}

/** What the user may not list, the process of the same user may not either. */
async function listFolder(path: string): Promise<Deno.DirEntry[]> {
  try {
    return await Array.fromAsync(Deno.readDir(path));
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied) return [];
    throw error;
  }
}

function isWithin(path: string, root: string): boolean {
  return path === root || path.startsWith(root.endsWith(sep) ? root : root + sep);
}

async function isFolder(path: string): Promise<boolean> {
  const real = await realPath(path);
  return real !== undefined && (await Deno.stat(real)).isDirectory;
}

async function realPath(path: string): Promise<string | undefined> {
  try {
    return await Deno.realPath(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw new InputError(`Cannot look at ${path}: ${(error as Error).message}`, { cause: error });
  }
}
