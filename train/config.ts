/**
 * The configuration of a run: every setting, its default and its range, in one place.
 * @module
 */
import { z } from "zod";
import { loraSchema, readLoraSettings } from "./adapters/lora_settings.ts";
import { refuseConflicts, refuseUnpairedParts } from "./config_conflicts.ts";
import { refuseUnusableData } from "./data_settings.ts";
import { ConfigError, showFound } from "./errors.ts";
import { describeIssue } from "./issue.ts";
import type { ResolvedPairLoss } from "./losses/pair_loss.ts";
import {
  isUnpairedLoss,
  type ResolvedUnpairedLoss,
  resolveUnpairedLoss,
  UNPAIRED_OPTIONS,
} from "./losses/unpaired.ts";
import type { ReferenceSync } from "./live_reference.ts";
import { readSpoOptions, spoSchema } from "./losses/spo.ts";
import { resolvePairLoss } from "./losses/weighted_sum.ts";
import { DEFAULT_OPTIMIZER } from "./optimizer_defaults.ts";
import { LEARNING_RATE_SCHEDULES } from "./schedule.ts";

/** Options of losses; their ranges and defaults depend on the loss. */
const lossOptionsShape = {
  /** Strength of the preference loss. */
  beta: z.number().positive().optional(),
  /** Probability that a preference is labelled the wrong way round. */
  labelSmoothing: z.number().min(0).lt(0.5).optional(),
  /** ipo: average log-ratios over tokens. */
  lengthNormalize: z.boolean().optional(),
  /** simpo and its kin: target margin as a share of beta. */
  gammaBetaRatio: z.number().min(0).optional(),
  /** alphapo: shape of the reward; rdpo, alphadpo, beta_dpo: weight of the length, of the margin, of the batch. */
  alpha: z.number().optional(),
  /** cpo: weight of the likelihood of the chosen answers. */
  cpoAlpha: z.number().min(0).optional(),
  /** dpop: weight of the penalty on a chosen answer that became less likely. */
  dpopLambda: z.number().min(0).optional(),
  /** discopop: temperature of the mix of its two losses. */
  discopopTau: z.number().positive().optional(),
  /** Losses on log-ratios: divergence that the reward belongs to. */
  fDivergenceType: z.enum(["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]).optional(),
  /** Of the alpha-divergence. */
  fAlphaDivergenceCoef: z.number().optional(),
  /** Losses on log-ratios: take the reference's log-probs to be 0. */
  referenceFree: z.boolean().optional(),
  /** LD-DPO: what tokens past the length of the pair's shorter answer count; off by default, which is 1. */
  ldAlpha: z.number().min(0).max(1).optional(),
  /** kto, apo_zero_unpaired: factor of the good answers' losses. */
  desirableWeight: z.number().positive().optional(),
  /** kto, apo_zero_unpaired: factor of the bad answers' losses. */
  undesirableWeight: z.number().positive().optional(),
};

/** Names of the options of losses. */
export const LOSS_OPTIONS = Object.keys(lossOptionsShape) as (keyof typeof lossOptionsShape)[];

/** Every key that a user can set: flags are these in kebab case, config files hold them as they are. */
export const runConfigSchema = z.strictObject({
  /** The model to start from: a folder, or `owner/name[@revision]` on the hub. */
  model: z.string().min(1).optional(),
  /** Folder of the model that an adapter belongs to, where `model` is an adapter. */
  base: z.string().min(1).optional(),
  /** Records to train on: .json, .jsonl (both also .gz) or .parquet; several files joined by commas. */
  data: z.string().min(1).optional(),
  /** Shares of several files in an epoch, joined by commas; by default every record comes once. */
  dataWeights: z.string().min(1).optional(),
  /** Held-out records of the same kind. */
  evalData: z.string().min(1).optional(),
  /** What is minimised: `sft`, or a pairwise loss, a preset, or several joined by commas. */
  loss: z.string().min(1).default("dpo"),
  /** Weights of several, joined by commas; 1 each by default. */
  lossWeights: z.string().min(1).optional(),
  ...lossOptionsShape,
  /** Compute a prompt that both sides of a pair share once: the same numbers, fewer tokens. */
  promptSharing: z.boolean().default(true),
  /** Report CHES scores: how alike the model sees the two sides of a pair. */
  ches: z.boolean().default(false),
  /** WPO: weight pairs by how likely the policy itself would have written both answers. */
  useWeighting: z.boolean().default(false),
  /** Compute the reference's log-probs once and keep them, or in every step, by a frozen copy or the adapter turned off. */
  precomputeReference: z.boolean().default(true),
  /** TR-DPO: the reference follows the policy. */
  syncRefModel: z.boolean().default(false),
  /** Share of the policy in each move; 0.6 by default. */
  refModelMixupAlpha: z.number().positive().max(1).optional(),
  /** Steps between two moves; 512 by default. */
  refModelSyncSteps: z.int().positive().optional(),
  /** Stable Preference Optimization. */
  spo: spoSchema.prefault({}),
  /** Low-rank adapters: they are trained, the model is frozen. */
  lora: loraSchema.prefault({}),
  /** How a frozen model is stored beside an adapter; as `dtype` by default. */
  baseDtype: z.enum(["f32", "f16", "bf16"]).optional(),
  /** Highest learning rate. */
  learningRate: z.number().positive().default(5e-5),
  /** Its shape after warm-up. */
  learningRateSchedule: z.enum(LEARNING_RATE_SCHEDULES).default("cosine"),
  /** Steps of linear warm-up. */
  warmupSteps: z.int().min(0).default(0),
  weightDecay: z.number().min(0).default(DEFAULT_OPTIMIZER.weightDecay),
  adamBeta1: z.number().min(0).lt(1).default(DEFAULT_OPTIMIZER.beta1),
  adamBeta2: z.number().min(0).lt(1).default(DEFAULT_OPTIMIZER.beta2),
  adamEpsilon: z.number().positive().default(DEFAULT_OPTIMIZER.eps),
  /** Global gradient norm is clipped to this; 0 turns clipping off. */
  maxGradNorm: z.number().min(0).default(DEFAULT_OPTIMIZER.maxGradNorm),
  /** Pairs (or examples) per step and rank, over all micro-batches. */
  batchSize: z.int().positive().default(8),
  /** Micro-batches a step is split into: same result, less memory. */
  gradientAccumulationSteps: z.int().positive().default(1),
  /** Activations, their gradients and the weights that kernels read; f16 scales its loss. Sums and updates are f32. */
  dtype: z.enum(["f32", "f16"]).default("f32"),
  /** Layers are computed again in the backward instead of kept: same result, less memory, more time. */
  activationCheckpointing: z.boolean().default(false),
  /** Steps of the run. */
  maxSteps: z.int().positive().default(100),
  /** Tokens of prompt and completion; at most the model's positions. */
  maxLength: z.int().min(2).default(1024),
  /** What a text that is too long loses: the completion its end, or the prompt its start. */
  truncation: z.enum(["keep_start", "keep_end"]).default("keep_start"),
  /** sft on messages: learn every turn of the assistant's, and nothing else. */
  assistantOnlyLoss: z.boolean().default(false),
  /** Column of the data that holds a margin for each pair; by default `margin`, where it is there. */
  marginColumn: z.string().min(1).optional(),
  /** Most tokens of a micro-batch: steps that have more are split. */
  batchTokens: z.int().positive().optional(),
  /** A prompt that leaves no room for a completion: stop, or leave the record out and count it. */
  overlong: z.enum(["error", "drop"]).default("error"),
  /** Of the data order and of fresh weights. */
  seed: z.int().min(0).max(2 ** 31).default(0),
  /** Metrics are read back and written every so many steps. */
  logEvery: z.int().positive().default(10),
  /** Write metrics.csv too. */
  csv: z.boolean().default(false),
  /** Write TensorBoard's event files too. */
  tensorboard: z.boolean().default(false),
  /** What a step does whose gradient is not finite: end the run, or leave its update out. f16 leaves it out by itself. */
  onNonfinite: z.enum(["stop", "skip"]).default("stop"),
  /** Steps of a run that may be left out so, in all; 10 by default. */
  maxNonfinite: z.int().positive().optional(),
  /** Records evaluated before and after. */
  evalRecords: z.int().positive().default(128),
  /** Steps between two looks at them during training; none by default. */
  evalSteps: z.int().positive().optional(),
  /** Where the run is written. */
  output: z.string().min(1).optional(),
  /** Largest file of saved weights, in GB; a model that came in several files is saved in the same ones by default. */
  maxShardGb: z.number().positive().optional(),
  /** Steps between two checkpoints; by default the time alone tells when. */
  saveSteps: z.int().positive().optional(),
  /** Minutes between two checkpoints; 0: none by the time. */
  saveMinutes: z.number().min(0).default(30),
  /** Checkpoints that are kept, the last ones; the best is kept besides. */
  saveTotalLimit: z.int().positive().default(2),
  /** Go on with the run in that folder, from its newest whole checkpoint. */
  resume: z.boolean().default(false),
  /** Replace an earlier run in that folder. */
  overwrite: z.boolean().default(false),
  /** Upper bound of GPU memory in GiB; three quarters of the host's memory on a software adapter. */
  memoryBudgetGb: z.number().positive().optional(),
  /** Measure tilings of the matrix product once per adapter (kept on disk), or take the built-in ones. */
  tune: z.enum(["auto", "off"]).default("auto"),
  /** Serve a page on this machine that shows the run's figures while it goes on. */
  dashboard: z.boolean().default(false),
  /** Where it listens; 0 is any port that is free, as by default. */
  dashboardPort: z.int().min(0).max(65535).optional(),
  /** Plan the run's memory, say so, and stop. */
  dryRun: z.boolean().default(false),
  /** Describe the run's data, and stop. */
  inspect: z.boolean().default(false),
});

/** Effective settings. */
export type RunConfig = z.output<typeof runConfigSchema>;

/** Where a setting came from, for errors. */
export interface ConfigSource {
  /** What to call a key in a message: a flag, or a file and a key. */
  readonly describe: (path: readonly string[]) => string;
}

/**
 * Checks raw settings and fills in defaults.
 *
 * @param raw nested settings as the user gave them
 * @param source how to name a key in an error
 * @throws {ConfigError} naming the key, what was expected and what was found
 */
export function parseRunConfig(raw: Readonly<Record<string, unknown>>, source: ConfigSource): RunConfig {
  const result = runConfigSchema.safeParse(raw);
  if (!result.success) throw firstIssue(result.error, raw, { source });
  const config = result.data;
  refuseUnreadOptions(config, raw, { source });
  const losses = { loss: resolveLoss(config, source), unpaired: resolveUnpaired(config, source) };
  refuseConflicts(config, raw, { source, ...losses, isReferenceRead: readsReference(config, source) });
  refuseUnusableData(config, source);
  refuseUnreadSkips(config, source);
  return config;
}

/**
 * The pairwise loss of a run with its options filled in, or undefined for sft.
 *
 * @param config effective settings
 * @param source how to name a setting in an error
 * @throws {ConfigError} on an unknown name or an option that the loss does not read
 */
export function resolveLoss(
  config: RunConfig,
  source: ConfigSource = { describe: (path) => path.join(".") },
): ResolvedPairLoss | undefined {
  if (config.loss === "sft" || isUnpairedLoss(config.loss)) return undefined;
  return resolvePairLoss(config.loss, {
    weights: config.lossWeights,
    options: givenLossOptions(config),
    describe: (setting) => source.describe([setting]),
  });
}

/**
 * The loss on labelled answers of a run with its options filled in, or undefined where its loss is another.
 *
 * @param config effective settings
 * @param source how to name a setting in an error
 * @throws {ConfigError} on an option that the loss does not read
 */
export function resolveUnpaired(
  config: RunConfig,
  source: ConfigSource = { describe: (path) => path.join(".") },
): ResolvedUnpairedLoss | undefined {
  if (!isUnpairedLoss(config.loss)) return undefined;
  return resolveUnpairedLoss(config.loss, givenLossOptions(config), (setting) => source.describe([setting]));
}

/**
 * Whether what a run minimises reads the reference: the loss itself, or SPO's regularizer R.
 *
 * @param config effective settings
 * @param source how to name a setting in an error
 */
export function readsReference(config: RunConfig, source?: ConfigSource): boolean {
  const { spo } = config;
  const isRegularized = spo.solver !== "none" && spo.rho > 0;
  return isUnpairedLoss(config.loss) || isRegularized || resolveLoss(config, source)?.needsReference === true;
}

/** TRL's defaults. */
const DEFAULT_SYNC = { refModelMixupAlpha: 0.6, refModelSyncSteps: 512 };

/**
 * How a run's reference follows the policy, or undefined where it stays.
 *
 * @param config effective settings
 */
export function resolveSync(config: RunConfig): ReferenceSync | undefined {
  if (!config.syncRefModel) return undefined;
  const { refModelMixupAlpha: alpha, refModelSyncSteps: steps } = { ...DEFAULT_SYNC, ...given(config) };
  return { alpha, steps };
}

function given({ refModelMixupAlpha, refModelSyncSteps }: RunConfig): Partial<typeof DEFAULT_SYNC> {
  return {
    ...(refModelMixupAlpha === undefined ? {} : { refModelMixupAlpha }),
    ...(refModelSyncSteps === undefined ? {} : { refModelSyncSteps }),
  };
}

/**
 * Every setting that a run reads, with the defaults of its loss: the content of its config.json.
 *
 * @param config effective settings
 */
export function effectiveSettings(config: RunConfig): Record<string, unknown> {
  const { spo, promptSharing, ches, useWeighting, lora, precomputeReference, syncRefModel, ...rest } = config;
  const { dryRun: _, inspect: __, resume: ___, dashboard: ____, dashboardPort: _____, ...kept } = rest;
  const { assistantOnlyLoss, ...settings } = kept;
  const loss = resolveLoss(config);
  const isReferenceRead = readsReference(config);
  const { reference, ...readLora } = readLoraSettings(lora) ?? {};
  const ofLora = { ...readLora, ...(reference && isReferenceRead ? { reference } : {}) };
  return {
    ...settings,
    ...(config.loss === "sft" ? { assistantOnlyLoss } : {}),
    ...(Object.keys(ofLora).length > 0 ? { lora: ofLora } : {}),
    ...loss?.options,
    ...resolveUnpaired(config)?.options,
    ...(syncRefModel ? { syncRefModel, ...DEFAULT_SYNC, ...given(config) } : {}),
    ...(loss ? { promptSharing, ches, useWeighting, spo: readSpoOptions(spo) } : {}),
    ...(loss && isReferenceRead ? { precomputeReference } : {}),
  };
}

/** Lower levels have updates of their own, which nothing would leave out. */
function refuseUnreadSkips({ onNonfinite, maxNonfinite, dtype, spo }: RunConfig, source: ConfigSource): void {
  const refuse = (key: string, expected: string, found: string) =>
    new ConfigError(`Cannot use ${source.describe([key])}: expected ${expected}, found ${found}`);
  if (onNonfinite === "stop") {
    if (maxNonfinite !== undefined) throw refuse("maxNonfinite", "onNonfinite skip beside it", "stop");
    return;
  }
  if (dtype === "f16") throw refuse("onNonfinite", "dtype f32, as loss scaling skips by itself", "f16");
  if (spo.solver !== "none") {
    throw refuse("onNonfinite", "no SPO solver, as its inner steps are not skipped", spo.solver);
  }
}

function givenLossOptions(config: RunConfig): Record<string, unknown> {
  return Object.fromEntries(
    LOSS_OPTIONS.flatMap((name) => (config[name] === undefined ? [] : [[name, config[name]]])),
  );
}

/** An option that the chosen loss does not read would silently change nothing. */
function refuseUnreadOptions(
  config: RunConfig,
  raw: Readonly<Record<string, unknown>>,
  { source }: { source: ConfigSource },
): void {
  refuseUnpairedParts(config, source);
  const loss = resolveLoss(config, source);
  resolveUnpaired(config, source);
  if (config.useWeighting && loss && !loss.takesWeights) {
    throw new ConfigError(
      `Cannot use ${
        source.describe(["useWeighting"])
      }: expected a loss of single pairs, found ${config.loss}, which sorts the batch`,
    );
  }
  if (config.loss !== "sft" && !isUnpairedLoss(config.loss)) return;
  const pairwise = ["spo", "promptSharing", "ches", "useWeighting", "lossWeights", ...LOSS_OPTIONS].find((
    name,
  ) => raw[name] !== undefined && !(isUnpairedLoss(config.loss) && UNPAIRED_OPTIONS.includes(name)));
  if (pairwise) {
    throw new ConfigError(
      `Cannot use ${source.describe([pairwise])}: expected a pairwise loss, found ${config.loss}`,
    );
  }
}

function firstIssue(
  error: z.ZodError,
  raw: Readonly<Record<string, unknown>>,
  { source }: { source: ConfigSource },
): ConfigError {
  const issue = error.issues[0];
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys") {
    return new ConfigError(
      `Cannot use ${
        source.describe([...path, issue.keys[0]])
      }: expected a known setting, found none of that name`,
    );
  }
  const found = path.reduce<unknown>(
    (value, key) => (value as Record<string, unknown> | undefined)?.[key],
    raw,
  );
  return new ConfigError(
    `Cannot use ${source.describe(path)}: expected ${describeIssue(issue)}, found ${showFound(found)}`,
  );
}
