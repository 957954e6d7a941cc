/**
 * `bench`: flags and help.
 * @module
 */
import { z } from "zod";
import { SHAPE_NAMES } from "../bench/training_shapes.ts";
import { runConfigSchema } from "../config.ts";
import { type Command, type Meanings, RUN, TUNE_MEANING } from "./command.ts";

/** Flags of `bench`. */
export const benchFlagsSchema = z.strictObject({
  /** Print Markdown tables. */
  markdown: z.boolean().default(false),
  /** Compare the tilings of the product, too. */
  tiles: z.boolean().default(false),
  /** As for training. */
  tune: runConfigSchema.shape.tune,
  /** As for training. */
  memoryBudgetGb: runConfigSchema.shape.memoryBudgetGb,
  /** Plan how a step's memory grows, and nothing else. */
  memory: z.boolean().default(false),
  /** Sizes of the model and batch of the training steps. */
  shape: z.enum(SHAPE_NAMES).default("bench"),
  /** Largest extent of the products; by default what suits the adapter. */
  maxSize: z.int().positive().optional(),
  /** Repetitions of each measurement. */
  samples: z.int().positive().default(7),
  /** Measure how a step's cost grows, and nothing else. */
  growth: z.boolean().default(false),
  /** Measure generation, and nothing else. */
  decode: z.boolean().default(false),
  /** Whose generation is measured; by default a model of the shape. */
  model: z.string().optional(),
  /** Print what the adapter grants, and measure nothing. */
  probe: z.boolean().default(false),
});

const BENCH_MEANINGS: Meanings<keyof z.output<typeof benchFlagsSchema>> = {
  markdown: [RUN, "print Markdown tables"],
  tiles: [RUN, "compare the tilings of the matrix product, too"],
  tune: [RUN, TUNE_MEANING],
  memoryBudgetGb: [RUN, "upper bound of GPU memory in GiB (default: by the adapter)"],
  memory: [RUN, "plan how the memory of a step grows, and nothing else; needs no adapter"],
  shape: [RUN, "model and batch of the training steps; all but bench and tiny are for a GPU"],
  maxSize: [RUN, "largest extent of the matrix products (default: by the adapter)"],
  samples: [RUN, "repetitions of each measurement"],
  growth: [RUN, "measure how a step's cost grows with each extent, and nothing else"],
  decode: [RUN, "measure generation with and without the key/value cache, and nothing else"],
  model: [RUN, "with --decode, a model folder (default: a model of the shape)"],
  probe: [RUN, "print what the adapter grants, and measure nothing"],
};

/** Measures kernels and steps. */
export const benchCommand: Command<typeof benchFlagsSchema> = {
  schema: benchFlagsSchema,
  takesConfig: true,
  json: "print JSON instead of a table",
  summary: "Measures kernels and training steps on this machine's adapter.",
  meanings: BENCH_MEANINGS,
  examples: [
    "deno task bench",
    "deno task bench --growth --markdown",
    "deno task bench --shape gpt2-124m --json",
    "deno task bench --decode --markdown",
    "deno task bench --probe",
  ],
  access: {
    paths: { model: "model" },
    usesGpu: ({ memory }) => memory !== true,
    caches: ["tuning"],
    sys: ["cpus", "loadavg"],
  },
  load: async () => (await import("./run_bench.ts")).runBenchCommand,
};
