/**
 * What `deno task profile` may be given: a shape of random tokens, or a run's model and data.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { describeShape, type ShapeName, TRAINING_SHAPES } from "../bench/shapes.ts";
import { benchObjective, benchTrainOptions } from "../bench/training.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { profileFlagsSchema } from "../commands/profile.ts";
import { parseRunConfig, resolveLoss, resolveUnpaired, type RunConfig } from "../config.ts";
import { ConfigError } from "../errors.ts";
import { PAIR_LOSSES } from "../losses/registry.ts";
import { type ProfileReport, profileStep } from "../profile.ts";
import { referenceLogps } from "../reference.ts";
import { makeObjective, prepareRun, trainOptions } from "../run.ts";
import type { RunHooks } from "../session.ts";

/** The flags of `profile`, split into its own and a run's. */
export interface ProfileFlags {
  readonly shape: ShapeName;
  readonly steps?: number;
  readonly json: boolean;
  readonly markdown: boolean;
  readonly config: RunConfig;
}

/** Settings of a run that steps on random tokens read, too. */
const SHAPE_SETTINGS = [
  "loss",
  "beta",
  "labelSmoothing",
  "lengthNormalize",
  "gammaBetaRatio",
  "memoryBudgetGb",
];

/**
 * @param invocation of `profile`
 * @throws {ConfigError} on a setting out of range, or one that nothing would read
 */
export function parseProfile(invocation: Invocation): ProfileFlags {
  const { raw, source, given } = invocation;
  const own = Object.keys(profileFlagsSchema.shape);
  const pick = (isOwn: boolean) =>
    Object.fromEntries(Object.entries(raw).filter(([name]) => own.includes(name) === isOwn));
  const flags = parseFlags(profileFlagsSchema, { raw: pick(true), source });
  const config = parseRunConfig(pick(false), source);
  if (resolveUnpaired(config)) {
    throw new ConfigError(
      `Cannot profile ${config.loss}: expected sft or a pairwise loss, found one on labelled answers`,
    );
  }
  if (config.model !== undefined || config.data !== undefined) {
    if (!given.has("shape")) return { ...flags, config };
    throw new ConfigError("Cannot use --shape: expected neither --model nor --data with it, found one");
  }
  const unread = [...given].find((name) => !own.includes(name) && !SHAPE_SETTINGS.includes(name));
  if (unread === undefined) return { ...flags, config };
  throw new ConfigError(
    `Cannot use ${
      source.describe(unread.split("."))
    }: expected --model and --data with it, found a shape, which has ` +
      "its own",
  );
}

/**
 * Profiles a step on random tokens; a preference loss has cached reference log-probs.
 *
 * @param gpu the device
 * @param flags from {@link parseProfile}
 * @param log told what is measured next
 */
export async function profileShape(
  gpu: Gpu,
  { config, shape: name, steps }: ProfileFlags,
  log: (line: string) => void,
): Promise<ProfileReport> {
  const shape = TRAINING_SHAPES[name];
  const loss = resolveLoss(config);
  const kind = loss ? "dpo, cached reference" : "sft";
  using objective = await benchObjective(gpu, { kind, shape, loss: loss ?? PAIR_LOSSES.dpo.resolve({}) });
  return await profileStep(objective, {
    title: `${loss ? `${config.loss} step, cached reference` : "sft step"}: ${describeShape(shape)}`,
    train: benchTrainOptions({ shape, maxSteps: 1 }),
    sequenceLengths: () => Array(loss ? 2 : 1).fill(shape.tokens),
    steps,
    log,
  });
}

/**
 * Profiles steps of a run on its first records.
 *
 * @param gpu the device
 * @param flags from {@link parseProfile}
 * @param hooks where counts are told
 * @throws {InputError} naming file and line or key
 */
export async function profileRun(
  gpu: Gpu,
  { config, steps }: ProfileFlags,
  hooks: RunHooks,
): Promise<ProfileReport> {
  using prepared = await prepareRun(gpu, config, hooks);
  // No more than one batch may be there: then it is every step's.
  const pairs = prepared.pairs.slice(0, config.batchSize * 4);
  const { model } = prepared.loaded;
  const reference = config.loss === "sft" ? undefined : await referenceLogps(model, pairs);
  using objective = makeObjective({ ...prepared, pairs }, reference);
  return await profileStep(objective, {
    title: `${config.loss} step of ${config.model} on ${config.data}, ${config.batchSize} pairs`,
    train: trainOptions(config),
    sequenceLengths: (item) => {
      const { chosen, rejected } = prepared.completions
        ? { chosen: prepared.completions[item], rejected: undefined }
        : pairs[item];
      return (config.loss === "sft" ? [chosen] : [chosen, rejected!])
        .map(({ promptIds, completionIds }) => promptIds.length + completionIds.length);
    },
    steps,
    log: hooks.log,
  });
}
