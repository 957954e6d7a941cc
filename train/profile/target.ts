/**
 * What `deno task profile` may be given: a shape of random tokens, or a run's model and data.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import type { PlanningOptions } from "../../engine/planning_gpu.ts";
import { describeShape } from "../bench/shapes.ts";
import { type ShapeName, TRAINING_SHAPES, type TrainingShape } from "../bench/training_shapes.ts";
import { benchModel, benchTrainOptions, randomCompletions } from "../bench/training.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { profileFlagsSchema } from "../commands/profile.ts";
import { LOSS_OPTIONS, parseRunConfig, resolveLoss, resolveUnpaired, type RunConfig } from "../config.ts";
import type { EncodedCompletion } from "../data/encode.ts";
import { ConfigError } from "../errors.ts";
import { isUnpairedLoss } from "../losses/unpaired.ts";
import type { Objective } from "../objective.ts";
import { unpairedObjective } from "../objectives/kto.ts";
import { type MemoryPlan, planRun } from "../plan.ts";
import { planProfileStep, type ProfileOptions, type ProfileReport, profileStep } from "../profile.ts";
import { createRandom } from "../random.ts";
import { referenceLogps } from "../reference.ts";
import {
  liveReferenceOf,
  loadRun,
  makeObjective,
  type RunParts,
  startsAtReference,
  trainOptions,
} from "../run.ts";
import type { RunData } from "../run_data.ts";

/** The flags of `profile`, split into its own and a run's. */
export interface ProfileFlags {
  readonly shape: ShapeName;
  readonly steps?: number;
  readonly markdown: boolean;
  readonly config: RunConfig;
}

/** Settings of a run that steps on random tokens read, too: of the loss and what is around it. */
const SHAPE_SETTINGS: readonly string[] = [
  "loss",
  "lossWeights",
  ...LOSS_OPTIONS,
  "ches",
  "precomputeReference",
  "syncRefModel",
  "refModelMixupAlpha",
  "refModelSyncSteps",
  "memoryBudgetGb",
];

/** Options of SPO that need data. */
const DATA_SETTINGS = ["spo.sftData", "spo.sftBatchSize"];

function isOfShape(name: string): boolean {
  return SHAPE_SETTINGS.includes(name) || (name.startsWith("spo.") && !DATA_SETTINGS.includes(name));
}

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
  if (config.model !== undefined || config.data !== undefined) {
    if (!given.has("shape")) return { ...flags, config };
    throw new ConfigError("Cannot use --shape: expected neither --model nor --data with it, found one");
  }
  const unread = [...given].find((name) => !own.includes(name) && !isOfShape(name));
  if (unread === undefined) return { ...flags, config: ofShape(config, flags.shape) };
  throw new ConfigError(
    `Cannot use ${
      source.describe(unread.split("."))
    }: expected --model and --data with it, found a shape, which has ` +
      "its own",
  );
}

/** @throws {ConfigError} when the shape's batch is too small for the loss */
function ofShape(config: RunConfig, name: ShapeName): RunConfig {
  const { batch: batchSize } = TRAINING_SHAPES[name];
  if (!resolveUnpaired(config)?.needsKl || batchSize > 1) return { ...config, batchSize };
  throw new ConfigError(
    `Cannot use --shape ${name}: expected a batch of at least 2 with ${config.loss}, whose KL estimate pairs a prompt ` +
      `with another's answer, found ${batchSize}`,
  );
}

/**
 * Profiles a step on random tokens.
 *
 * @param gpu the device
 * @param flags from {@link parseProfile}
 * @param options.log told what is measured next
 * @param options.ceilings measured where absent
 */
export async function profileShape(
  gpu: Gpu,
  flags: ProfileFlags,
  options: Pick<ProfileOptions, "log" | "ceilings">,
): Promise<ProfileReport> {
  return await withShapeStep(
    gpu,
    flags,
    (objective, step) => profileStep(objective, { ...step, ...options }),
  );
}

/**
 * Plans the memory of {@link profileShape}.
 *
 * @param options whose limits, adapter and budget count
 * @param flags from {@link parseProfile}
 */
export async function planProfileShape(options: PlanningOptions, flags: ProfileFlags): Promise<MemoryPlan> {
  return await planRun(options, ({ gpu }) => withShapeStep(gpu, flags, planProfileStep));
}

/** What is done with a step that could be profiled. */
type UseOfStep<Result> = (objective: Objective, options: ProfileOptions) => Promise<Result>;

async function withShapeStep<Result>(
  gpu: Gpu,
  { config, shape: name, steps }: ProfileFlags,
  use: UseOfStep<Result>,
): Promise<Result> {
  const shape = TRAINING_SHAPES[name];
  using model = benchModel(gpu, { shape, trainable: true });
  using objective = await stepObjective({ config, loaded: { model }, ...randomData(shape, config) });
  return await use(objective, {
    title: `${stepName(config)}: ${describeShape(shape)}`,
    train: benchTrainOptions({ shape, maxSteps: 1 }),
    sequenceLengths: () => [shape.tokens],
    steps,
  });
}

/** One batch of records of the kind that the loss takes. */
function randomData(shape: TrainingShape, { loss }: RunConfig): Pick<
  RunParts,
  "pairs" | "evalPairs" | "examples"
> {
  const random = createRandom(2);
  const [rejected, chosen] = [0, 1].map(() => randomCompletions(shape, random));
  if (isUnpairedLoss(loss)) {
    const examples = chosen.map((answer, index) => ({ ...answer, desirable: index % 2 === 0 }));
    return { pairs: [], evalPairs: [], examples };
  }
  const pairs = chosen.map((answer, index) => ({
    ...{ chosen: answer, rejected: rejected[index], source: answer.source },
  }));
  return { pairs, evalPairs: [] };
}

/** The step in words: what is minimised, and what comes with it. */
function stepName({ loss, spo, ches, precomputeReference }: RunConfig): string {
  if (loss === "sft") return "sft step";
  const parts = [loss, ...(spo.solver === "none" ? [] : [`SPO ${spo.solver}`]), ...(ches ? ["CHES"] : [])];
  const isCached = precomputeReference && !isUnpairedLoss(loss);
  return `${parts.join(" + ")} step, ${isCached ? "cached reference" : "reference run in every step"}`;
}

/** A run's loss on its records; what it owns lives as long as it does. */
async function stepObjective(parts: RunParts): Promise<Objective> {
  using stack = new DisposableStack();
  const { config, loaded: { model }, pairs, examples } = parts;
  const isSft = config.loss === "sft";
  const live = examples || (!isSft && !config.precomputeReference)
    ? stack.use(liveReferenceOf(parts))
    : undefined;
  const objective: Objective = stack.use(
    examples
      ? unpairedObjective(model, {
        ...{ examples, reference: live!, loss: resolveUnpaired(config)! },
        startsAtReference: startsAtReference(parts),
      })
      : makeObjective(
        parts,
        isSft
          ? undefined
          : live ?? await referenceLogps(model, pairs, { ldAlpha: resolveLoss(config)?.ldAlpha }),
      ),
  );
  const owned = stack.move();
  return { ...objective, [Symbol.dispose]: () => owned.dispose() };
}

/**
 * Profiles steps of a run on its first records.
 *
 * @param gpu the device
 * @param data of the run
 * @param options.steps timed steps
 * @param options.log told what is measured next
 * @throws {InputError} naming file and line or key
 */
export async function profileRun(
  gpu: Gpu,
  data: RunData,
  options: Pick<ProfileOptions, "log" | "steps">,
): Promise<ProfileReport> {
  return await withRunStep(gpu, data, (objective, step) => profileStep(objective, { ...step, ...options }));
}

/**
 * Plans the memory of {@link profileRun}.
 *
 * @param options whose limits, adapter and budget count
 * @param data of the run
 * @param steps timed steps
 */
export async function planProfileRun(
  options: PlanningOptions,
  data: RunData,
  steps?: number,
): Promise<MemoryPlan> {
  return await planRun(
    options,
    ({ gpu }) => withRunStep(gpu, data, (objective, step) => planProfileStep(objective, { ...step, steps })),
  );
}

async function withRunStep<Result>(gpu: Gpu, data: RunData, use: UseOfStep<Result>): Promise<Result> {
  const { config } = data;
  using prepared = await loadRun(gpu, data);
  // No more than one batch may be there: then it is every step's.
  const most = config.batchSize * 4;
  const [pairs, examples] = [prepared.pairs.slice(0, most), prepared.examples?.slice(0, most)];
  using objective = await stepObjective({ ...prepared, pairs, ...(examples ? { examples } : {}) });
  const lengthOf = ({ promptIds, completionIds }: EncodedCompletion) =>
    promptIds.length + completionIds.length;
  return await use(objective, {
    title: `${stepName(config)} of ${config.model} on ${config.data}, ${config.batchSize} ` +
      (examples ? "answers" : "pairs"),
    train: trainOptions(config),
    sequenceLengths: (item) => {
      if (examples) return [lengthOf(examples[item])];
      if (prepared.completions) return [lengthOf(prepared.completions[item])];
      const { chosen, rejected } = pairs[item];
      return (config.loss === "sft" ? [chosen] : [chosen, rejected]).map(lengthOf);
    },
  });
}
