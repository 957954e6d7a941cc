/**
 * `merge`: flags and help.
 * @module
 */
import { z } from "zod";
import { type Command, DATA, type Meanings, RUN } from "./command.ts";

/** Flags of `merge`. */
export const mergeFlagsSchema = z.strictObject({
  /** Folder of the adapter, such as a run's model/. */
  model: z.string().min(1).optional(),
  /** Folder of the model that it belongs to. */
  base: z.string().min(1).optional(),
  /** Where the merged model goes. */
  output: z.string().min(1).optional(),
  /** Element type of its weights. */
  dtype: z.enum(["f32", "f16", "bf16"]).optional(),
  /** Largest file of weights, in GB. */
  maxShardGb: z.number().positive().optional(),
  /** Replace a model that is there. */
  overwrite: z.boolean().default(false),
});

const MERGE_MEANINGS: Meanings<keyof z.output<typeof mergeFlagsSchema>> = {
  model: [DATA, "folder of the adapter, such as runs/dpo/model, or its name on the hub"],
  base: [DATA, "its model (default: the one that adapter_config.json names)"],
  output: [RUN, "folder of the merged model"],
  dtype: [RUN, "type of its weights (default: as the base has them)"],
  maxShardGb: [RUN, "largest file of weights, in GB of 1e9 bytes (default 5)"],
  overwrite: [RUN, "replace a model that is there"],
};

/** Merges an adapter into its base. */
export const mergeCommand: Command<typeof mergeFlagsSchema> = {
  schema: mergeFlagsSchema,
  takesConfig: true,
  json: "print one JSON object: output, base, adapter, modules, dtype",
  summary: "Merges a LoRA adapter into its base: a whole model, in Hugging Face layout. Needs no GPU.",
  meanings: MERGE_MEANINGS,
  examples: [
    "deno task merge --model runs/dpo/model --output models/merged",
    "deno task merge --model adapters/mine --base models/llama --output models/merged --dtype bf16",
  ],
  access: {
    paths: { model: "model", base: "base", output: "replacedFolder" },
    usesGpu: () => false,
    caches: [],
  },
  load: async () => (await import("./run_merge.ts")).runMerge,
};
