/**
 * Names in a run's folder of checkpoints.
 *
 * `checkpoints/step-000100` is whole, as it got that name last. Names that begin with a dot are of work under way: of a
 * dead run they are litter, but for `.step-000100.replaced`, which counts until the new one of that step is in place.
 *
 * @module
 */
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import type { FileSystem } from "../file_system.ts";
import { isSystemError } from "../write_error.ts";

/** The folder of checkpoints in that of a run. */
export const CHECKPOINTS_FOLDER = "checkpoints";

const STEP = /^step-(\d{6,15})$/;
const REPLACED = /^\.step-(\d{6,15})\.replaced$/;
const LITTER = /^\.step-\d{6,15}\.\d+\.(partial|removed)$/;

/** The name of a step's checkpoint. */
export function stepName(step: number): string {
  return `step-${String(step).padStart(6, "0")}`;
}

/** What a folder of checkpoints holds. */
export interface CheckpointFolders {
  /** Its path. */
  readonly root: string;
  /** Steps and their folders, newest first; where a step has two, the one that was about to be replaced last. */
  readonly steps: readonly { readonly step: number; readonly name: string }[];
  /** Names that dead runs left. */
  readonly litter: readonly string[];
}

/**
 * Lists the checkpoints of a run by their names alone; links are left out.
 *
 * @param runFolder the run's folder
 * @param fileSystem Deno by default
 * @returns nothing of a folder that is not there
 * @throws {CheckpointError} where it cannot be read, or is a link or a file
 */
export async function listCheckpoints(
  runFolder: string,
  fileSystem: FileSystem = Deno,
): Promise<CheckpointFolders> {
  const root = join(runFolder, CHECKPOINTS_FOLDER);
  const steps: { step: number; name: string }[] = [];
  const litter: string[] = [];
  try {
    // What is removed here has to be this run's: a link could lead to another's.
    if (!(await fileSystem.lstat(root)).isDirectory) {
      throw new CheckpointError(`Cannot read ${root}: expected a folder, found a file or a link`);
    }
    for await (const { name, isDirectory } of fileSystem.readDir(root)) {
      const step = STEP.exec(name)?.[1] ?? REPLACED.exec(name)?.[1];
      if (!isDirectory) continue;
      if (step !== undefined) steps.push({ step: Number(step), name });
      else if (LITTER.test(name)) litter.push(name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw cannotRead(root, error);
  }
  // Of two names of a step, the one with a dot is the older checkpoint.
  steps.sort((a, b) => b.step - a.step || Number(a.name.startsWith(".")) - Number(b.name.startsWith(".")));
  return { root, steps, litter };
}

/**
 * What the system says of a file, as an error that names the file.
 *
 * @param path the file or folder
 * @param error anything thrown; what carries no code of the system is returned as it is
 */
export function cannotRead(path: string, error: unknown): unknown {
  if (!isSystemError(error)) return error;
  const found = error instanceof Deno.errors.NotFound ? "nothing" : error.message;
  return new CheckpointError(`Cannot read ${path}: expected a file or folder to read, found ${found}`, {
    cause: error,
  });
}
