/**
 * The text that --help prints.
 * @module
 */
import type { z } from "zod";
import { type CommandName, COMMANDS } from "./command_line.ts";
import type { RunConfig } from "./config.ts";
import { PAIR_LOSSES } from "./losses/registry.ts";
import type { SpoOptions } from "./losses/spo.ts";
import { listSettings, type Setting } from "./settings.ts";

type RunSettingName = Exclude<keyof RunConfig, "spo"> | `spo.${keyof SpoOptions}`;
/** Section and meaning. A default that the schema cannot know stands here, in words. */
type Meanings<Name extends string> = Readonly<Record<Name, readonly [section: string, meaning: string]>>;

const DATA = "Model and data";
const LOSS = "Loss";
const SPO = "Stable Preference Optimization, around any pairwise loss";
const OPTIMIZER = "Optimizer";
const RUN = "Run";

const TUNE_MEANING =
  "measure tilings of the matrix product once per GPU and keep the choice, or take the built-in ones";

/** Every flag of `train`, in the order of the help; the type demands one line for each setting of the schema. */
const TRAIN_MEANINGS: Meanings<RunSettingName> = {
  model: [DATA, "model to start from: a folder in Hugging Face layout, or owner/name[@revision] on the hub"],
  data: [DATA, "preference records, .json or .jsonl"],
  evalData: [DATA, "held-out records of the same kind"],
  evalRecords: [DATA, "records evaluated before and after training"],
  maxLength: [DATA, "tokens of prompt and completion; at most the model's positions"],
  overlong: [DATA, "a prompt that leaves no room for a completion: stop, or drop the record"],
  loss: [LOSS, "what is minimised"],
  beta: [LOSS, "strength of the preference loss"],
  labelSmoothing: [LOSS, "probability that a preference is labelled the wrong way round"],
  lengthNormalize: [LOSS, "average log-ratios over tokens"],
  gammaBetaRatio: [LOSS, "target margin as a share of beta"],
  promptSharing: [LOSS, "compute a prompt that both sides of a pair share once"],
  "spo.solver": [SPO, "none is the plain pairwise loss"],
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
  learningRate: [OPTIMIZER, "highest learning rate"],
  learningRateSchedule: [OPTIMIZER, "its shape after warm-up"],
  warmupSteps: [OPTIMIZER, "steps of linear warm-up"],
  batchSize: [OPTIMIZER, "pairs per step, over all micro-batches"],
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
  memoryBudgetGb: [RUN, "upper bound of GPU memory in GiB (default: by the adapter)"],
  tune: [RUN, TUNE_MEANING],
  dryRun: [RUN, "print the memory that the run would take, and stop: nothing is trained or written"],
  output: [RUN, "folder of the run (default: the next free runs/<name>)"],
  overwrite: [RUN, "replace an earlier run in that folder"],
};

const BENCH_MEANINGS: Meanings<keyof z.output<typeof COMMANDS.bench.schema>> = {
  json: [RUN, "print JSON instead of a table"],
  markdown: [RUN, "print Markdown tables"],
  tiles: [RUN, "compare the tilings of the matrix product, too"],
  tune: [RUN, TUNE_MEANING],
  memory: [RUN, "plan how the memory of a step grows, and nothing else; needs no adapter"],
  shape: [RUN, "model and batch of the training steps; all but bench and tiny are for a GPU"],
  maxSize: [RUN, "largest extent of the matrix products (default: by the adapter)"],
  samples: [RUN, "repetitions of each measurement"],
  growth: [RUN, "measure how a step's cost grows with each extent, and nothing else"],
  probe: [RUN, "print what the adapter grants, and measure nothing"],
};

/** A profile reads the settings of a run that shape its steps. */
const PROFILE_MEANINGS: Meanings<string> = {
  ...Object.fromEntries(
    Object.entries(TRAIN_MEANINGS).filter(([name]) =>
      listSettings(COMMANDS.profile.schema).some((setting) => setting.name === name)
    ),
  ),
  shape: [RUN, "model and batch where no --model and --data are given; all but bench and tiny are for a GPU"],
  steps: [RUN, "steps that are timed (default: by the adapter)"],
  json: [RUN, "print JSON instead of a table"],
  markdown: [RUN, "print a Markdown table"],
};

/** What a command does, its flags' meanings, and command lines that work. */
const COMMAND_HELP: Readonly<
  Record<CommandName, { summary: string; meanings: Meanings<string>; examples: readonly string[] }>
> = {
  train: {
    summary: "Trains a model on preferences; without flags, runs the built-in demonstration.",
    meanings: TRAIN_MEANINGS,
    examples: [
      "deno task train",
      "deno task train --model models/llama --data pairs.jsonl --beta 0.1 --output runs/first",
      "deno task train --model models/llama --data pairs.jsonl --spo.solver penalty --spo.lambda 0.5",
      "deno task train --model models/llama --data pairs.jsonl --activation-checkpointing --dry-run",
      "deno task train --config run.json --learning-rate 5e-6 --output runs/second --overwrite",
    ],
  },
  bench: {
    summary: "Measures kernels and training steps on this machine's adapter.",
    meanings: BENCH_MEANINGS,
    examples: [
      "deno task bench",
      "deno task bench --growth --markdown",
      "deno task bench --shape gpt2-124m --json",
      "deno task bench --probe",
    ],
  },
  profile: {
    summary: "Times every kernel of a training step on the GPU, beside what the adapter can do.",
    meanings: PROFILE_MEANINGS,
    examples: [
      "deno task profile",
      "deno task profile --loss sft --shape gpt2-124m --markdown",
      "deno task profile --model models/llama --data pairs.jsonl --batch-size 4 --steps 5",
    ],
  },
};

/**
 * The help of a command: every flag by section with its meaning, values and default, and examples.
 *
 * @param command all commands in short where it is left out
 * @returns lines, the last one ended
 * @example
 * ```ts
 * if (!helpText("train").includes("--learning-rate <number>")) throw new Error("every flag is there");
 * ```
 */
export function helpText(command?: CommandName): string {
  if (command === undefined) return overview();
  const { summary, meanings, examples } = COMMAND_HELP[command];
  const sections = new Map<string, [string, string][]>();
  const settings = new Map(listSettings(COMMANDS[command].schema).map((setting) => [setting.name, setting]));
  for (const [name, [section, meaning]] of Object.entries(meanings)) {
    const lines = sections.get(section) ?? [];
    sections.set(section, [...lines, settingLine(settings.get(name)!, meaning)]);
  }
  sections.get(RUN)?.push(...commonLines(command));
  return [
    `Usage: deno task ${command} [flags]`,
    "",
    summary,
    ...[...sections].flatMap((
      [title, lines],
    ) => ["", `${title}:`, ...aligned(lines, [...sections.values()])]),
    "",
    "Examples:",
    ...examples.map((line) => `  ${line}`),
    "",
  ].join("\n");
}

function overview(): string {
  const names = Object.keys(COMMAND_HELP) as CommandName[];
  const lines = names.map((name): [string, string] => [name, COMMAND_HELP[name].summary]);
  return [
    "Usage: deno task <command> [flags]",
    "",
    "Commands:",
    ...aligned(lines, [lines]),
    "",
    `The flags of a command: deno task ${names[0]} --help`,
    "",
  ].join("\n");
}

/** Columns of the help; longer meanings continue below their start. */
const MAX_COLUMNS = 110;

function aligned(
  lines: readonly [string, string][],
  all: readonly (readonly [string, string][])[],
): string[] {
  const width = Math.max(...all.flat().map(([left]) => left.length));
  return lines.flatMap(([left, right]) =>
    wrapped(right, MAX_COLUMNS - width - 4).map((part, index) =>
      `  ${(index === 0 ? left : "").padEnd(width)}  ${part}`
    )
  );
}

function wrapped(text: string, width: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trimStart();
    if (longer.length <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

function commonLines(command: CommandName): [string, string][] {
  const config: [string, string] = [
    "--config <path>",
    "JSON file of settings, named as in a run's config.json; flags override it",
  ];
  return [...(COMMANDS[command].takesConfig ? [config] : []), ["--help", "print this text"]];
}

function settingLine(setting: Setting, meaning: string): [string, string] {
  const value = setting.kind === "boolean" ? "" : ` <${placeholder(setting)}>`;
  const notes = [
    setting.kind === "choice" ? setting.choices.join(", ") : "",
    defaultNote(setting),
  ].filter((note) => note !== "");
  return [`${setting.flag}${value}`, notes.length ? `${meaning} (${notes.join("; ")})` : meaning];
}

function placeholder({ kind, choices }: Setting): string {
  if (kind === "text") return "path";
  if (kind === "choice") return "name";
  return kind === "either" ? [...choices, "number"].join("|") : kind;
}

function defaultNote(setting: Setting): string {
  if (setting.default !== undefined && setting.default !== false) return `default ${setting.default}`;
  const byLoss = Object.values(PAIR_LOSSES).flatMap((loss) => {
    const value = loss.resolve({}).options[setting.name];
    return value === undefined ? [] : [`${loss.name} ${value}`];
  });
  return byLoss.length ? `default: ${byLoss.join(", ")}` : "";
}
