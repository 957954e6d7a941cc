/**
 * GSM8K (arXiv 2110.14168): grade-school problems in words, whose worked answers end in `#### ` and a number. Prompts and
 * the two ways to find a model's answer are those that EleutherAI's lm-evaluation-harness made usual.
 * @module
 */
import { DataError, formatSource, type RecordSource } from "../data/errors.ts";
import { readRows } from "../data/readers.ts";
import type { Row } from "../data/rows.ts";
import { createRandom, deriveSeed, shuffle } from "../random.ts";

/** A problem with its worked answer. */
export interface Gsm8kProblem {
  readonly question: string;
  /** Ends in `#### ` and a number. */
  readonly answer: string;
  /** Where it comes from, for errors. */
  readonly source: RecordSource;
}

/** What ends a model's answer: the beginning of another problem. */
export const GSM8K_STOP = "Question:";

/** Digits, whole ones in groups of three or not, with or without a fraction. */
const DIGITS = String.raw`(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+`;
const MARKED = new RegExp(String.raw`####[ \t]*([-−]?[ \t]?\$?[ \t]?[-−]?(?:${DIGITS}))`);
/** A minus after a digit, letter or bracket subtracts or joins, and so does one before a blank: neither is a sign. */
const ANYWHERE = new RegExp(String.raw`(?:(?<![0-9A-Za-z)\]])[-−]\$?)?(?:${DIGITS})`, "g");

/**
 * The number that stands right after `####`; the first of several. Dollar signs and thousands commas do not count, nor
 * do zeros that change nothing, so that equal numbers are equal texts.
 *
 * @param text an answer
 * @returns a decimal number; undefined when no mark has a number after it
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(extractStrict("650 * 2 = 1300\n#### $1,300.50"), "1300.5");
 * assert.equal(extractStrict("The answer is 13."), undefined);
 * ```
 */
export function extractStrict(text: string): string | undefined {
  const found = MARKED.exec(text)?.[1];
  return found === undefined ? undefined : canonical(found);
}

/**
 * The last number of a text, in the form of {@linkcode extractStrict}.
 *
 * @param text an answer
 * @returns a decimal number; undefined when there is none
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(extractFlexible("She sells 16-3=13 eggs, for $26."), "26");
 * ```
 */
export function extractFlexible(text: string): string | undefined {
  const last = text.match(ANYWHERE)?.at(-1);
  return last === undefined ? undefined : canonical(last);
}

function canonical(number: string): string {
  const [whole, fraction = ""] = number.replaceAll(/[^0-9.]/g, "").split(".");
  const digits = whole.replace(/^0+(?=[0-9])/, "") || "0";
  const decimals = fraction.replace(/0+$/, "");
  const size = decimals === "" ? digits : `${digits}.${decimals}`;
  return /[-−]/.test(number) && size !== "0" ? `-${size}` : size;
}

/**
 * The text that a model is asked to continue: worked examples, then the question. A continuation is expected to begin
 * with a blank.
 *
 * @param question of the problem
 * @param shots worked examples, in order
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const shot = { question: "1+1?", answer: "1+1=2\n#### 2", source: { file: "example" } };
 * assert.equal(gsm8kPrompt("2+2?", [shot]), "Question: 1+1?\nAnswer: 1+1=2\n#### 2\n\nQuestion: 2+2?\nAnswer:");
 * ```
 */
export function gsm8kPrompt(question: string, shots: readonly Gsm8kProblem[]): string {
  const worked = shots.map((shot) => `Question: ${shot.question}\nAnswer: ${shot.answer}\n\n`);
  return `${worked.join("")}Question: ${question}\nAnswer:`;
}

/**
 * Worked examples for prompts: the same for the same seed, and fewer are the first of more.
 *
 * @param problems to choose from
 * @param options.count how many, at most as many as there are
 * @param options.seed of the choice
 */
export function chooseShots(
  problems: readonly Gsm8kProblem[],
  { count, seed }: { count: number; seed: number },
): Gsm8kProblem[] {
  return shuffle(createRandom(deriveSeed(seed, "gsm8k", "shots")), [...problems]).slice(0, count);
}

/**
 * Reads problems.
 *
 * @param path `.jsonl` or `.json` records with `question` and `answer`
 * @param options.limit the first so many
 * @throws {DataError} naming file, line and key
 */
export async function readGsm8k(path: string, options: { limit?: number } = {}): Promise<Gsm8kProblem[]> {
  const problems: Gsm8kProblem[] = [];
  for await (const row of readRows(path)) {
    if (problems.length === options.limit) break;
    problems.push(problemOf(row));
  }
  return problems;
}

function problemOf(row: Row): Gsm8kProblem {
  const { source } = row;
  const [question, answer] = [textAt(row, "question"), textAt(row, "answer")];
  if (question.trim() === "") {
    throw new DataError(
      `Cannot read ${formatSource(source)}: key "question": expected a text, found only blanks`,
    );
  }
  if (extractStrict(answer) === undefined) {
    throw new DataError(
      `Cannot read ${formatSource(source)}: key "answer": expected "#### " and a number in it, found none`,
    );
  }
  return { question, answer, source };
}

function textAt({ value, source }: Row, key: string): string {
  const text = value[key];
  if (typeof text === "string") return text;
  const found = text === undefined ? "nothing" : text === null ? "null" : typeof text;
  throw new DataError(`Cannot read ${formatSource(source)}: key "${key}": expected a string, found ${found}`);
}
