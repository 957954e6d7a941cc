/**
 * `train --resume`: settings from the run's own config.json.
 * @module
 */
import { join } from "node:path";
import type { Invocation } from "../command_line.ts";
import { runConfigSchema } from "../config.ts";
import { describeFileKey, readConfigFile } from "../config_file.ts";
import { ConfigError } from "../errors.ts";
import { gatherSettings, nestSettings } from "../given_settings.ts";
import { CONFIG_FILE } from "../run_folder.ts";
import { listSettings } from "../settings.ts";

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
  const found = gatherSettings(readConfigFile(file, { settings: listSettings(runConfigSchema) }));
  const { overwrite: _, ...stored } = nestSettings(found);
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
