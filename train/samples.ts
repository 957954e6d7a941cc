/**
 * What a model answers to a few held-out prompts, before and after a phase of training.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import type { EncodedCompletion } from "./data/encode.ts";
import type { Tokenizer } from "./data/tokenizer.ts";
import { generate } from "./generate.ts";
import type { Model } from "./models/model.ts";
import { openMetrics } from "./run_folder.ts";
import type { Session } from "./session.ts";

/** The file of a run's folder that holds them, a {@link Sample} per line. */
export const SAMPLES_FILE = "samples.jsonl";

/** Prompts that are answered. */
const SAMPLE_COUNT = 4;
/** Tokens of an answer at most. */
const MAX_NEW_TOKENS = 64;

/** A line of samples.jsonl. */
export const sampleSchema = z.object({
  /** `before` or `after`, or the phase that the model comes from. */
  phase: z.string(),
  prompt: z.string(),
  /** The answer that the data prefers. */
  chosen: z.string().optional(),
  /** The model's, greedily. */
  completion: z.string(),
});

/** An answer of a model. */
export type Sample = z.output<typeof sampleSchema>;

/**
 * Answers the first few different prompts greedily and adds them to the run's samples.jsonl. Does nothing on a planning
 * device, nor where a prompt leaves no room.
 *
 * @param session the run
 * @param model the model
 * @param options.phase what the model comes from
 * @param options.tokenizer of the model
 * @param options.answers held-out prompts with their preferred answers
 */
export async function writeSamples(
  session: Pick<Session, "gpu" | "folder">,
  model: Model,
  { phase, tokenizer, answers }: {
    phase: string;
    tokenizer: Tokenizer;
    answers: readonly EncodedCompletion[];
  },
): Promise<void> {
  const chosen = firstPrompts(answers);
  const longest = Math.max(...chosen.map(({ promptIds }) => promptIds.length));
  const maxNewTokens = Math.min(MAX_NEW_TOKENS, model.positions - longest);
  if (session.gpu.isPlanning || chosen.length === 0 || maxNewTokens < 1) return;
  const stopIds = tokenizer.eosTokenId === undefined ? [] : [tokenizer.eosTokenId];
  const outputs = await generate(model, chosen.map(({ promptIds }) => [...promptIds]), {
    maxNewTokens,
    stopIds,
  });
  using file = openMetrics(join(session.folder, SAMPLES_FILE));
  for (const [index, output] of outputs.entries()) {
    const { promptIds, completionIds } = chosen[index];
    const sample: Sample = {
      phase,
      prompt: tokenizer.decode(promptIds),
      chosen: tokenizer.decode(completionIds),
      completion: tokenizer.decode(output),
    };
    file.append(sample);
  }
}

function firstPrompts(answers: readonly EncodedCompletion[]): EncodedCompletion[] {
  const byPrompt = new Map<string, EncodedCompletion>();
  for (const answer of answers) {
    const key = answer.promptIds.join(" ");
    if (answer.promptIds.length > 0 && !byPrompt.has(key)) byPrompt.set(key, answer);
    if (byPrompt.size === SAMPLE_COUNT) break;
  }
  return [...byPrompt.values()];
}
