/**
 * `train --resume`: the run's folder as it was at the checkpoint.
 * @module
 */
import { join } from "node:path";
import { findCheckpoint, type FoundCheckpoint } from "../checkpoints/find.ts";
import { removeLeftovers } from "../checkpoints/prune.ts";
import { InputError } from "../errors.ts";
import { SAMPLES_FILE } from "../samples.ts";

/** What a run writes when it has ended; of the run that goes on it says nothing. */
const LATER_FILES = ["results.json", SAMPLES_FILE, "report.html"];

/**
/**
 * The command that goes on with a run, as a shell takes it.
 *
 * @param folder of the run
 */
export function resumeCommand(folder: string): string {
  const isPlain = /^[\w./:@%+-]+$/.test(folder);
  return `deno task train --resume --output ${isPlain ? folder : `'${folder.replaceAll("'", "'\\''")}'`}`;
}

/**
 * The newest whole checkpoint of a run.
 *
 * @param folder of the run
 * @param log told of damaged ones, and of where the run goes on
 * @throws {InputError} where the folder cannot be read
 */
export async function findResumed(
  folder: string,
  log: (line: string) => void,
): Promise<FoundCheckpoint | undefined> {
  const found = await findCheckpoint(folder);
  for (const { folder: damaged, reason } of found?.skipped ?? []) log(`Left out ${damaged}: ${reason}`);
  log(
    found
      ? `Going on after step ${found.step}, from ${found.folder}`
      : `Starting again: ${folder} holds no whole checkpoint`,
  );
  return found;
}

/**
 * Removes what a run that goes on writes again.
 *
 * @param folder of the run
 * @throws {InputError} where something cannot be removed
 */
export async function prepareResumedFolder(folder: string): Promise<void> {
  await removeLeftovers(folder);
  for (const name of LATER_FILES) {
    try {
      await Deno.remove(join(folder, name));
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) continue;
      throw new InputError(
        `Cannot write to ${folder}: expected to remove ${name}, found ${(cause as Error).message}`,
        { cause },
      );
    }
  }
}
