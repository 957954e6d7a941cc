/**
 * Answers of a model, decoded greedily. The one place of an evaluation that decodes.
 * @module
 */
import type { Tokenizer } from "../data/tokenizer.ts";
import { greedyDecode } from "../generate.ts";
import type { Model } from "../models/model.ts";

/** How answers are decoded. */
export interface AnswerOptions {
  readonly tokenizer: Tokenizer;
  readonly maxNewTokens: number;
  /** Texts that end an answer, and are no part of it. The tokenizer's end token ends it, too. */
  readonly stopStrings: readonly string[];
  /** Whether special tokens are kept in the text. */
  readonly keepSpecialTokens: boolean;
  /** Told between parts of the work; what it throws ends it. */
  readonly onPart?: () => void;
}

/** An answer. */
export interface Answer {
  readonly text: string;
  /** Whether it ended by itself, not because it had its most tokens. */
  readonly ended: boolean;
}

/** Tokens between two looks at what has been decoded: each costs the host a few milliseconds. */
const PART_TOKENS = 16;

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
  const { tokenizer, maxNewTokens } = options;
  const stopIds = tokenizer.eosTokenId === undefined ? [] : [tokenizer.eosTokenId];
  const continuations: number[][] = prompts.map(() => []);
  const answers: (Answer | undefined)[] = prompts.map(() => undefined);
  for (let done = 0; done < maxNewTokens; done += PART_TOKENS) {
    const open = [...prompts.keys()].filter((index) => !answers[index]?.ended);
    if (open.length === 0) break;
    const parts = await greedyDecode(
      model,
      open.map((index) => [...prompts[index], ...continuations[index]]),
      {
        maxNewTokens: Math.min(PART_TOKENS, maxNewTokens - done),
        stopIds,
        batchSize: open.length,
      },
    );
    open.forEach((index, place) => {
      continuations[index].push(...parts[place]);
      answers[index] = answerOf(continuations[index], options);
    });
    options.onPart?.();
  }
  return answers as Answer[];
}

/** What has been decoded so far, up to whatever ends it. */
function answerOf(ids: readonly number[], options: AnswerOptions): Answer {
  const { tokenizer, stopStrings, keepSpecialTokens } = options;
  const text = tokenizer.decode(ids, { skipSpecialTokens: !keepSpecialTokens });
  const ends = stopStrings.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  if (ends.length > 0) return { text: text.slice(0, Math.min(...ends)), ended: true };
  return { text, ended: ids.at(-1) === tokenizer.eosTokenId };
}
