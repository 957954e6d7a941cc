/**
 * A file of the cache that is still arriving: `<etag>.incomplete`, as Hugging Face's own tools call it.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { HubError } from "./hub_error.ts";
import type { HubFile } from "./model_listing.ts";

const READ_BYTES = 2 ** 20;

/** A file that grows; its hash is kept beside. */
export interface PartialBlob extends Disposable {
  readonly sizeBytes: number;
  /**
   * Adds bytes at the end.
   * @throws {HubError} naming the file and the system's reason, such as a full disk
   */
  append(bytes: Uint8Array): Promise<void>;
  /** Throws away what it holds. */
  restart(): Promise<void>;
  /** Flushes it to the disk, and says whether the content is what the etag promises. The last call. */
  finish(): Promise<boolean>;
}

/**
 * Opens what an earlier download left, or begins anew.
 *
 * @param path of the partial file
 * @param file what it shall become
 */
export async function openPartialBlob(path: string, file: HubFile): Promise<PartialBlob> {
  const handle = await Deno.open(path, { read: true, write: true, create: true });
  try {
    const { size } = await handle.stat();
    const blob = growing(handle, { path, file });
    if (size > file.sizeBytes) await blob.restart();
    else await blob.readBack(size);
    return blob;
  } catch (error) {
    handle.close();
    throw error;
  }
}

function growing(handle: Deno.FsFile, { path, file }: { path: string; file: HubFile }) {
  let hash = startHash(file);
  let sizeBytes = 0;
  return {
    get sizeBytes() {
      return sizeBytes;
    },
    async readBack(size: number) {
      const buffer = new Uint8Array(READ_BYTES);
      while (sizeBytes < size) {
        const count = await handle.read(buffer.subarray(0, Math.min(READ_BYTES, size - sizeBytes)));
        if (count === null) break;
        hash?.update(buffer.subarray(0, count));
        sizeBytes += count;
      }
    },
    async append(bytes: Uint8Array) {
      try {
        for (let done = 0; done < bytes.byteLength;) {
          const count = await handle.write(bytes.subarray(done));
          hash?.update(bytes.subarray(done, done + count));
          done += count;
          sizeBytes += count;
        }
      } catch (cause) {
        throw new HubError(`Cannot write ${path}: ${(cause as Error).message}`, { cause });
      }
    },
    async restart() {
      await handle.truncate(0);
      await handle.seek(0, Deno.SeekMode.Start);
      hash = startHash(file);
      sizeBytes = 0;
    },
    async finish() {
      await handle.sync();
      return sizeBytes === file.sizeBytes && (hash === undefined || hash.digest("hex") === file.etag);
    },
    [Symbol.dispose]: () => handle.close(),
  };
}

/** Git hashes a header before the content. */
function startHash({ hash, sizeBytes }: HubFile): Hash | undefined {
  if (hash === "sha256") return createHash("sha256");
  if (hash === "git-sha1") return createHash("sha1").update(`blob ${sizeBytes}\0`);
  return undefined;
}
