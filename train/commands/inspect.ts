/**
 * `inspect`: flags and help.
 * @module
 */
import { z } from "zod";
import { runConfigSchema } from "../config.ts";
import { type Command, DATA, type Meanings } from "./command.ts";
import { TRAIN_MEANINGS } from "./train.ts";

const { model, data, dataWeights, maxLength, truncation, marginColumn, assistantOnlyLoss } =
  runConfigSchema.shape;

/** What files may be read as. */
export const INSPECT_KINDS = ["auto", "pairs", "labelled", "completions"] as const;

/** Flags of `inspect`. */
export const inspectFlagsSchema = z.strictObject({
  /** Whose tokenizer counts. */
  model,
  /** What is described. */
  data,
  dataWeights,
  /** What the files are read as. */
  as: z.enum(INSPECT_KINDS).default("auto"),
  maxLength,
  truncation,
  marginColumn,
  assistantOnlyLoss,
});

const INSPECT_MEANINGS: Meanings<keyof z.output<typeof inspectFlagsSchema>> = {
  model: [
    DATA,
    "model whose tokenizer and chat template are used: a folder, which needs no weights, or a name on the hub",
  ],
  data: TRAIN_MEANINGS.data,
  dataWeights: TRAIN_MEANINGS.dataWeights,
  as: [DATA, "what the files are read as: auto tells it from the first record"],
  maxLength: TRAIN_MEANINGS.maxLength,
  truncation: TRAIN_MEANINGS.truncation,
  marginColumn: TRAIN_MEANINGS.marginColumn,
  assistantOnlyLoss: [DATA, "of completions: every turn of the assistant's"],
};

/** Describes data. */
export const inspectCommand: Command<typeof inspectFlagsSchema> = {
  schema: inspectFlagsSchema,
  takesConfig: true,
  sharesRunConfig: true,
  json: "print one JSON object instead of tables",
  summary:
    "Describes data before it is trained on: counts, lengths, duplicates, contradictions. Needs no GPU.",
  meanings: INSPECT_MEANINGS,
  examples: [
    "deno task inspect --model models/llama --data pairs.jsonl",
    "deno task inspect --model models/llama --data ours.jsonl,public.parquet --data-weights 3,1 --max-length 512",
    "deno task inspect --model models/llama --data pairs.jsonl --as labelled --json",
  ],
  access: { paths: { model: "model", data: "files" }, usesGpu: () => false, caches: [] },
  load: async () => (await import("./run_inspect.ts")).runInspect,
};
