/**
 * `train --resume`: settings from the run's own config.json, and its folder as it was at the checkpoint.
 * @module
 */
import { join } from "node:path";
import type { Invocation } from "../command_line.ts";
import { findCheckpoint, type FoundCheckpoint } from "../checkpoints/find.ts";
import { removeLeftovers } from "../checkpoints/prune.ts";
import { runConfigSchema } from "../config.ts";
import { describeFileKey, readConfigFile } from "../config_file.ts";
import { ConfigError, InputError } from "../errors.ts";
import { CONFIG_FILE } from "../run_folder.ts";
import { SAMPLES_FILE } from "../samples.ts";
import { listSettings } from "../settings.ts";

/** What a run writes when it has ended; of the run that goes on it says nothing. */
const LATER_FILES = ["results.json", SAMPLES_FILE, "report.html"];

/**
 * The settings of the run that goes on, under those that were given with `--resume`: whether these may differ, the
 * checkpoint tells.
 *
 * @param given with `resume` among its settings
 * @throws {ConfigError} without `output`, with `overwrite`, or where the folder holds no run
 */
export function resumedInvocation(given: Invocation): Invocation {
  const { raw, source } = given;
  const { output, overwrite } = raw;
  if (typeof output !== "string") {
    throw new ConfigError(
      `Cannot use ${source.describe(["resume"])}: expected --output with the folder of the run, found none`,
    );
  }
  if (overwrite === true) {
    throw new ConfigError(
      `Cannot use ${source.describe(["resume"])}: expected a run that is kept, found overwrite`,
    );
  }
  const file = join(output, CONFIG_FILE);
  const { overwrite: _, ...stored } = readConfigFile(file, listSettings(runConfigSchema));
  return {
    ...given,
    raw: mergeSettings(stored, raw),
    source: {
      describe: (path) =>
        isSet(raw, path) || !isSet(stored, path)
          ? source.describe(path)
          : describeFileKey(file, path.join(".")),
    },
  };
}

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

function isSet(raw: Readonly<Record<string, unknown>>, [key, ...rest]: readonly string[]): boolean {
  const value = raw[key];
  if (value === undefined || rest.length === 0) return value !== undefined;
  return typeof value === "object" && value !== null && isSet(value as Record<string, unknown>, rest);
}

/** Groups such as `spo` are merged key by key. */
function mergeSettings(
  stored: Readonly<Record<string, unknown>>,
  given: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const merged = { ...stored };
  for (const [key, value] of Object.entries(given)) {
    const isGroup = typeof value === "object" && value !== null;
    merged[key] = isGroup ? { ...stored[key] as Record<string, unknown>, ...value } : value;
  }
  return merged;
}
