/**
 * Answers of a model, decoded greedily. The one place of an evaluation that decodes.
 * @module
 */
import type { Tokenizer } from "../data/tokenizer.ts";
import { generate } from "../generate.ts";
import type { Model } from "../models/model.ts";

/** How answers are decoded. */
export interface AnswerOptions {
  readonly tokenizer: Tokenizer;
  readonly maxNewTokens: number;
  /** Ids that end an answer. */
  readonly stopIds: readonly number[];
  /** Texts that end an answer, and are no part of it. */
  readonly stopStrings: readonly string[];
  /** Whether special tokens are kept in the text. */
  readonly keepSpecialTokens: boolean;
  /** Told of every token; what it throws ends the work. */
  readonly onToken?: () => void;
}

/** An answer. */
export interface Answer {
  readonly text: string;
  /** Whether it ended by itself, not because it had its most tokens. */
  readonly ended: boolean;
}

/** Tokens that a stop string is looked for in, beside as many as it has bytes: a token may hold less than a character. */
const EXTRA_TOKENS = 8;

/**
 * Continues prompts together.
 *
 * @param model the model
 * @param prompts `[S]` token ids, with room for maxNewTokens in the model's positions
 * @param options when to stop
 * @returns `[S]`
 */
export async function decodeAnswers(
  model: Model,
  prompts: readonly (readonly number[])[],
  options: AnswerOptions,
): Promise<Answer[]> {
  const { maxNewTokens, stopIds, stopStrings, onToken } = options;
  const bytes = stopStrings.map((stop) => new TextEncoder().encode(stop).length);
  const looked = EXTRA_TOKENS + Math.max(0, ...bytes);
  const ids = await generate(model, prompts, {
    maxNewTokens,
    stopIds,
    batchSize: prompts.length,
    onToken,
    shouldStop: (_, all) =>
      stopStrings.length > 0 && endOf(textOf(all.slice(-looked), options), options) >= 0,
  });
  return ids.map((answer) => {
    const text = textOf(answer, options);
    const end = endOf(text, options);
    if (end >= 0) return { text: text.slice(0, end), ended: true };
    return { text, ended: answer.length > 0 && stopIds.includes(answer.at(-1)!) };
  });
}

function textOf(ids: readonly number[], { tokenizer, keepSpecialTokens }: AnswerOptions): string {
  return tokenizer.decode(ids, { skipSpecialTokens: !keepSpecialTokens });
}

/** Where the first stop string begins; -1 where there is none. */
function endOf(text: string, { stopStrings }: AnswerOptions): number {
  const found = stopStrings.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  return found.length > 0 ? Math.min(...found) : -1;
}
