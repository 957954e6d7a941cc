/**
 * Every number of the built-in demonstration, and which flags may change them.
 * @module
 */
import { LOSS_OPTIONS, type RunConfig } from "./config.ts";
import { ConfigError } from "./errors.ts";
import type { SpoOptions } from "./losses/spo.ts";
import type { TrainOptions } from "./trainer.ts";

/** AdamW and schedule of one phase. */
export interface PhaseSettings {
  readonly steps: number;
  readonly batchSize: number;
  readonly learningRate: number;
  readonly learningRateSchedule: "cosine" | "linear" | "constant";
  readonly warmupSteps: number;
  readonly adamBeta1: number;
  readonly adamBeta2: number;
  readonly adamEpsilon: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
}

/**
 * A phase as the trainer takes it.
 *
 * @param phase its settings
 */
export function phaseOptions(
  phase: PhaseSettings,
): Pick<TrainOptions, "optimizer" | "schedule" | "batchSize"> {
  return {
    optimizer: {
      beta1: phase.adamBeta1,
      beta2: phase.adamBeta2,
      eps: phase.adamEpsilon,
      weightDecay: phase.weightDecay,
      maxGradNorm: phase.maxGradNorm,
    },
    schedule: {
      kind: phase.learningRateSchedule,
      learningRate: phase.learningRate,
      warmupSteps: phase.warmupSteps,
      maxSteps: phase.steps,
    },
    batchSize: phase.batchSize,
  };
}

/** The whole demonstration; its config.json holds exactly this. */
export interface DemoSettings {
  /** Keys of Hugging Face's config.json; one row of the embedding for each of the tokenizer's 16 ids. */
  readonly model: Readonly<Record<string, unknown>>;
  readonly sft: PhaseSettings & { readonly examples: number };
  readonly preference: PhaseSettings & { readonly pairs: number };
  readonly loss: string;
  readonly lossOptions: Readonly<Record<string, unknown>>;
  readonly spo: SpoOptions;
  /** Held-out problems that are decoded, and whose pairs are scored. */
  readonly heldOut: number;
  /** Problems over which the out-of-distribution mass is measured: each has 37 answers to score. */
  readonly massProblems: number;
  readonly seed: number;
  readonly logEvery: number;
}

/**
 * Two layers of width 64: the smallest model that learns the task within minutes on a CPU adapter. RoPE's base is 16
 * because a text has 15 tokens: the usual 10,000 would leave most frequencies without use.
 */
export const DEMO_MODEL = {
  model_type: "llama",
  vocab_size: 16,
  hidden_size: 64,
  intermediate_size: 172,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  max_position_embeddings: 16,
  rope_theta: 16,
  rms_norm_eps: 1e-5,
  initializer_range: 0.1,
  tie_word_embeddings: false,
  bos_token_id: null,
  eos_token_id: 14,
  pad_token_id: 15,
} as const;

const ADAMW = { adamBeta1: 0.9, adamBeta2: 0.98, adamEpsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 } as const;

/** Supervised fine-tuning from random weights. */
export const DEMO_SFT = {
  steps: 1_400,
  batchSize: 64,
  learningRate: 3e-3,
  learningRateSchedule: "cosine",
  warmupSteps: 20,
  examples: 89_600,
  ...ADAMW,
} as const;

/** Preference training from the fine-tuned weights, the same for each method. */
export const DEMO_PREFERENCE = {
  steps: 150,
  batchSize: 32,
  learningRate: 3e-4,
  learningRateSchedule: "constant",
  warmupSteps: 0,
  pairs: 2_000,
  ...ADAMW,
} as const;

/** Flags that mean something to the demonstration; they change its preference phases. */
const USED = new Set<string>([
  "loss",
  "lossWeights",
  ...LOSS_OPTIONS,
  "learningRate",
  "learningRateSchedule",
  "warmupSteps",
  "batchSize",
  "maxSteps",
  "seed",
  "logEvery",
  "csv",
  "tensorboard",
  "output",
  "overwrite",
  "memoryBudgetGb",
  "tune",
  "dashboard",
  "dashboardPort",
  "dryRun",
]);

/**
 * The demonstration under the flags given.
 *
 * @param config the run's settings
 * @param given which of them the user set, dotted
 * @param options.loss the resolved loss's name and options
 * @throws {ConfigError} on a flag that the demonstration would not read
 */
export function demoSettings(
  config: RunConfig,
  given: ReadonlySet<string>,
  { lossOptions }: { lossOptions: Readonly<Record<string, unknown>> },
): DemoSettings {
  const unread = [...given].find((name) =>
    !USED.has(name) && (!name.startsWith("spo.") || name.startsWith("spo.sft"))
  );
  if (unread) {
    throw new ConfigError(
      `Cannot use ${unread}: expected --model and --data with it, found neither; the demonstration does not read it`,
    );
  }
  if (config.loss === "sft") {
    throw new ConfigError("Cannot use loss: expected a pairwise loss in the demonstration, found sft");
  }
  if (given.has("spo.solver") && config.spo.solver === "none") {
    throw new ConfigError(
      "Cannot use spo.solver: expected a solver in the demonstration, which runs the loss with and without it, found none",
    );
  }
  const set = <Value>(
    name: string,
    value: Value,
    fallback: Value,
  ): Value => (given.has(name) ? value : fallback);
  return {
    model: DEMO_MODEL,
    sft: DEMO_SFT,
    preference: {
      ...DEMO_PREFERENCE,
      steps: set("maxSteps", config.maxSteps, DEMO_PREFERENCE.steps),
      batchSize: set("batchSize", config.batchSize, DEMO_PREFERENCE.batchSize),
      learningRate: set("learningRate", config.learningRate, DEMO_PREFERENCE.learningRate),
      learningRateSchedule: set("learningRateSchedule", config.learningRateSchedule, "constant"),
      warmupSteps: set("warmupSteps", config.warmupSteps, DEMO_PREFERENCE.warmupSteps),
    },
    loss: config.loss,
    lossOptions,
    spo: { ...config.spo, solver: config.spo.solver === "none" ? "penalty" : config.spo.solver },
    heldOut: 500,
    massProblems: 100,
    seed: config.seed,
    logEvery: config.logEvery,
  };
}
