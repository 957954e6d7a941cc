/**
 * Everything that a model needs, from the hub into the cache's blobs/. The snapshot's folder of links is made by who
 * asked, as links need more permissions than a download has.
 * @module
 */
import { join } from "node:path";
import { fetchBlob, type FetchBlobOptions } from "./fetch_blob.ts";
import { createHubClient, type HubClient } from "./hub_client.ts";
import { COMMIT_HASH, parseHubName } from "./hub_name.ts";
import { type HubEntry, type HubFile, INDEX_FILE, smallFiles, weightFiles } from "./model_listing.ts";
import type { DownloadHooks, DownloadRequest, Snapshot } from "./messages.ts";

/**
 * Downloads what is not in the cache yet.
 *
 * @param request what, from where, to where; blobs/ and the folder of locks must exist
 * @param options the user's token, and hooks
 * @returns what the snapshot consists of
 * @throws {HubError} saying what to do
 */
export async function fetchSnapshot(
  request: DownloadRequest,
  { token, hooks = {} }: { token?: string; hooks?: DownloadHooks } = {},
): Promise<Snapshot> {
  const { endpoint, repoFolder, locksFolder, retry } = request;
  const name = parseHubName(request.name);
  const { repo } = name;
  const client = createHubClient({ name, endpoint, token, retry });
  const commit = COMMIT_HASH.test(name.revision) ? name.revision : await client.commit();
  const entries = await client.list(commit);
  const common = { client, repo, commit, repoFolder, locksFolder, retry };
  const files = await filesOf(entries, common);
  await fetchAll(files, common, hooks);
  return { commit, files: files.map(({ path, sizeBytes, etag }) => ({ path, sizeBytes, etag })) };
}

type Common = Omit<FetchBlobOptions, "onBytes" | "onWait"> & { client: HubClient };

/** The index says which files hold the weights, so it comes first; a repository that lacks one is refused early. */
async function filesOf(entries: readonly HubEntry[], common: Common): Promise<HubFile[]> {
  const { repo, repoFolder } = common;
  const small = smallFiles(entries, repo);
  const indexFile = small.find(({ path }) => path === INDEX_FILE);
  if (!indexFile) return [...small, ...weightFiles(entries, { repo })];
  await fetchBlob(indexFile, common);
  const index = await Deno.readTextFile(join(repoFolder, "blobs", indexFile.etag));
  return [...small, ...weightFiles(entries, { repo, index })];
}

async function fetchAll(files: readonly HubFile[], common: Common, hooks: DownloadHooks): Promise<void> {
  const totalBytes = files.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  let before = 0;
  for (const file of files) {
    await fetchBlob(file, {
      ...common,
      onBytes: (sizeBytes) => hooks.onProgress?.(before + sizeBytes, totalBytes),
      onWait: () => hooks.onWait?.(file.path),
    });
    before += file.sizeBytes;
  }
}
