/**
 * Hugging Face's cache of models, which its own tools read and write too:
 * `models--owner--name/{blobs/<etag>, refs/<revision>, snapshots/<commit>/<file>}`, where a snapshot's files are links
 * to blobs.
 * @module
 */
import { dirname, join } from "node:path";
import { writeFileAtomically } from "../atomic_file.ts";
import { type Snapshot, snapshotSchema } from "./messages.ts";
import { takeLock } from "./file_lock.ts";
import { COMMIT_HASH, type HubName, parseHubName } from "./hub_name.ts";
import { hubCache } from "./hub_settings.ts";
import { INDEX_FILE, shardNames } from "./model_listing.ts";

/** Lists of what each snapshot consists of; in the cache's folder of the repository, where other tools do not look. */
const RECORDS_FOLDER = ".keel";

/** How the cache is searched. */
export interface FindOptions {
  /** Hugging Face's cache; from the environment where left out. */
  readonly cacheFolder?: string;
  /**
   * Whether a snapshot counts that another tool made: one with configuration, tokenizer and all weights, though files
   * may be missing that the repository has, such as a chat template. True where left out.
   */
  readonly fromOtherTools?: boolean;
}

/**
 * The cache's folder of a repository.
 *
 * @param cacheFolder Hugging Face's cache
 * @param repo `owner/name`
 */
export function repoFolderOf(cacheFolder: string, repo: string): string {
  return join(cacheFolder, folderName(repo));
}

/**
 * Where the locks of a repository's files are.
 *
 * @param cacheFolder Hugging Face's cache
 * @param repo `owner/name`
 */
export function locksFolderOf(cacheFolder: string, repo: string): string {
  return join(cacheFolder, ".locks", folderName(repo));
}

function folderName(repo: string): string {
  return `models--${repo.replace("/", "--")}`;
}

/**
 * Finds a model in the cache, without the network.
 *
 * @param name `owner/name` or `owner/name@revision`
 * @param options where to search, and whether snapshots of other tools count
 * @returns the snapshot's folder; nothing where a file is missing or shorter than it must be
 * @throws {HubError} on a name that is none
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const cacheFolder = await Deno.makeTempDir();
 * assert.equal(await findInCache("owner/name", { cacheFolder }), undefined);
 * ```
 */
export async function findInCache(name: string, options: FindOptions = {}): Promise<string | undefined> {
  const parsed = parseHubName(name);
  const repoFolder = repoFolderOf(options.cacheFolder ?? hubCache().cacheFolder, parsed.repo);
  const commit = await cachedCommit(repoFolder, parsed);
  if (commit === undefined) return undefined;
  const folder = snapshotFolderOf(repoFolder, commit);
  const record = await readText(join(repoFolder, RECORDS_FOLDER, `${commit}.json`));
  const isComplete = record !== undefined
    ? await holdsAll(folder, record)
    : (options.fromOtherTools ?? true) && await holdsModel(folder);
  return isComplete ? folder : undefined;
}

/** The commit that a revision was when it was last asked for. */
async function cachedCommit(repoFolder: string, { revision }: HubName): Promise<string | undefined> {
  if (COMMIT_HASH.test(revision)) return revision;
  const commit = (await readText(join(repoFolder, "refs", ...revision.split("/"))))?.trim();
  return commit !== undefined && COMMIT_HASH.test(commit) ? commit : undefined;
}

/**
 * Where a snapshot's files are.
 *
 * @param repoFolder the cache's folder of the repository
 * @param commit the snapshot's
 */
export function snapshotFolderOf(repoFolder: string, commit: string): string {
  return join(repoFolder, "snapshots", commit);
}

async function holdsAll(folder: string, record: string): Promise<boolean> {
  const { files } = snapshotSchema.parse(JSON.parse(record));
  const sizes = await Promise.all(files.map(({ path }) => sizeOf(join(folder, path))));
  return files.every(({ sizeBytes }, index) => sizes[index] === sizeBytes);
}

async function holdsModel(folder: string): Promise<boolean> {
  const has = async (name: string) => await sizeOf(join(folder, name)) !== undefined;
  if (!await has("config.json")) return false;
  if (!await has("tokenizer.json") && !(await has("vocab.json") && await has("merges.txt"))) return false;
  if (await has("model.safetensors")) return true;
  const index = await readText(join(folder, INDEX_FILE));
  if (index === undefined) return false;
  return (await Promise.all(shardNames(index, folder).map(has))).every((isThere) => isThere);
}

/** What a snapshot is made of. */
export interface LinkOptions {
  readonly snapshot: Snapshot;
  /** What was asked for. */
  readonly revision: string;
  /** Where the locks of the repository are; must exist. */
  readonly locksFolder: string;
}

/**
 * Makes a snapshot of blobs that are all there, and points the revision at it. It becomes visible as a whole, or, where
 * another tool has begun it, file by file with the weights last; then the record of its files, then the revision.
 *
 * @param repoFolder the cache's folder of the repository
 * @param options what the snapshot consists of, and the revision that was asked for
 */
export async function linkSnapshot(
  repoFolder: string,
  { snapshot, revision, locksFolder }: LinkOptions,
): Promise<void> {
  const { commit } = snapshot;
  const folder = snapshotFolderOf(repoFolder, commit);
  const records = join(repoFolder, RECORDS_FOLDER);
  await Deno.mkdir(records, { recursive: true });
  await Deno.mkdir(dirname(folder), { recursive: true });
  using _lock = await takeLock(join(locksFolder, "snapshot.lock"));
  await placeLinks(snapshot, { folder, temporary: join(records, `${commit}.${Deno.pid}.partial`) });
  await writeText(join(records, `${commit}.json`), JSON.stringify(snapshot));
  if (!COMMIT_HASH.test(revision)) {
    const ref = join(repoFolder, "refs", ...revision.split("/"));
    await Deno.mkdir(dirname(ref), { recursive: true });
    await writeText(ref, commit);
  }
}

async function placeLinks(
  { files }: Snapshot,
  { folder, temporary }: { folder: string; temporary: string },
): Promise<void> {
  await Deno.mkdir(temporary);
  try {
    // As deep in the repository's folder as the final place is: relative links stay right.
    for (const { path, etag } of files) await linkBlob(join(temporary, path), etag);
    if (await moveFolder(temporary, folder)) return;
    for (const { path } of files) await Deno.rename(join(temporary, path), join(folder, path));
  } catch (error) {
    await Deno.remove(temporary, { recursive: true });
    throw error;
  }
  await Deno.remove(temporary);
}

/** Windows lets few users make symbolic links; a second name for the same file serves as well there. */
async function linkBlob(path: string, etag: string): Promise<void> {
  if (Deno.build.os === "windows") await Deno.link(join(dirname(path), "..", "..", "blobs", etag), path);
  else await Deno.symlink(join("..", "..", "blobs", etag), path);
}

/** @returns false where the target is there already */
async function moveFolder(from: string, to: string): Promise<boolean> {
  try {
    await Deno.rename(from, to);
    return true;
  } catch (error) {
    if (await sizeOf(to) === undefined) throw error;
    return false;
  }
}

async function writeText(path: string, text: string): Promise<void> {
  await writeFileAtomically(path, (append) => append(new TextEncoder().encode(text)));
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}

/** Of what a link leads to; nothing where it leads nowhere. */
async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await Deno.stat(path)).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}
