/**
 * manifest.json of a checkpoint: what it was made by, and size and SHA-256 of every file in it.
 *
 * `{"sha256": digest, "manifest": {...}}`, the digest over the JSON of `manifest` without spaces, so that damage to the
 * manifest itself is seen too. Names in it are compared with those in the folder; none is ever opened.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { CheckpointError } from "../errors.ts";
import { parseJson } from "./json_text.ts";

/** The file's name. */
export const MANIFEST_FILE = "manifest.json";

/** Numbers of a run's state that are on the host. */
export const STATE_FILE = "state.json";

/** Its tensors. */
export const TENSORS_FILE = "state.safetensors";

/** Of what this version writes; others are refused. */
export const FORMAT_VERSION = 1;

/** A file of a checkpoint. */
export interface ManifestFile {
  /** Under the checkpoint's folder, with `/` between names: `model/config.json`. */
  readonly path: string;
  readonly sizeBytes: number;
  /** SHA-256 of its content, hexadecimal. */
  readonly sha256: string;
}

/** What a manifest says. */
export interface Manifest {
  readonly formatVersion: typeof FORMAT_VERSION;
  readonly keelVersion: string;
  /** Steps done. */
  readonly step: number;
  /** Of the metric by which the best checkpoint is kept; higher is better. */
  readonly score?: number;
  /** Settings and hashes of files that the run's result depends on. */
  readonly identity: Readonly<Record<string, unknown>>;
  readonly files: readonly ManifestFile[];
}

const count = z.number("a number").refine(
  (value) => Number.isSafeInteger(value) && value >= 0,
  "a non-negative integer below 2^53",
);
const digest = z.string("a SHA-256 digest").regex(/^[0-9a-f]{64}$/, "64 hexadecimal digits");

const manifestSchema = z.object({
  formatVersion: z.literal(FORMAT_VERSION, `${FORMAT_VERSION}, the format that this version reads`),
  keelVersion: z.string("a version"),
  step: count,
  score: z.number("a number").optional(),
  identity: z.record(z.string(), z.unknown(), "an object"),
  files: z.array(
    z.object({
      path: z.string("a path").refine(isPlainPath, "a plain path under the checkpoint's folder"),
      sizeBytes: count,
      sha256: digest,
    }, "an object of path, sizeBytes and sha256"),
    "a list of files",
  ),
}, "an object");

const fileSchema = z.object({ sha256: digest, manifest: z.unknown() }, "an object of sha256 and manifest");

/** Whether a path stays in the folder that it starts from, on every system. */
function isPlainPath(path: string): boolean {
  return path.split("/").every((name) => /^[^\\:\0]+$/.test(name) && name !== "." && name !== "..");
}

/**
 * Prints a manifest.
 *
 * @param manifest what it says
 * @returns the content of manifest.json
 */
export function formatManifest(manifest: Manifest): string {
  const text = `${JSON.stringify({ sha256: digestOf(manifest), manifest }, null, 2)}\n`;
  return text;
}

/**
 * Parses and checks a manifest.
 *
 * @param bytes the content of manifest.json
 * @param options.file its name, for messages
 * @returns a manifest whose digest is right and which lists each file once, those of the state among them
 * @throws {CheckpointError} naming the file and the key
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const file = (path: string) => ({ path, sizeBytes: 0, sha256: "0".repeat(64) });
 * const text = formatManifest({
 *   ...{ formatVersion: 1, keelVersion: "0.1.0", step: 100, identity: { seed: 0 } },
 *   files: [file("state.json"), file("state.safetensors")],
 * });
 * const parse = (text: string) => parseManifest(new TextEncoder().encode(text), { file: "manifest.json" });
 * assert.equal(parse(text).step, 100);
 * assert.throws(() => parse(text.replace("100", "101")), /digest/);
 * ```
 */
export function parseManifest(bytes: Uint8Array, { file }: { file: string }): Manifest {
  const { sha256, manifest } = parseJson(bytes, { file, schema: fileSchema });
  if (digestOf(manifest) !== sha256) {
    throw new CheckpointError(`Cannot read ${file}: expected the digest ${sha256}, found other content`);
  }
  const checked = parseJson(new TextEncoder().encode(JSON.stringify(manifest)), {
    file,
    schema: manifestSchema,
  });
  const paths = new Set(checked.files.map(({ path }) => path));
  if (paths.size < checked.files.length || paths.has(MANIFEST_FILE)) {
    throw new CheckpointError(`Cannot read ${file}: files: expected each other file once, found more`);
  }
  for (const needed of [STATE_FILE, TENSORS_FILE]) {
    if (!paths.has(needed)) {
      throw new CheckpointError(`Cannot read ${file}: files: expected ${needed}, found no such file`);
    }
  }
  return checked;
}

function digestOf(manifest: unknown): string {
  return createHash("sha256").update(JSON.stringify(manifest) ?? "").digest("hex");
}
