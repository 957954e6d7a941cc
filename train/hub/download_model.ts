/**
 * Downloads a model in a process of its own, the only one that may use the network, and nothing but the hub there.
 * @module
 */
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { linkSnapshot, locksFolderOf, repoFolderOf, snapshotFolderOf } from "./hub_cache.ts";
import { HubError } from "./hub_error.ts";
import { parseHubName } from "./hub_name.ts";
import { type HubSettings, hubSettings } from "./hub_settings.ts";
import {
  type DownloadHooks,
  type DownloadLine,
  downloadLineSchema,
  type DownloadRequest,
  type Snapshot,
} from "./messages.ts";
import type { RetryPolicy } from "./retry.ts";

/** How a model is downloaded. */
export interface DownloadOptions extends DownloadHooks {
  /** Where the hub and the cache are; from the environment where left out. */
  readonly settings?: HubSettings;
  /** Aborting it ends the download, which a later one continues; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Attempts at a request that fails. */
  readonly retry?: RetryPolicy;
}

/**
 * Downloads what of a model is not in the cache yet: configuration, tokenizer, safetensors. The hub is asked in any case,
 * so that a branch that has moved is noticed.
 *
 * Needs permission to run Deno, to read and to write everything (links need that); no access to the network.
 *
 * @param name `owner/name` or `owner/name@revision`
 * @param options settings and hooks
 * @returns the snapshot's folder in the cache, where every file is whole and has the size and hash that the hub names
 * @throws {HubError} saying what to do; what was downloaded so far is kept, and the next download goes on from there
 */
export async function downloadModel(name: string, options: DownloadOptions = {}): Promise<string> {
  const { settings = hubSettings(), retry, signal } = options;
  const { repo, revision } = parseHubName(name);
  if (settings.isOffline) {
    throw new HubError(`Cannot download ${name}: expected access to the hub, found HF_HUB_OFFLINE set`);
  }
  signal?.throwIfAborted();
  const repoFolder = await makeFolder(repoFolderOf(settings.cacheFolder, repo));
  const locksFolder = await makeFolder(locksFolderOf(settings.cacheFolder, repo));
  await makeFolder(join(repoFolder, "blobs"));
  const request = { name, endpoint: settings.endpoint, repoFolder, locksFolder, retry };
  const snapshot = await runDownload(request, { ...options, settings });
  await linkSnapshot(repoFolder, { snapshot, revision, locksFolder });
  return snapshotFolderOf(repoFolderOf(settings.cacheFolder, repo), snapshot.commit);
}

/** @returns where it is in truth: caches are often links to another disk, and permissions know no links */
async function makeFolder(path: string): Promise<string> {
  try {
    await Deno.mkdir(path, { recursive: true });
    return await Deno.realPath(path);
  } catch (cause) {
    const detail = (cause as Error).message;
    throw new HubError(`Cannot keep models in ${path}: ${detail}; HF_HUB_CACHE names another folder`, {
      cause,
    });
  }
}

/** The least that the download needs. */
function childArguments(
  request: DownloadRequest,
  { hosts, cwd }: { hosts: readonly string[]; cwd: string },
): string[] {
  // Deno ends a path at a comma, which the user's folders may have; these, seen from the cache's folder, have none.
  const folders = [request.repoFolder, request.locksFolder].map((path) => relative(cwd, path)).join();
  return [
    "run",
    "--quiet",
    "--no-prompt",
    "--no-remote",
    "--config",
    fileURLToPath(new URL("../../deno.json", import.meta.url)),
    `--allow-net=${hosts.join()}`,
    `--allow-read=${folders}`,
    `--allow-write=${folders}`,
    "--allow-env=HF_TOKEN",
    new URL("./download.ts", import.meta.url).href,
    JSON.stringify(request),
  ];
}

async function runDownload(
  request: DownloadRequest,
  options: DownloadOptions & { settings: HubSettings },
): Promise<Snapshot> {
  const { settings, signal } = options;
  const cwd = await Deno.realPath(settings.cacheFolder);
  const child = new Deno.Command(Deno.execPath(), {
    args: childArguments(request, { hosts: settings.hosts, cwd }),
    cwd,
    // Not among the arguments: other users see those.
    env: { HF_TOKEN: settings.token ?? "" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal,
  }).spawn();
  const [last, complaint, status] = await Promise.all([
    followLines(child.stdout, options),
    new Response(child.stderr).text(),
    child.status,
  ]);
  signal?.throwIfAborted();
  if (last?.kind === "done") return last.snapshot;
  if (last?.kind === "error" && last.isExpected) throw new HubError(last.message);
  if (status.signal) {
    throw new HubError(
      `Cannot download ${request.name}: expected the download to end, found it stopped by ${status.signal}; ` +
        "run again to go on from there",
    );
  }
  const detail = last?.kind === "error" ? last.message : complaint.trim();
  throw new Error(
    `Cannot download ${request.name}: expected an answer of the download, found exit code ${status.code}: ${detail}`,
  );
}

/** @returns the last line */
async function followLines(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  { onProgress, onWait }: DownloadHooks,
): Promise<DownloadLine | undefined> {
  let rest = "";
  let last: DownloadLine | undefined;
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      last = downloadLineSchema.parse(JSON.parse(line));
      if (last.kind === "progress") onProgress?.(last.doneBytes, last.totalBytes);
      else if (last.kind === "waiting") onWait?.(last.path);
    }
  }
  return last;
}
