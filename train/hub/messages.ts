/**
 * What the program that trains and the one that downloads say to each other.
 * @module
 */
import { z } from "zod";
import { COMMIT_HASH } from "./hub_name.ts";
import { FILE_NAME } from "./model_listing.ts";

/** What a download is told. */
export const downloadRequestSchema = z.strictObject({
  /** `owner/name@revision`. */
  name: z.string(),
  endpoint: z.string(),
  /** The cache's folder of this repository. */
  repoFolder: z.string(),
  /** Where the locks of this repository are. */
  locksFolder: z.string(),
  retry: z.strictObject({ attempts: z.int().positive(), delayMs: z.number().nonnegative() }).optional(),
});

/** What a download is told. */
export type DownloadRequest = z.infer<typeof downloadRequestSchema>;

/** What was downloaded. */
export const snapshotSchema = z.object({
  /** The commit that the revision is. */
  commit: z.string().regex(COMMIT_HASH),
  files: z.array(z.object({
    path: z.string().regex(FILE_NAME),
    sizeBytes: z.int().nonnegative(),
    etag: z.string().regex(/^[0-9a-f]{40,64}$/),
  })),
});

/** A commit's files that a model needs; each is the blob named by its etag. */
export type Snapshot = z.infer<typeof snapshotSchema>;

/** A line of the answer; the last is `done` or `error`. */
export const downloadLineSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("progress"), doneBytes: z.number(), totalBytes: z.number() }),
  z.object({ kind: z.literal("waiting"), path: z.string() }),
  z.object({ kind: z.literal("done"), snapshot: snapshotSchema }),
  /** `isExpected` where the message says all. */
  z.object({ kind: z.literal("error"), message: z.string(), isExpected: z.boolean() }),
]);

/** A line of the answer. */
export type DownloadLine = z.infer<typeof downloadLineSchema>;

/** How a download speaks to whoever started it. */
export interface DownloadHooks {
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  /** Told the name of a file that another process is downloading. */
  readonly onWait?: (path: string) => void;
}
