/**
 * Tasks whose answers are right or wrong: prompts, greedy answers, a checker.
 * @module
 */
import { encodePrompt } from "../data/encode.ts";
import { formatSource, type RecordSource } from "../data/errors.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { ConfigError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { decodeAnswers } from "./decode.ts";
import { type Proportion, proportionOf } from "./statistics.ts";

/** A question of a task. */
export interface Question {
  /** What the model continues. */
  readonly prompt: string;
  /** What is right. */
  readonly answer: string;
  /** Where it comes from. */
  readonly source: RecordSource;
}

/** What one way to read an output found in it. */
export interface Finding {
  readonly extracted: string | null;
  readonly right: boolean;
}

/** Questions with a checker. */
export interface AnswerTask {
  readonly questions: readonly Question[];
  readonly maxNewTokens: number;
  /** Texts that end an answer. */
  readonly stopStrings: readonly string[];
  /** Whether the checker wants to see special tokens. */
  readonly keepSpecialTokens: boolean;
  /** Ways in which an output is read, by name. */
  readonly measures: readonly string[];
  /**
   * Reads an output.
   *
   * @returns a finding for each measure
   */
  readonly check: (question: Question, output: string) => Readonly<Record<string, Finding>>;
}

/** A question answered. */
export interface AnsweredQuestion extends Question {
  readonly output: string;
  readonly findings: Readonly<Record<string, Finding>>;
}

/** How many answers are right. */
export interface ExactMatchEvaluation {
  readonly questions: number;
  /** By measure. */
  readonly exactMatch: Readonly<Record<string, Proportion>>;
  /** Answers that had their most tokens before they ended. */
  readonly unended: number;
}

/** How a task is run. */
export interface ExactMatchOptions {
  readonly tokenizer: Tokenizer;
  /** Ids that end an answer; the tokenizer's end token by default. */
  readonly stopIds?: readonly number[];
  /** Tokens of prompts and answers that are decoded together; 4,096 by default. */
  readonly batchTokens?: number;
  /** Told of each answer. */
  readonly onAnswer?: (answered: AnsweredQuestion) => void | Promise<void>;
  /** Told how many of how many questions are done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Asks every question.
 *
 * @param model the model
 * @param task questions and checker
 * @param options tokenizer and batches
 * @returns shares of right answers
 * @throws {ConfigError} when a prompt leaves no room for an answer
 */
export async function evaluateAnswers(
  model: Model,
  task: AnswerTask,
  options: ExactMatchOptions,
): Promise<ExactMatchEvaluation> {
  const { questions, measures } = task;
  const { tokenizer } = options;
  const { stopIds = tokenizer.eosTokenId === undefined ? [] : [tokenizer.eosTokenId] } = options;
  const prompts = questions.map(({ prompt }) => encodePrompt(prompt, options));
  refuseLongPrompts(prompts, { task, positions: model.positions });
  const right = new Map(measures.map((name) => [name, [] as boolean[]]));
  let [done, unended] = [0, 0];
  for (const batch of batchesOf(prompts, task, options.batchTokens ?? 4096)) {
    const answers = await decodeAnswers(model, batch.map((index) => prompts[index]), {
      ...task,
      tokenizer,
      stopIds,
      onToken: () => options.onProgress?.(done, questions.length),
    });
    for (const [place, { text: output, ended }] of answers.entries()) {
      const question = questions[batch[place]];
      const findings = task.check(question, output);
      for (const name of measures) right.get(name)!.push(findings[name].right);
      if (!ended) unended++;
      await options.onAnswer?.({ ...question, output, findings });
    }
    done += batch.length;
    options.onProgress?.(done, questions.length);
  }
  const shares = measures.map((name) => [name, proportionOf(right.get(name)!)] as const);
  return { questions: questions.length, exactMatch: Object.fromEntries(shares), unended };
}

/**
 * Sizes of the batches that take the most memory: the one with the largest cache, and the one with the longest prompt.
 *
 * @param task questions and checker
 * @param options tokenizer and batches
 * @returns sequences, positions and prompt tokens of each
 */
export function largestBatches(
  task: AnswerTask,
  options: Pick<ExactMatchOptions, "tokenizer" | "batchTokens">,
): { size: { sequences: number; positions: number }; promptTokens: number }[] {
  const prompts = task.questions.map(({ prompt }) => encodePrompt(prompt, options));
  const sizes = [...batchesOf(prompts, task, options.batchTokens ?? 4096)].map((batch) => {
    const promptTokens = Math.max(...batch.map((index) => prompts[index].length));
    // The last token is not taken in.
    const positions = promptTokens + task.maxNewTokens - 1;
    return { size: { sequences: batch.length, positions }, promptTokens };
  });
  const most = (of: (one: typeof sizes[number]) => number) =>
    sizes.reduce((best, one) => (of(one) > of(best) ? one : best));
  return [
    most(({ size: { sequences, positions } }) => sequences * positions),
    most(({ size: { sequences }, promptTokens }) => sequences * promptTokens),
  ];
}

function refuseLongPrompts(
  prompts: readonly (readonly number[])[],
  { task, positions }: { task: AnswerTask; positions: number },
): void {
  const room = positions - task.maxNewTokens;
  const index = prompts.findIndex((ids) => ids.length > room);
  if (index < 0) return;
  throw new ConfigError(
    `Cannot ask ${formatSource(task.questions[index].source)}: expected a prompt of at most ${
      Math.max(0, room)
    } tokens ` +
      `(${positions} positions less ${task.maxNewTokens} new tokens), found ${prompts[index].length}`,
  );
}

/** Indices of questions that are decoded together. */
function* batchesOf(
  prompts: readonly (readonly number[])[],
  { maxNewTokens }: AnswerTask,
  batchTokens: number,
): Generator<number[], void> {
  let batch: number[] = [];
  let tokens = 0;
  for (const [index, ids] of prompts.entries()) {
    const length = ids.length + maxNewTokens;
    if (batch.length > 0 && tokens + length > batchTokens) {
      yield batch;
      batch = [];
      tokens = 0;
    }
    batch.push(index);
    tokens += length;
  }
  if (batch.length > 0) yield batch;
}
