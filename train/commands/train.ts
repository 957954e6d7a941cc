/**
 * `train`: flags and help.
 * @module
 */
import type { Invocation } from "../command_line.ts";
import { parseRunConfig, type RunConfig, runConfigSchema } from "../config.ts";
import type { LoraSettings } from "../adapters/lora_settings.ts";
import { PAIR_LOSS_NAMES } from "../losses/weighted_sum.ts";
import type { SpoOptions } from "../losses/spo.ts";
import { chooseRunFolder } from "../run_folder.ts";
import type { SettingValues } from "./access.ts";
import {
  type Command,
  DATA,
  LORA,
  LOSS,
  type Meanings,
  OPTIMIZER,
  RUN,
  SPO,
  TUNE_MEANING,
} from "./command.ts";
import { resumedInvocation } from "./resumed_invocation.ts";

type RunSettingName =
  | Exclude<keyof RunConfig, "spo" | "lora">
  | `spo.${keyof SpoOptions}`
  | `lora.${keyof LoraSettings}`;

/** Every flag of `train`, in the order of the help; the type demands one line for each setting of the schema. */
export const TRAIN_MEANINGS: Meanings<RunSettingName> = {
  model: [
    DATA,
    "model to start from: a folder in Hugging Face layout or of an adapter, or owner/name[@revision] on the hub",
  ],
  base: [DATA, "model of the adapter (default: the one that adapter_config.json names)"],
  data: [
    DATA,
    "records: .json, .jsonl (both also .gz) or .parquet; several files with commas; every form is in docs/data.md",
  ],
  dataWeights: [DATA, "shares of several files in an epoch, with commas (default: every record once)"],
  evalData: [DATA, "held-out records of the same kind"],
  onNonfinite: [OPTIMIZER, "a step whose gradient is not finite ends the run, or is left out and counted"],
  maxNonfinite: [OPTIMIZER, "steps that may be left out so in all, with --on-nonfinite skip (default: 10)"],
  evalRecords: [DATA, "records evaluated before and after training"],
  evalSteps: [DATA, "steps between evaluations during training, logged as eval_* (default: none)"],
  maxLength: [DATA, "tokens of prompt and completion; at most the model's positions"],
  truncation: [DATA, "what a text that is too long loses: its completion's end, or its prompt's start"],
  marginColumn: [
    DATA,
    "column with a margin for each pair (ODPO); by default margin, which all records have or none",
  ],
  assistantOnlyLoss: [DATA, "sft on messages: learn every turn of the assistant's (default: the last alone)"],
  overlong: [DATA, "a prompt that leaves no room for a completion: stop, or drop the record"],
  loss: [
    LOSS,
    `what is minimised: sft; one of ${
      PAIR_LOSS_NAMES.join(", ")
    }; kto or apo_zero_unpaired on labelled answers; or several joined by commas`,
  ],
  lossWeights: [LOSS, "weights of several, joined by commas (default: 1 each)"],
  beta: [LOSS, "strength of the preference loss"],
  labelSmoothing: [LOSS, "probability that a preference is labelled the wrong way round"],
  lengthNormalize: [LOSS, "average log-ratios over tokens"],
  gammaBetaRatio: [LOSS, "target margin as a share of beta"],
  alpha: [
    LOSS,
    "of the reward's shape (alphapo), the lengths (rdpo), the margin (alphadpo), the batch (beta_dpo)",
  ],
  cpoAlpha: [LOSS, "weight of the likelihood of chosen answers"],
  dpopLambda: [LOSS, "weight of the penalty on a chosen answer that became less likely"],
  discopopTau: [LOSS, "temperature of the mix of logistic and exponential loss"],
  fDivergenceType: [LOSS, "divergence that the reward of a loss on log-ratios belongs to"],
  fAlphaDivergenceCoef: [LOSS, "coefficient of alpha_divergence (default 0.5)"],
  referenceFree: [LOSS, "take the reference's log-probs to be 0 in a loss on log-ratios"],
  ldAlpha: [
    LOSS,
    "LD-DPO: what tokens past the pair's shorter answer count, 0 to 1 (default: off, which is 1)",
  ],
  desirableWeight: [LOSS, "kto, apo_zero_unpaired: factor of good answers (default 1)"],
  undesirableWeight: [LOSS, "kto, apo_zero_unpaired: factor of bad answers (default 1)"],
  promptSharing: [LOSS, "compute a prompt that both sides of a pair share once"],
  ches: [LOSS, "report how alike the model sees chosen and rejected (CHES)"],
  useWeighting: [LOSS, "WPO: weight pairs by how likely the model itself would have written both answers"],
  precomputeReference: [LOSS, "compute the reference's log-probs once, or in every step"],
  syncRefModel: [LOSS, "TR-DPO: the reference follows the model; with --precompute-reference=false"],
  refModelMixupAlpha: [LOSS, "share of the model in each move of the reference (default 0.6)"],
  refModelSyncSteps: [LOSS, "steps between two moves of the reference (default 512)"],
  "spo.solver": [
    SPO,
    "none is the plain pairwise loss; unrolled and alternating step on the lower level first",
  ],
  "spo.penalty": [SPO, "shape of the penalty on chosen answers that became less likely"],
  "spo.lambda": [SPO, "strength of the penalty"],
  "spo.lambdaSchedule": [SPO, "how lambda changes over the steps"],
  "spo.lambdaEnd": [SPO, "where linear and geometric growth end (default: lambda)"],
  "spo.lambdaSteps": [SPO, "steps of that growth (default: all)"],
  "spo.dualRate": [SPO, "step size of the dual update (default 0.1)"],
  "spo.epsilon": [SPO, "slack of the constraint, in nats per token"],
  "spo.vStar": [SPO, "target of the chosen answers' mean negative log-likelihood per token"],
  "spo.vStarSteps": [SPO, "steps whose mean is the initial target"],
  "spo.rho": [SPO, "strength of the term that keeps chosen answers as likely as under the reference"],
  "spo.margin": [SPO, "nats by which it wants them more likely"],
  "spo.innerLearningRate": [SPO, "step of the lower level (solver unrolled, alternating; vStar track)"],
  "spo.hypergradient": [SPO, "unrolled: first-order, or hvp through the inner step by two more passes"],
  "spo.hvpEpsilon": [SPO, "hvp: length of the move to each side"],
  "spo.trackSteps": [SPO, "track: steps of the search for v*"],
  "spo.trackEvery": [SPO, "track: steps between two searches"],
  "spo.lowerLevelMean": [SPO, "lower level: mean over answers by length, or over tokens"],
  "spo.sftData": [SPO, "records of the lower level (default: the chosen answers of the batch)"],
  "spo.sftBatchSize": [SPO, "those records per step (default: as many as pairs)"],
  "lora.rank": [LORA, "train a fresh adapter of this rank; the model stays as it is"],
  "lora.alpha": [LORA, "scales it by alpha / rank (default: twice the rank)"],
  "lora.targetModules": [
    LORA,
    "layers: all-linear, names such as q_proj,v_proj, or a regular expression of whole names",
  ],
  "lora.rslora": [LORA, "scale by alpha / sqrt(rank) instead"],
  "lora.reference": [LORA, "of a run that trains an adapter on: the model as it starts, or its base"],
  baseDtype: [LORA, "how the frozen model is stored (default: --dtype)"],
  learningRate: [OPTIMIZER, "highest learning rate"],
  learningRateSchedule: [OPTIMIZER, "its shape after warm-up"],
  warmupSteps: [OPTIMIZER, "steps of linear warm-up"],
  batchSize: [OPTIMIZER, "pairs per step, over all micro-batches"],
  batchTokens: [OPTIMIZER, "most tokens of a micro-batch: a step that has more is split (default: no limit)"],
  gradientAccumulationSteps: [OPTIMIZER, "micro-batches a step is split into"],
  activationCheckpointing: [
    OPTIMIZER,
    "compute layers again in the backward instead of keeping them: less memory",
  ],
  weightDecay: [OPTIMIZER, "decoupled weight decay of AdamW"],
  adamBeta1: [OPTIMIZER, "decay of the gradients' mean"],
  adamBeta2: [OPTIMIZER, "decay of the squared gradients' mean"],
  adamEpsilon: [OPTIMIZER, "added to the denominator"],
  maxGradNorm: [OPTIMIZER, "global gradient norm is clipped to this; 0 turns clipping off"],
  dtype: [RUN, "type of activations, gradients and the weights that kernels read; sums and updates are f32"],
  maxSteps: [RUN, "steps of the run"],
  seed: [RUN, "of the data order and of fresh weights"],
  logEvery: [RUN, "steps between two lines of metrics.jsonl"],
  csv: [RUN, "also write metrics.csv: the same numbers as a table"],
  tensorboard: [RUN, "also write tensorboard/: the same numbers as TensorBoard's event files"],
  memoryBudgetGb: [RUN, "upper bound of GPU memory in GiB (default: by the adapter)"],
  tune: [RUN, TUNE_MEANING],
  dashboard: [RUN, "show the run's figures while it goes on, on a page of this machine; prints its address"],
  dashboardPort: [RUN, "port of that page (default: 0, any that is free)"],
  dryRun: [RUN, "print the memory that the run would take, and stop: nothing is trained or written"],
  inspect: [RUN, "describe the data as the run would read it, and stop; needs no adapter"],
  output: [RUN, "folder of the run (default: the next free runs/<name>)"],
  maxShardGb: [
    RUN,
    "largest file of saved weights, in GB of 1e9 bytes (default: 5, or the files it came in)",
  ],
  saveSteps: [RUN, "steps between two checkpoints (default: by the time alone)"],
  saveMinutes: [RUN, "minutes between two checkpoints; 0: none by the time"],
  saveTotalLimit: [RUN, "how many of the last checkpoints are kept, besides the best"],
  resume: [RUN, "go on with the run in --output from its newest whole checkpoint"],
  overwrite: [RUN, "replace an earlier run in that folder"],
};

/** With the folder that it writes: the user's, or the next free one. */
async function settleTrain(given: Invocation): Promise<SettingValues> {
  const { raw, source } = given.raw.resume === true ? resumedInvocation(given) : given;
  const config = parseRunConfig(raw, source);
  return { ...config, output: await chooseRunFolder(config) };
}

/** Trains a model. */
export const trainCommand: Command<typeof runConfigSchema> = {
  schema: runConfigSchema,
  takesConfig: true,
  sharesRunConfig: true,
  json: "print one JSON object: folder, adapter, results; of --dry-run the plan, of --inspect the report",
  summary: "Trains a model on preferences; without flags, runs the built-in demonstration.",
  meanings: TRAIN_MEANINGS,
  examples: [
    "deno task train",
    "deno task train --model models/llama --data pairs.jsonl --beta 0.1 --output runs/first",
    "deno task train --model models/llama --data pairs.jsonl --loss dpo,bco_pair,sft --loss-weights 0.8,0.2,1",
    "deno task train --model models/llama --data pairs.jsonl --spo.solver penalty --spo.lambda 0.5",
    "deno task train --model models/llama --data pairs.jsonl --lora.rank 8 --base-dtype bf16",
    "deno task train --model models/llama --data pairs.jsonl --activation-checkpointing --dry-run",
    "deno task train --model models/llama --data ours.jsonl,public.parquet --data-weights 3,1 --inspect",
    "deno task train --model models/llama --data pairs.jsonl --dashboard",
    "deno task train --config run.json --learning-rate 5e-6 --output runs/second --overwrite",
  ],
  access: {
    paths: {
      ...{ model: "model", base: "base", data: "files", evalData: "files", "spo.sftData": "files" },
      output: "newFolder",
    },
    usesGpu: ({ inspect }) => inspect !== true,
    isReadOnly: ({ inspect, dryRun }) => inspect === true || dryRun === true,
    listensAt: ({ dashboard, dashboardPort }) =>
      dashboard === true ? `127.0.0.1${dashboardPort ? `:${dashboardPort}` : ""}` : undefined,
    caches: ["tuning", "reference-logps"],
  },
  settle: settleTrain,
  load: async () => (await import("./run_train.ts")).runTrain,
};
