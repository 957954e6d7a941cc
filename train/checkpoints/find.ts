/**
 * The newest checkpoint of a run that is whole.
 * @module
 */
import { join } from "node:path";
import { CheckpointError, InputError } from "../errors.ts";
import { findDifferences } from "./differences.ts";
import { readManifest, readSmallFile, verifyFiles } from "./files.ts";
import { listCheckpoints } from "./folders.ts";
import { type Manifest, STATE_FILE } from "./manifest.ts";
import { parseNumbers, type SavedNumbers } from "./state_json.ts";

/** A checkpoint that was passed over. */
export interface SkippedCheckpoint {
  readonly folder: string;
  /** What is wrong with it. */
  readonly reason: string;
}

/** A checkpoint whose files are all there and as they were written. */
export interface FoundCheckpoint {
  readonly folder: string;
  /** Steps done. */
  readonly step: number;
  /** Bytes of metrics.jsonl that belong to them. */
  readonly metricsBytes: number;
  /** Settings and hashes of files that the run's result depends on. */
  readonly identity: Readonly<Record<string, unknown>>;
  readonly manifest: Manifest;
  /** The content of state.json. */
  readonly numbers: SavedNumbers;
  /** Newer ones that are damaged. */
  readonly skipped: readonly SkippedCheckpoint[];
}

/**
 * Finds the newest checkpoint that is whole: every file listed by its manifest, of the size and SHA-256 it says.
 * Nothing is changed.
 *
 * @param runFolder the run's folder
 * @returns it, or undefined where the run has none
 * @throws {CheckpointError} when there are some and all are damaged, naming each and what is wrong with it
 */
export async function findCheckpoint(runFolder: string): Promise<FoundCheckpoint | undefined> {
  const { root, steps } = await listCheckpoints(runFolder);
  const skipped: SkippedCheckpoint[] = [];
  for (const { step, name } of steps) {
    const folder = join(root, name);
    try {
      return { ...await readWhole(folder, step), skipped };
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      skipped.push({ folder, reason: error.message });
    }
  }
  if (skipped.length === 0) return undefined;
  const reasons = skipped.map(({ reason }) => `\n  ${reason}`).join("");
  throw new CheckpointError(
    `Cannot resume from ${root}: expected a whole checkpoint, found ${skipped.length} damaged:${reasons}`,
  );
}

async function readWhole(folder: string, step: number): Promise<Omit<FoundCheckpoint, "skipped">> {
  const manifest = await readManifest(folder, step);
  await verifyFiles(folder, manifest.files);
  const file = join(folder, STATE_FILE);
  const numbers = parseNumbers(await readSmallFile(folder, STATE_FILE), { file });
  if (numbers.step !== step) {
    throw new CheckpointError(`Cannot read ${file}: step: expected ${step}, found ${numbers.step}`);
  }
  const { metricsBytes } = numbers;
  return { folder, step, metricsBytes, identity: manifest.identity, manifest, numbers };
}

/**
 * Refuses to go on with another run than the one that was saved.
 *
 * @param found the checkpoint
 * @param identity of the run as it would go on, of values that JSON can hold
 * @throws {InputError} naming each key that differs, with the value saved and the value now
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const found = { folder: "run/checkpoints/step-000100", identity: { seed: 0, data: { sha256: "ab" } } };
 * compareIdentity(found, { data: { sha256: "ab" }, seed: 0 });
 * assert.throws(() => compareIdentity(found, { data: { sha256: "cd" }, seed: 0 }), /data.sha256: expected "ab", found "cd"/);
 * ```
 */
export function compareIdentity(
  found: Pick<FoundCheckpoint, "folder" | "identity">,
  identity: Readonly<Record<string, unknown>>,
): void {
  // As it would be read back: undefined is left out.
  const now: unknown = JSON.parse(JSON.stringify(identity));
  const differences = findDifferences(found.identity, now);
  if (differences.length === 0) return;
  throw new InputError(`Cannot resume from ${found.folder}: ${differences.join("; ")}`);
}
