/**
 * `profile`: flags and help.
 * @module
 */
import { z } from "zod";
import { SHAPE_NAMES } from "../bench/training_shapes.ts";
import { runConfigSchema } from "../config.ts";
import { type Command, type Meanings, RUN } from "./command.ts";
import { TRAIN_MEANINGS } from "./train.ts";

/** Flags of `profile` that are no settings of a run. */
export const profileFlagsSchema = z.strictObject({
  /** Sizes of the model and batch, where no model and data are given. */
  shape: z.enum(SHAPE_NAMES).default("bench"),
  /** Steps that are timed; by default what suits the adapter. */
  steps: z.int().positive().optional(),
  /** Print a Markdown table. */
  markdown: z.boolean().default(false),
});

/** Settings of a run that a profile of a few steps has no use for. */
const UNPROFILED = {
  evalData: true,
  evalRecords: true,
  evalSteps: true,
  maxSteps: true,
  logEvery: true,
  output: true,
  maxShardGb: true,
  overwrite: true,
  dashboard: true,
  dashboardPort: true,
  dryRun: true,
  dataWeights: true,
  inspect: true,
} as const;

const SCHEMA = runConfigSchema.omit(UNPROFILED).extend(profileFlagsSchema.shape);

/** A profile reads the settings of a run that shape its steps. */
const PROFILE_MEANINGS: Meanings = {
  ...Object.fromEntries(
    Object.entries(TRAIN_MEANINGS).filter(([name]) => name.split(".")[0] in SCHEMA.shape),
  ),
  shape: [RUN, "model and batch where no --model and --data are given; all but bench and tiny are for a GPU"],
  steps: [RUN, "steps that are timed (default: by the adapter)"],
  markdown: [RUN, "print a Markdown table"],
};

/** Times the kernels of a step. */
export const profileCommand: Command<typeof SCHEMA> = {
  schema: SCHEMA,
  takesConfig: true,
  sharesRunConfig: true,
  json: "print JSON instead of a table",
  summary: "Times every kernel of a training step on the GPU, beside what the adapter can do.",
  meanings: PROFILE_MEANINGS,
  examples: [
    "deno task profile",
    "deno task profile --loss sft --shape gpt2-124m --markdown",
    "deno task profile --model models/llama --data pairs.jsonl --batch-size 4 --steps 5",
  ],
  access: {
    paths: { model: "model", base: "base", data: "files", "spo.sftData": "files" },
    usesGpu: () => true,
    caches: ["tuning"],
    sys: ["cpus", "loadavg"],
  },
  settle: ({ raw }) => raw,
  load: async () => (await import("./run_profile.ts")).runProfile,
};
