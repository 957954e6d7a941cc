/**
 * Settings of a run's data, checked.
 * @module
 */
import type { ConfigSource, RunConfig } from "./config.ts";
import { parseWeights } from "./data/mixture.ts";
import { ConfigError, showFound } from "./errors.ts";

/**
 * Refuses settings of the data that do not fit it, or that the loss does not read.
 *
 * @param config effective settings
 * @param source how to name a setting in an error
 * @throws {ConfigError} naming the setting
 */
export function refuseUnusableData(config: RunConfig, source: ConfigSource): void {
  requireWeightPerFile(config, source);
  const { assistantOnlyLoss, loss } = config;
  if (assistantOnlyLoss && loss !== "sft") {
    throw new ConfigError(
      `Cannot use ${source.describe(["assistantOnlyLoss"])}: expected sft as loss, found ${loss}`,
    );
  }
}

/**
 * Refuses weights that are not a number above 0 for each file.
 *
 * @param config with `data`, or without, where nothing is checked
 * @param source how to name a setting in an error
 * @throws {ConfigError} saying how many are expected
 */
export function requireWeightPerFile(
  config: Pick<RunConfig, "data" | "dataWeights">,
  source: ConfigSource,
): void {
  const files = config.data?.split(",").length;
  const weights = dataWeightsOf(config);
  if (files === undefined || config.dataWeights === undefined || weights?.length === files) return;
  throw new ConfigError(
    `Cannot use ${
      source.describe(["dataWeights"])
    }: expected a number above 0 for each of the ${files} files, ` +
      `joined by commas, found ${showFound(config.dataWeights)}`,
  );
}

/**
 * The weights of a run's files, where they have any.
 *
 * @param config effective settings
 */
export function dataWeightsOf({ dataWeights }: Pick<RunConfig, "dataWeights">): number[] | undefined {
  return dataWeights === undefined ? undefined : parseWeights(dataWeights);
}
