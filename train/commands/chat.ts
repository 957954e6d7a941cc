/**
 * `chat`: flags and help.
 * @module
 */
import { z } from "zod";
import { type Command, DATA, type Meanings } from "./command.ts";
import { GENERATION_MEANINGS, generationFlags } from "./generate.ts";

/** Flags of `chat`. */
export const chatFlagsSchema = z.strictObject({
  /** Said before the conversation. */
  system: z.string().optional(),
  /** Most tokens of the conversation. */
  maxLength: z.int().positive().optional(),
  ...generationFlags,
});

const { model, ...ofGeneration } = GENERATION_MEANINGS;

const CHAT_MEANINGS: Meanings<keyof z.output<typeof chatFlagsSchema>> = {
  model,
  system: [DATA, "what the model is told before the conversation"],
  maxLength: [DATA, "most tokens of the conversation (default: the model's positions, up to 4096)"],
  ...ofGeneration,
};

/** A conversation. */
export const chatCommand: Command<typeof chatFlagsSchema> = {
  schema: chatFlagsSchema,
  takesConfig: true,
  summary: "Talks with a model, in its chat template: a line is a message; /reset begins anew, /exit leaves.",
  meanings: CHAT_MEANINGS,
  examples: [
    "deno task chat --model models/llama",
    'deno task chat --model runs/mine/model --system "Answer briefly." --temperature 0.7 --top-p 0.9',
  ],
  access: { paths: { model: "model", base: "base" }, usesGpu: () => true, caches: ["tuning"] },
  load: async () => (await import("./run_chat.ts")).runChat,
};
