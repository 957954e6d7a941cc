/**
 * `generate`: flags and help.
 * @module
 */
import { z } from "zod";
import { runConfigSchema } from "../config.ts";
import { type Command, DATA, type Meanings, RUN, SAMPLING, TUNE_MEANING } from "./command.ts";

/** Flags of every command that generates text. */
export const generationFlags = {
  /** Folder in Hugging Face layout, or of an adapter, or a name on the hub. */
  model: z.string().min(1),
  /** Model of the adapter. */
  base: z.string().min(1).optional(),
  /** Most tokens of a text. */
  maxNewTokens: z.int().positive().default(256),
  /** 0 takes the most probable token. */
  temperature: z.number().nonnegative().default(0),
  /** Only the k most probable tokens. */
  topK: z.int().positive().optional(),
  /** Only the most probable tokens that reach this probability together. */
  topP: z.number().gt(0).max(1).optional(),
  /** Above 1, tokens that came before are less likely. */
  repetitionPenalty: z.number().positive().default(1),
  /** Text that ends a text, or a JSON list of such. */
  stop: z.string().optional(),
  /** Of the draws. */
  seed: z.int().nonnegative().default(0),
  /** Of weights, activations, keys and values. */
  dtype: runConfigSchema.shape.dtype,
  /** Say on standard error how fast it was. */
  stats: z.boolean().default(false),
  memoryBudgetGb: runConfigSchema.shape.memoryBudgetGb,
  tune: runConfigSchema.shape.tune,
};

/** Flags of `generate`. */
export const generateFlagsSchema = z.strictObject({
  /** Text to continue. */
  prompt: z.string().optional(),
  /** The prompt is what a user says, in the model's chat template. */
  chat: z.boolean().default(false),
  /** A system message before it. */
  system: z.string().optional(),
  ...generationFlags,
});

/** One line for each of {@link generationFlags}. */
export const GENERATION_MEANINGS: Meanings<keyof typeof generationFlags> = {
  model: [
    DATA,
    "folder of a model in Hugging Face layout or of an adapter, or owner/name[@revision] on the hub",
  ],
  base: [DATA, "model of the adapter (default: the one that adapter_config.json names)"],
  maxNewTokens: [SAMPLING, "most tokens of a text; it ends before them at an end token or stop string"],
  temperature: [SAMPLING, "0 takes the most probable token each time; above, tokens are drawn"],
  topK: [SAMPLING, "draw from the k most probable tokens (default: all)"],
  topP: [SAMPLING, "draw from the most probable tokens that reach this probability together (default: all)"],
  repetitionPenalty: [SAMPLING, "above 1, tokens that came before, prompt included, are less likely"],
  stop: [SAMPLING, 'text that ends a text and is not part of it; several as JSON, ["a", "b"]'],
  seed: [SAMPLING, "of the draws: the same seed, the same text"],
  dtype: [RUN, "type of weights, activations, keys and values"],
  stats: [RUN, "say on standard error how fast it was, and what memory it took"],
  memoryBudgetGb: [RUN, "upper bound of GPU memory in GiB (default: by the adapter)"],
  tune: [RUN, TUNE_MEANING],
};

const { model, ...ofGeneration } = GENERATION_MEANINGS;

const GENERATE_MEANINGS: Meanings<keyof z.output<typeof generateFlagsSchema>> = {
  model,
  prompt: [DATA, "text to continue; standard input where it is - or left out"],
  chat: [DATA, "the prompt is what a user says: write it in the model's chat template"],
  system: [DATA, "with --chat, a system message before it"],
  ...ofGeneration,
};

/** Continues a text. */
export const generateCommand: Command<typeof generateFlagsSchema> = {
  schema: generateFlagsSchema,
  takesConfig: true,
  json: "print one line of JSON: prompt, text, ids, finish",
  summary: "Continues a text; standard output has the new text alone.",
  meanings: GENERATE_MEANINGS,
  examples: [
    'deno task generate --model models/llama --prompt "Once upon a time" --max-new-tokens 64',
    "deno task generate --model models/llama --chat --prompt - --temperature 0.7 --top-p 0.9 --seed 1",
    'deno task generate --model runs/mine/model --prompt "37+48-15:" --stop "$" --json',
  ],
  access: { paths: { model: "model", base: "base" }, usesGpu: () => true, caches: ["tuning"] },
  load: async () => (await import("./run_generate.ts")).runGenerate,
};
