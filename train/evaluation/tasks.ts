/**
 * The tasks with right answers: generated arithmetic, and GSM8K.
 * @module
 */
import { encodePrompt } from "../data/encode.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { ConfigError } from "../errors.ts";
import { createRandom, deriveSeed } from "../random.ts";
import { generateHeldOut, isCorrect } from "../tasks/arithmetic.ts";
import {
  chooseShots,
  extractFlexible,
  extractStrict,
  GSM8K_STOP,
  type Gsm8kProblem,
  gsm8kPrompt,
} from "../tasks/gsm8k.ts";
import type { AnswerTask } from "./exact_match.ts";

/** Worked examples of a prompt, where nothing else is asked for. */
export const DEFAULT_SHOTS = 8;

/**
 * Held-out problems of the generated arithmetic task; right is the whole chain with its end.
 *
 * @param options.count how many
 * @param options.seed of the choice
 */
export function arithmeticTask({ count, seed }: { count: number; seed: number }): AnswerTask {
  const problems = generateHeldOut(createRandom(deriveSeed(seed, "evaluation", "arithmetic")), count);
  return {
    questions: problems.map(({ prompt, completion }, index) => ({
      prompt,
      answer: completion,
      source: { file: "arithmetic", index },
    })),
    maxNewTokens: Math.max(...problems.map(({ completion }) => completion.length)),
    stopStrings: [],
    keepSpecialTokens: true,
    measures: ["exact"],
    check: ({ prompt }, output) => ({ exact: { extracted: output, right: isCorrect(prompt, output) } }),
  };
}

/** What a GSM8K evaluation is made of. */
export interface Gsm8kOptions {
  /** To choose worked examples from; none without. */
  readonly examples?: readonly Gsm8kProblem[];
  /** Worked examples; by default {@link DEFAULT_SHOTS}, or as many as fit. */
  readonly shots?: number;
  readonly maxNewTokens: number;
  readonly seed: number;
  readonly tokenizer: Tokenizer;
  /** Of the model, which prompt and answer must fit. */
  readonly positions: number;
}

/**
 * GSM8K: strict is the number after `####`, flexible the last number of the answer. With worked examples a blank line
 * ends an answer, as it ends theirs.
 *
 * @param problems to ask
 * @param options examples, and what they must fit
 * @returns the task, and how many examples its prompts hold
 * @throws {ConfigError} when there are fewer examples than asked for, or they do not fit
 */
export function gsm8kTask(
  problems: readonly Gsm8kProblem[],
  options: Gsm8kOptions,
): { task: AnswerTask; shots: number } {
  const { examples = [], seed, maxNewTokens } = options;
  const asked = options.shots ?? Math.min(DEFAULT_SHOTS, examples.length);
  if (asked > examples.length) {
    throw new ConfigError(
      `Cannot use --shots ${asked}: expected a --few-shot file with so many records, found ${examples.length}`,
    );
  }
  const candidates = chooseShots(examples, { count: asked, seed });
  const fitting = fittingShots(problems, candidates, options);
  if (options.shots !== undefined && fitting < asked) {
    throw new ConfigError(
      `Cannot use --shots ${asked}: expected prompts of at most ${options.positions - maxNewTokens} tokens ` +
        `(${options.positions} positions less ${maxNewTokens} new tokens), found longer ones; ` +
        (fitting < 0 ? "not even 0 shots fit" : `${fitting} shots fit`),
    );
  }
  const shots = candidates.slice(0, Math.max(0, fitting));
  return { shots: shots.length, task: taskOf(problems, { shots, maxNewTokens }) };
}

function taskOf(
  problems: readonly Gsm8kProblem[],
  { shots, maxNewTokens }: { shots: readonly Gsm8kProblem[]; maxNewTokens: number },
): AnswerTask {
  return {
    questions: problems.map(({ question, answer, source }) => ({
      prompt: gsm8kPrompt(question, shots),
      answer: extractStrict(answer)!,
      source,
    })),
    maxNewTokens,
    stopStrings: shots.length > 0 ? [GSM8K_STOP, "\n\n"] : [GSM8K_STOP],
    keepSpecialTokens: false,
    measures: ["strict", "flexible"],
    check({ answer }, output) {
      const finding = (extracted: string | undefined) => ({
        extracted: extracted ?? null,
        right: extracted === answer,
      });
      return { strict: finding(extractStrict(output)), flexible: finding(extractFlexible(output)) };
    },
  };
}

/** Questions that are tried out: the longest alone may not be the longest behind examples, by a token or two. */
const TRIED = 8;

/** The largest number of examples with which every question leaves room for its answer; -1 where none does. */
function fittingShots(
  problems: readonly Gsm8kProblem[],
  candidates: readonly Gsm8kProblem[],
  { tokenizer, positions, maxNewTokens }: Gsm8kOptions,
): number {
  const lengthOf = (question: string, shots: readonly Gsm8kProblem[]) =>
    encodePrompt(gsm8kPrompt(question, shots), { tokenizer }).length;
  const longest = problems.map(({ question }) => ({ question, length: lengthOf(question, []) }))
    .toSorted((a, b) => b.length - a.length).slice(0, TRIED);
  for (let count = candidates.length; count >= 0; count--) {
    const shots = candidates.slice(0, count);
    if (longest.every(({ question }) => lengthOf(question, shots) + maxNewTokens <= positions)) return count;
  }
  return -1;
}
