/**
 * `eval`: flags and help.
 * @module
 */
import { z } from "zod";
import { runConfigSchema } from "../config.ts";
import { EVALUATION_TASKS } from "../evaluation/task_names.ts";
import { type Command, DATA, type Meanings, RUN, TUNE_MEANING } from "./command.ts";

const { dtype, memoryBudgetGb, tune, overlong, overwrite } = runConfigSchema.shape;

/** Flags of `eval`. */
export const evalFlagsSchema = z.strictObject({
  /** Folder of the model. */
  model: z.string().min(1).optional(),
  /** Folder of the model that an adapter belongs to. */
  base: z.string().min(1).optional(),
  /** What it is evaluated on. */
  data: z.string().min(1).optional(),
  /** What is measured. */
  task: z.enum(["auto", ...EVALUATION_TASKS]).default("auto"),
  /** The first so many records. */
  limit: z.int().positive().optional(),
  /** Tokens of a sequence. */
  maxLength: z.int().min(2).optional(),
  overlong,
  /** Folder of the model that rewards are measured against. */
  reference: z.string().min(1).optional(),
  /** Scales rewards. */
  beta: z.number().positive().default(0.1),
  /** Tokens between the beginnings of two windows. */
  stride: z.int().positive().optional(),
  /** Problems with worked answers for the prompts. */
  fewShot: z.string().min(1).optional(),
  /** How many of them. */
  shots: z.int().min(0).optional(),
  /** Longest answer. */
  maxNewTokens: z.int().positive().default(256),
  /** Of generated problems and of the choice of worked examples. */
  seed: z.int().min(0).max(2 ** 31).default(0),
  /** Where the JSON is written. */
  output: z.string().min(1).optional(),
  /** Where every example is written. */
  details: z.string().min(1).optional(),
  overwrite,
  /** Tokens of a forward pass. */
  batchTokens: z.int().positive().default(4096),
  dtype,
  memoryBudgetGb,
  tune,
});

/** Settings of an evaluation. */
export type EvalFlags = z.output<typeof evalFlagsSchema>;

const PREFERENCE = "Preferences";
const PERPLEXITY = "Perplexity";
const ANSWERS = "Tasks with right answers";

const EVAL_MEANINGS: Meanings<keyof EvalFlags> = {
  model: [
    DATA,
    "folder of the model in Hugging Face layout or of an adapter, or owner/name[@revision] on the hub",
  ],
  base: [DATA, "model of the adapter (default: the one that adapter_config.json names)"],
  data: [
    DATA,
    "preference records, texts (.txt, or records with text or a completion) or GSM8K's records; arithmetic needs none",
  ],
  task: [DATA, "what is measured; auto tells it from the data"],
  limit: [DATA, "the first so many records, lines of a .txt, or generated problems (arithmetic: 500)"],
  maxLength: [
    DATA,
    "tokens of a sequence (default: the model's positions, but at most 2048 except in tasks with right answers)",
  ],
  overlong: [PREFERENCE, "a prompt that leaves no room for a completion: stop, or drop the record"],
  reference: [
    PREFERENCE,
    "reference model, named likewise: adds reward accuracy, margin and changes against it",
  ],
  beta: [PREFERENCE, "scales the rewards"],
  stride: [
    PERPLEXITY,
    "tokens that each window but the first predicts; the rest is context (default: half of max-length)",
  ],
  fewShot: [ANSWERS, "GSM8K: file of problems whose worked answers stand before the question"],
  shots: [ANSWERS, "GSM8K: how many of them (default 8, or as many as fit)"],
  maxNewTokens: [ANSWERS, "GSM8K: tokens of the longest answer"],
  seed: [ANSWERS, "of the generated problems and of the choice of worked examples"],
  output: [RUN, "file for the same JSON object"],
  details: [RUN, ".jsonl file for a record of every example"],
  overwrite: [RUN, "replace files of those names"],
  batchTokens: [RUN, "tokens of a forward pass: bounds memory"],
  dtype: [RUN, "type of activations and of the weights that kernels read; sums are f32"],
  memoryBudgetGb: [RUN, "upper bound of GPU memory in GiB (default: by the adapter)"],
  tune: [RUN, TUNE_MEANING],
};

/** Evaluates a model. */
export const evalCommand: Command<typeof evalFlagsSchema> = {
  schema: evalFlagsSchema,
  takesConfig: true,
  json: "print one JSON object instead of a table",
  summary: "Measures a model: preference accuracy, perplexity, or answers to problems.",
  meanings: EVAL_MEANINGS,
  examples: [
    "deno task eval --model runs/mine/model --data held_out.jsonl --reference models/llama",
    "deno task eval --model models/llama --data book.txt --stride 512 --json",
    "deno task eval --model models/llama --data gsm8k/test.jsonl --few-shot gsm8k/train.jsonl --details answers.jsonl",
    "deno task eval --model runs/arithmetic/model --task arithmetic --limit 200",
  ],
  access: {
    paths: {
      ...{ model: "model", base: "base", reference: "model", data: "file", fewShot: "file" },
      ...{ output: "newFile", details: "newFile" },
    },
    usesGpu: () => true,
    caches: ["tuning"],
  },
  load: async () => (await import("./run_eval.ts")).runEval,
};
