/**
 * Which files of a repository a model needs.
 * @module
 */
import { z } from "zod";
import { HubError } from "./hub_error.ts";

/** A file as the hub lists it. */
export interface HubFile {
  /** In the repository, without folders. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Its name in the cache's blobs/: what the hub sends as etag. */
  readonly etag: string;
  /** What the etag is the hash of; `none` where it says nothing of the content. */
  readonly hash: "sha256" | "git-sha1" | "none";
}

/** The index of a checkpoint in shards. */
export const INDEX_FILE = "model.safetensors.index.json";
const WEIGHTS_FILE = "model.safetensors";
/** What a model needs beside its weights, where the repository has it. */
const SMALL_FILES = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
];

/** Names that are the same file on every system, in this folder and no other. */
export const FILE_NAME = /^\w[\w.-]*$/;

const HEX_64 = /^[0-9a-f]{64}$/;
const HEX_40 = /^[0-9a-f]{40}$/;
const size = z.int().nonnegative();

const entrySchema = z.object({
  type: z.string(),
  path: z.string().min(1),
  size,
  oid: z.string().optional(),
  lfs: z.object({ oid: z.string().regex(HEX_64), size }).optional(),
  xetHash: z.string().optional(),
});

/** An entry of the hub's listing, as it came. */
export type HubEntry = z.infer<typeof entrySchema>;

/**
 * Checks an entry of the hub's listing: everything in it comes from outside, and names become paths.
 *
 * @param entry from the server
 * @param repo for messages
 * @throws {HubError} on a field that is missing or of another type, and on a name that leaves the repository
 */
export function parseEntry(entry: unknown, repo: string): HubEntry {
  const { success, data, error } = entrySchema.safeParse(entry);
  if (!success) {
    const { path, message } = error.issues[0];
    throw new HubError(
      `Cannot download ${repo}: expected a listing of files, found ${path.join(".")}: ${message}`,
    );
  }
  const parts = data.path.split(/[/\\]/);
  if (parts.some((part) => part === ".." || part === "." || part === "") || /^[A-Za-z]:/.test(data.path)) {
    throw new HubError(
      `Cannot download ${repo}: expected file names inside the repository, found ${
        JSON.stringify(data.path)
      }`,
    );
  }
  return data;
}

/**
 * Chooses what is downloaded before the weights: configuration, tokenizer, and the index where weights are in shards.
 * Never pickled weights, which can run code, nor other formats.
 *
 * @param entries all of the repository
 * @param repo for messages
 * @throws {HubError} when there is no config.json or there are no safetensors
 */
export function smallFiles(entries: readonly HubEntry[], repo: string): HubFile[] {
  const names = new Set(entries.map(({ path }) => path));
  if (!names.has("config.json")) throw lacks("config.json", { repo, names });
  if (!names.has(WEIGHTS_FILE) && !names.has(INDEX_FILE)) {
    throw lacks(`${WEIGHTS_FILE} or ${INDEX_FILE}`, { repo, names });
  }
  const wanted = isSharded(entries) ? [...SMALL_FILES, INDEX_FILE] : SMALL_FILES;
  return wanted.flatMap((name) => findFile(entries, { name, repo }) ?? []);
}

/** Whether the weights are in shards. As in transformers, one file wins where a repository has both. */
export function isSharded(entries: readonly HubEntry[]): boolean {
  return !entries.some(({ path }) => path === WEIGHTS_FILE);
}

/**
 * The files that hold the weights.
 *
 * @param entries all of the repository
 * @param options the repository's name, and the text of the index where the weights are in shards
 * @throws {HubError} when the index is malformed, or names a file that the repository lacks
 */
export function weightFiles(
  entries: readonly HubEntry[],
  { repo, index }: { repo: string; index?: string },
): HubFile[] {
  const names = index === undefined ? [WEIGHTS_FILE] : shardNames(index, repo);
  return names.map((name) => {
    const file = /\.safetensors$/.test(name) ? findFile(entries, { name, repo }) : undefined;
    if (file) return file;
    throw new HubError(
      `Cannot download ${repo}: expected the .safetensors files that ${INDEX_FILE} names, found none called ` +
        JSON.stringify(name),
    );
  });
}

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/**
 * The shards that an index names.
 *
 * @param text of {@link INDEX_FILE}
 * @param where for messages
 * @throws {HubError} when it is malformed
 */
export function shardNames(text: string, where: string): string[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HubError(
      `Cannot read ${INDEX_FILE} of ${where}: expected JSON, found ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
  const { success, data } = indexSchema.safeParse(value);
  if (!success) {
    throw new HubError(`Cannot read ${INDEX_FILE} of ${where}: expected weight_map with names of files`);
  }
  return [...new Set(Object.values(data.weight_map))].toSorted();
}

/** Only the top folder counts: subfolders hold other formats. */
function findFile(
  entries: readonly HubEntry[],
  { name, repo }: { name: string; repo: string },
): HubFile | undefined {
  const entry = entries.find(({ path, type }) => path === name && type === "file");
  if (!entry || !FILE_NAME.test(name)) return undefined;
  const { path, lfs, oid, xetHash } = entry;
  if (lfs) return { path, sizeBytes: lfs.size, etag: lfs.oid, hash: "sha256" };
  if (xetHash && HEX_64.test(xetHash)) return { path, sizeBytes: entry.size, etag: xetHash, hash: "none" };
  if (oid && HEX_40.test(oid)) return { path, sizeBytes: entry.size, etag: oid, hash: "git-sha1" };
  throw new HubError(
    `Cannot download ${repo}: expected a hash of ${path}, found ${JSON.stringify(oid ?? xetHash)}`,
  );
}

function lacks(what: string, { repo, names }: { repo: string; names: ReadonlySet<string> }): HubError {
  const other = [...names].find((name) => /\.(bin|pt|pth|gguf|h5|msgpack|safetensors)$/.test(name));
  const found = other ?? (names.size === 0 ? "no files" : `${names.size} other files`);
  return new HubError(`Cannot download ${repo}: expected a model with ${what}, found ${found}`);
}
