/**
 * One file from the hub into the cache's blobs/: whole and checked, or not there.
 *
 * The library's own downloadFileToCacheDir starts again after an interruption, checks neither size nor hash, and two
 * processes would write into the same partial file; so the bytes are fetched here.
 * @module
 */
import { join } from "node:path";
import { takeLock } from "./file_lock.ts";
import type { HubClient } from "./hub_client.ts";
import { HubError, TransientHubError } from "./hub_error.ts";
import type { HubFile } from "./model_listing.ts";
import { openPartialBlob, type PartialBlob } from "./partial_blob.ts";
import { DEFAULT_RETRY, retrying, type RetryPolicy } from "./retry.ts";

/** Silence after which a connection counts as lost. */
const IDLE_MS = 30_000;

/** Where a file comes from and goes to. */
export interface FetchBlobOptions {
  readonly client: Pick<HubClient, "open">;
  /** For messages. */
  readonly repo: string;
  readonly commit: string;
  /** The cache's folder of this repository; its blobs/ must exist. */
  readonly repoFolder: string;
  /** Where the locks of this repository are; must exist. */
  readonly locksFolder: string;
  /** Told how much of this file is there. */
  readonly onBytes?: (sizeBytes: number) => void;
  /** Told once when another process is at the same file. */
  readonly onWait?: () => void;
  readonly retry?: RetryPolicy;
  readonly idleMs?: number;
}

/**
 * Downloads a file, going on where an earlier download ended.
 *
 * @param file what to download
 * @param options where from and where to
 * @throws {HubError} when the connection ends for good, or size or hash are not what the hub listed
 */
export async function fetchBlob(file: HubFile, options: FetchBlobOptions): Promise<void> {
  const blob = join(options.repoFolder, "blobs", file.etag);
  // The same lock as Hugging Face's own tools take.
  using _lock = await takeLock(join(options.locksFolder, `${file.etag}.lock`), options.onWait);
  if (await sizeOf(blob) !== file.sizeBytes) {
    const partial = `${blob}.incomplete`;
    let outcome = await complete(file, partial, options);
    // What an earlier run left may have been damaged: once more, from the beginning.
    if (outcome === "wrong after resuming") outcome = await complete(file, partial, options);
    if (outcome !== "right") {
      throw new HubError(
        `Cannot download ${options.repo}: expected ${file.path} with the hash ${file.etag}, found another content; ` +
          "nothing of it was kept",
      );
    }
    await Deno.rename(partial, blob);
  }
  options.onBytes?.(file.sizeBytes);
}

/** Receives a file to its end; a wrong one is removed. */
async function complete(
  file: HubFile,
  path: string,
  options: FetchBlobOptions,
): Promise<"right" | "wrong" | "wrong after resuming"> {
  let isRight: boolean;
  let wasThere: boolean;
  {
    using partial = await openPartialBlob(path, file);
    wasThere = partial.sizeBytes > 0;
    const receive = () => receiveRest(partial, file, options);
    await retrying(receive, { policy: options.retry ?? DEFAULT_RETRY, doneBytes: () => partial.sizeBytes });
    isRight = await partial.finish();
  }
  if (isRight) return "right";
  await Deno.remove(path);
  return wasThere ? "wrong after resuming" : "wrong";
}

async function receiveRest(partial: PartialBlob, file: HubFile, options: FetchBlobOptions): Promise<void> {
  const { client, repo, commit, onBytes } = options;
  if (partial.sizeBytes === file.sizeBytes) return;
  const idle = idleLimit(options.idleMs ?? IDLE_MS);
  try {
    onBytes?.(partial.sizeBytes);
    const signal = idle.signal;
    const response = await client.open(file.path, { commit, offset: partial.sizeBytes, signal });
    await fitOffset(partial, response, { file, repo });
    for await (const bytes of bodyOf(response, { file, repo })) {
      idle.renew();
      if (partial.sizeBytes + bytes.byteLength > file.sizeBytes) {
        await refuseSize(partial, file, { repo, found: "more" });
      }
      await partial.append(bytes);
      onBytes?.(partial.sizeBytes);
    }
    if (partial.sizeBytes < file.sizeBytes) throw interrupted(file, repo);
  } finally {
    idle.end();
  }
}

/** Makes the partial file end where the answer begins, and refuses another size than listed. */
async function fitOffset(
  partial: PartialBlob,
  response: Response,
  { file, repo }: { file: HubFile; repo: string },
): Promise<void> {
  if (response.status === 206) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
    if (range && Number(range[1]) === partial.sizeBytes) {
      if (range[2] !== "*" && Number(range[2]) !== file.sizeBytes) {
        await response.body?.cancel();
        await refuseSize(partial, file, { repo, found: range[2] });
      }
      return;
    }
  } else if (response.status !== 416) {
    if (partial.sizeBytes > 0) await partial.restart();
    const length = response.headers.get("content-length");
    if (length === null || response.headers.has("content-encoding") || Number(length) === file.sizeBytes) {
      return;
    }
    await response.body?.cancel();
    await refuseSize(partial, file, { repo, found: length });
  }
  await response.body?.cancel();
  await partial.restart();
  throw new TransientHubError(
    `Cannot download ${repo}: expected ${file.path} in the range that was asked for`,
  );
}

async function refuseSize(
  partial: PartialBlob,
  file: HubFile,
  { repo, found }: { repo: string; found: string },
): Promise<never> {
  await partial.restart();
  throw new HubError(
    `Cannot download ${repo}: expected ${file.path} of ${file.sizeBytes} bytes, found ${found}; nothing of it was kept`,
  );
}

/** A body whose faults are those of the line. */
async function* bodyOf(
  response: Response,
  { file, repo }: { file: HubFile; repo: string },
): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  try {
    for (;;) {
      const part = await reader?.read().catch((cause) => {
        throw interrupted(file, repo, cause);
      });
      if (!part || part.done) return;
      yield part.value;
    }
  } finally {
    await reader?.cancel().catch(() => {}); // of a body that has failed already
  }
}

function interrupted(file: HubFile, repo: string, cause?: unknown): TransientHubError {
  return new TransientHubError(
    `Cannot download ${repo}: expected all ${file.sizeBytes} bytes of ${file.path}, found that the connection ended ` +
      "before; run again to go on from there",
    { cause },
  );
}

function idleLimit(ms: number): { signal: AbortSignal; renew: () => void; end: () => void } {
  const controller = new AbortController();
  const start = () => setTimeout(() => controller.abort(new Error(`silent for ${ms} ms`)), ms);
  let timer = start();
  const end = () => clearTimeout(timer);
  const renew = () => {
    end();
    timer = start();
  };
  return { signal: controller.signal, renew, end };
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await Deno.stat(path)).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
