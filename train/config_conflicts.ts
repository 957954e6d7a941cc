/**
 * Settings that are sound one by one and not together: refused before anything runs.
 * @module
 */
import { findLoraConflict } from "./adapters/lora_settings.ts";
import type { ConfigSource, RunConfig } from "./config.ts";
import { ConfigError } from "./errors.ts";
import type { ResolvedPairLoss } from "./losses/pair_loss.ts";
import { findSpoConflict } from "./losses/spo.ts";
import { isUnpairedLoss, type ResolvedUnpairedLoss } from "./losses/unpaired.ts";

/** What the checks read beside the settings. */
interface ConflictContext {
  /** How to name a setting in an error. */
  readonly source: ConfigSource;
  /** Undefined where the loss has no pairs. */
  readonly loss?: ResolvedPairLoss;
  /** Undefined where the loss has no labelled answers. */
  readonly unpaired?: ResolvedUnpairedLoss;
  /** Whether what is minimised reads the reference. */
  readonly isReferenceRead: boolean;
}

/** Raw settings, for what was given and what is a default. */
type RawSettings = Readonly<Record<string, unknown>>;

/**
 * Refuses settings that contradict each other.
 *
 * @param config effective settings
 * @param raw as the user gave them
 * @param context names of settings, and the losses with their options
 * @throws {ConfigError} naming the setting, what was expected and what was found
 */
export function refuseConflicts(config: RunConfig, raw: RawSettings, context: ConflictContext): void {
  refuseUnreadGroups(config, raw, context);
  refuseUnevenBatch(config, context);
  refuseHalfPrecision(config, context);
  refuseUncoupledBatch(config, context);
  refuseUnreadReference(config, raw, context);
  refuseUnevenSftBatch(config, context);
  refuseSplitBatch(config, context);
  refuseUnevenLooks(config, context);
  refuseUnseenDashboard(config, context);
}

/** A page that shows nothing, and a port that no page is at. */
function refuseUnseenDashboard(config: RunConfig, { source }: ConflictContext): void {
  if (!config.dashboard && config.dashboardPort !== undefined) {
    throw new ConfigError(
      `Cannot use ${source.describe(["dashboardPort"])}: expected ${
        source.describe(["dashboard"])
      } with it, found none`,
    );
  }
  const other = (["dryRun", "inspect"] as const).find((name) => config[name]);
  if (!config.dashboard || other === undefined) return;
  throw new ConfigError(
    `Cannot use ${source.describe(["dashboard"])}: expected a run that trains, found ${
      source.describe([other])
    }`,
  );
}

/** Held-out metrics go to lines of the training's. */
function refuseUnevenLooks({ evalSteps, logEvery }: RunConfig, { source }: ConflictContext): void {
  if (evalSteps === undefined || evalSteps % logEvery === 0) return;
  throw new ConfigError(
    `Cannot use ${
      source.describe(["evalSteps"])
    }: expected a multiple of the ${logEvery} steps between two ` +
      `lines of metrics.jsonl (logEvery), found ${evalSteps}`,
  );
}

/** Settings of SPO and of adapters that the others of their group do not read. */
function refuseUnreadGroups({ spo, lora }: RunConfig, raw: RawSettings, { source }: ConflictContext): void {
  const given = (group: string) => new Set(Object.keys((raw[group] as RawSettings | undefined) ?? {}));
  const conflicts = {
    spo: findSpoConflict(spo, given("spo")),
    lora: findLoraConflict(lora, given("lora")),
  };
  for (const [group, conflict] of Object.entries(conflicts)) {
    if (!conflict) continue;
    const [name, expected] = conflict;
    throw new ConfigError(
      `Cannot use ${
        source.describe([group, name])
      }: expected ${expected}, found settings that do not read it`,
    );
  }
}

/** Micro-batches are of one size. */
function refuseUnevenBatch(
  { batchSize, gradientAccumulationSteps }: RunConfig,
  { source }: ConflictContext,
): void {
  if (batchSize % gradientAccumulationSteps === 0) return;
  throw new ConfigError(
    `Cannot use ${source.describe(["gradientAccumulationSteps"])}: expected a divisor of the batch size ` +
      `${batchSize}, found ${gradientAccumulationSteps}`,
  );
}

function refuseHalfPrecision({ spo, ches, dtype }: RunConfig, { source }: ConflictContext): void {
  if (dtype !== "f16") return;
  if (ches) throw new ConfigError(`Cannot use ${source.describe(["ches"])}: expected f32, found dtype f16`);
  const takesInnerSteps = spo.solver === "unrolled" || (spo.solver === "penalty" && spo.vStar === "track");
  if (!takesInnerSteps) return;
  throw new ConfigError(
    `Cannot use ${source.describe(["dtype"])}: expected f32 with SPO's inner steps (solver unrolled, ` +
      "vStar track), found f16",
  );
}

/** A KL estimate is of the whole batch, of prompts with other prompts' answers. */
function refuseUncoupledBatch(config: RunConfig, { source, unpaired }: ConflictContext): void {
  if (!unpaired?.needsKl) return;
  const { loss, batchSize, gradientAccumulationSteps: parts, batchTokens } = config;
  if (batchSize < 2) {
    throw new ConfigError(
      `Cannot use ${source.describe(["batchSize"])}: expected at least 2 with ${loss}, whose KL estimate ` +
        `pairs a prompt with another's answer, found ${batchSize}`,
    );
  }
  const split = parts > 1 ? ["gradientAccumulationSteps", 1, parts] : ["batchTokens", "none", batchTokens];
  if (split[2] === undefined) return;
  throw new ConfigError(
    `Cannot use ${source.describe([String(split[0])])}: expected ${split[1]} with ${loss}, whose KL ` +
      `estimate is of the whole batch, found ${split[2]}`,
  );
}

/** Settings of the reference that the others leave nothing to do for. */
function refuseUnreadReference(
  config: RunConfig,
  raw: RawSettings,
  { source, isReferenceRead }: ConflictContext,
): void {
  const refuse = (name: string, expected: string, found: string): void => {
    throw new ConfigError(
      `Cannot use ${source.describe(name.split("."))}: expected ${expected}, found ${found}`,
    );
  };
  const isUnpaired = isUnpairedLoss(config.loss);
  const isSet = {
    syncRefModel: config.syncRefModel,
    precomputeReference: raw.precomputeReference !== undefined,
    "lora.reference": (raw.lora as RawSettings | undefined)?.reference !== undefined,
  };
  for (const [name, isGiven] of Object.entries(isSet)) {
    if (isGiven && !isReferenceRead) refuse(name, "a loss that reads the reference", config.loss);
  }
  if (isSet.precomputeReference && isUnpaired) {
    refuse("precomputeReference", "a pairwise loss, whose reference can be either", config.loss);
  }
  for (const name of ["refModelMixupAlpha", "refModelSyncSteps"]) {
    if (raw[name] !== undefined && !config.syncRefModel) refuse(name, "syncRefModel with it", "none");
  }
  if (!config.syncRefModel) return;
  if (config.lora.rank !== undefined) {
    refuse("syncRefModel", "no LoRA, whose reference is the model that it is on", `rank ${config.lora.rank}`);
  }
  if (!isUnpaired && config.precomputeReference) {
    refuse("syncRefModel", "precomputeReference false, since the reference moves", "it precomputed");
  }
}

function refuseUnevenSftBatch(
  { spo: { sftBatchSize }, gradientAccumulationSteps }: RunConfig,
  { source }: ConflictContext,
): void {
  if (sftBatchSize === undefined || sftBatchSize % gradientAccumulationSteps === 0) return;
  throw new ConfigError(
    `Cannot use ${source.describe(["spo", "sftBatchSize"])}: expected a multiple of the ` +
      `${gradientAccumulationSteps} micro-batches, found ${sftBatchSize}`,
  );
}

/** Some losses and penalties need a step's batch in one piece. */
function refuseSplitBatch(config: RunConfig, { source, loss }: ConflictContext): void {
  const { spo, gradientAccumulationSteps, batchTokens } = config;
  const split: [string, string, number | undefined][] = [
    ["gradientAccumulationSteps", "1", gradientAccumulationSteps > 1 ? gradientAccumulationSteps : undefined],
    ["batchTokens", "none", batchTokens],
  ];
  for (const [name, expected, found] of split) {
    if (found === undefined) continue;
    const flag = source.describe([name]);
    if (loss?.needsWholeBatch) {
      throw new ConfigError(
        `Cannot use ${flag}: expected ${expected} with ${config.loss}, whose pairs depend on the whole ` +
          `batch, found ${found}`,
      );
    }
    const curved = spo.penalty !== "linear" || spo.lambdaSchedule === "dual";
    if (spo.solver === "penalty" && curved) {
      throw new ConfigError(
        `Cannot use ${flag}: expected ${expected} with this SPO penalty, whose slope depends on the whole batch`,
      );
    }
    if (
      name === "batchTokens" &&
      (spo.solver === "unrolled" || spo.solver === "alternating" || spo.vStar === "track")
    ) {
      throw new ConfigError(`Cannot use ${flag}: expected none with passes of SPO's own, found ${found}`);
    }
  }
}

/**
 * Refuses what belongs to answers without pairs, given to a loss on pairs. Apart from the others, since it must come
 * before the losses' options are resolved: its reason is the better one.
 *
 * @param config effective settings
 * @param source how to name a setting in an error
 * @throws {ConfigError} naming the setting
 */
export function refuseUnpairedParts(config: RunConfig, source: ConfigSource): void {
  const names = config.loss.split(",").map((name) => name.trim());
  const unpaired = names.find(isUnpairedLoss);
  if (names.length > 1 && unpaired) {
    throw new ConfigError(
      `Cannot use ${
        source.describe(["loss"])
      }: expected ${unpaired} alone, which has no pairs, found ${config.loss}`,
    );
  }
  const option = (["desirableWeight", "undesirableWeight"] as const).find((name) =>
    config[name] !== undefined
  );
  if (option && !unpaired) {
    throw new ConfigError(
      `Cannot use ${
        source.describe([option])
      }: expected kto or apo_zero_unpaired as loss, found ${config.loss}`,
    );
  }
}
