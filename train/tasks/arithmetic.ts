/**
 * The generated task: chains of two additions or subtractions, with one right answer each.
 *
 * A problem reads `37+48-15:`, its chain `58,07$`: the value after each operation, from left to right, least significant
 * digit first (85 is "58", 70 is "07"), so that a digit depends only on what is already written; `$` ends it. Operands
 * are 10 to 89 and both results 10 to 99, so every problem has nine characters and every chain six.
 *
 * Whether a problem is held out is a fixed property of the problem, not of a seed: no training set of any run ever
 * contains one.
 * @module
 */
import { type Random, shuffle, uniformInt } from "../random.ts";
import type { PreferenceRecord } from "../data/forms.ts";

/** The task's fifteen characters: digits, signs, separators, the end. A tokenizer adds one for everything else: 16 ids. */
export const ARITHMETIC_ALPHABET = "0123456789+-:,$";
/** The character that ends a chain. */
export const ARITHMETIC_EOS = "$";

/** How many problems exist. */
export const PROBLEM_COUNT = 412_985;
/** How many of them, about one in sixteen, are held out. */
export const HELD_OUT_COUNT = 25_889;
/** How many are left to train on. */
export const TRAINING_COUNT = PROBLEM_COUNT - HELD_OUT_COUNT;

/** A problem with its right chain. */
export interface ArithmeticExample {
  /** The problem, such as `37+48-15:`. */
  prompt: string;
  /** Its right chain, such as `58,07$`. */
  completion: string;
}

const OPERAND_MIN = 10;
const OPERAND_COUNT = 80;
const RESULT_MIN = 10;
const RESULT_MAX = 99;
const HELD_OUT_SHARE = 16;
/** Operands and signs in every combination, with results in range or not. */
const CANDIDATE_COUNT = OPERAND_COUNT ** 3 * 4;
const PROBLEM_PATTERN = /^([1-8][0-9])([+-])([1-8][0-9])([+-])([1-8][0-9]):$/;

/**
 * The right chain of a problem.
 *
 * @param prompt a problem
 * @throws {SyntaxError} text that is not a problem
 * @throws {RangeError} a problem with a result outside 10 to 99
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(solveProblem("37+48-15:"), "58,07$");
 * ```
 */
export function solveProblem(prompt: string): string {
  const parts = prompt.match(PROBLEM_PATTERN);
  if (parts === null) {
    throw new SyntaxError(
      `Cannot solve a problem: expected the form "37+48-15:", found ${JSON.stringify(prompt)}`,
    );
  }
  const [, a, firstSign, b, secondSign, c] = parts;
  const first = Number(a) + (firstSign === "+" ? Number(b) : -Number(b));
  const second = first + (secondSign === "+" ? Number(c) : -Number(c));
  for (const result of [first, second]) {
    if (!inRange(result)) {
      throw new RangeError(
        `Cannot solve ${prompt}: expected results of ${RESULT_MIN} to ${RESULT_MAX}, found ${result}`,
      );
    }
  }
  return `${reversed(first)},${reversed(second)}$`;
}

function inRange(result: number): boolean {
  return result >= RESULT_MIN && result <= RESULT_MAX;
}

function reversed(result: number): string {
  return `${result % 10}${Math.floor(result / 10)}`;
}

/**
 * Whether an output is the right chain, exactly: with its end `$`, and nothing before or after.
 *
 * @param prompt a problem
 * @param output what was generated, special tokens included
 * @throws {SyntaxError | RangeError} as {@linkcode solveProblem}
 */
export function isCorrect(prompt: string, output: string): boolean {
  return output === solveProblem(prompt);
}

/**
 * Every chain that differs from the given one in exactly one digit: nine per digit, in the order of the text.
 *
 * @param chain a chain, such as `58,07$`
 * @returns 36 chains for a chain of four digits
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(variants("58,07$").slice(0, 3), ["08,07$", "18,07$", "28,07$"]);
 * ```
 */
export function variants(chain: string): string[] {
  const found: string[] = [];
  for (let i = 0; i < chain.length; i++) {
    if (chain[i] < "0" || chain[i] > "9") continue;
    for (let digit = 0; digit < 10; digit++) {
      if (String(digit) !== chain[i]) found.push(`${chain.slice(0, i)}${digit}${chain.slice(i + 1)}`);
    }
  }
  return found;
}

/**
 * Whether a problem is reserved for evaluation.
 *
 * @param prompt a problem
 */
export function isHeldOut(prompt: string): boolean {
  // FNV-1a over the characters, then the mixing steps of MurmurHash3, without which its low bits show the last digits.
  let hash = 0x811c9dc5;
  for (let i = 0; i < prompt.length; i++) hash = Math.imul(hash ^ prompt.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) % HELD_OUT_SHARE === 0;
}

/**
 * Every problem, in a fixed order: for counting, and for reading.
 *
 * @returns {@linkcode PROBLEM_COUNT} problems
 */
export function* allProblems(): Generator<string, void> {
  for (let candidate = 0; candidate < CANDIDATE_COUNT; candidate++) {
    const problem = candidateProblem(candidate);
    if (problem !== undefined) yield problem;
  }
}

function candidateProblem(candidate: number): string | undefined {
  let rest = candidate;
  const take = (count: number) => {
    const digit = rest % count;
    rest = (rest - digit) / count;
    return digit;
  };
  const [c, secondSign, b, firstSign, a] = [OPERAND_COUNT, 2, OPERAND_COUNT, 2, OPERAND_COUNT].map(take);
  const signed = (sign: number, operand: number) => (sign === 0 ? 1 : -1) * (operand + OPERAND_MIN);
  const first = a + OPERAND_MIN + signed(firstSign, b);
  if (!inRange(first) || !inRange(first + signed(secondSign, c))) return undefined;
  const text = (sign: number, operand: number) => `${sign === 0 ? "+" : "-"}${operand + OPERAND_MIN}`;
  return `${a + OPERAND_MIN}${text(firstSign, b)}${text(secondSign, c)}:`;
}

/** A problem of one split, every one equally likely. */
function drawProblem(random: Random, split: "training" | "heldOut"): string {
  while (true) {
    const problem = candidateProblem(uniformInt(random, CANDIDATE_COUNT));
    if (problem !== undefined && isHeldOut(problem) === (split === "heldOut")) return problem;
  }
}

function drawDistinct(random: Random, options: { count: number; split: "training" | "heldOut" }): string[] {
  const { count, split } = options;
  const available = split === "heldOut" ? HELD_OUT_COUNT : TRAINING_COUNT;
  if (!Number.isInteger(count) || count < 1 || count > available) {
    throw new RangeError(
      `Cannot draw distinct problems: expected a count of 1 to ${available}, found ${count}`,
    );
  }
  const problems = new Set<string>();
  while (problems.size < count) problems.add(drawProblem(random, split));
  return [...problems];
}

/**
 * Draw training problems with their chains. They may repeat, as in an endless stream; call it once per batch.
 *
 * @param random the generator to draw from
 * @param count how many
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { createRandom } from "../random.ts";
 * const [example] = generateExamples(createRandom(1), 1);
 * assert.ok(isCorrect(example.prompt, example.completion));
 * ```
 */
export function generateExamples(random: Random, count: number): ArithmeticExample[] {
  return Array.from({ length: count }, () => {
    const prompt = drawProblem(random, "training");
    return { prompt, completion: solveProblem(prompt) };
  });
}

/**
 * Draw preference pairs of different training problems: the right chain over the same chain with digits changed.
 *
 * @param random the generator to draw from
 * @param count how many, 1 to {@linkcode TRAINING_COUNT}
 * @param options.corruptedDigits how many digits differ, 1 to 4; 1 by default
 * @throws {RangeError} a count outside those ranges
 */
export function generatePairs(
  random: Random,
  count: number,
  options: { corruptedDigits?: number } = {},
): PreferenceRecord[] {
  return drawDistinct(random, { count, split: "training" }).map((prompt, index) => {
    const chosen = solveProblem(prompt);
    const rejected = corrupt(random, chosen, options.corruptedDigits ?? 1);
    return { prompt, chosen, rejected, source: { file: "arithmetic", index } };
  });
}

/**
 * A chain with so many of its digits changed, every such chain equally likely.
 *
 * @param random the generator to draw from
 * @param chain a chain, such as `58,07$`
 * @param digits how many, 1 to 4
 * @throws {RangeError} another number of digits
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { createRandom } from "../random.ts";
 * const changed = corrupt(createRandom(1), "58,07$", 2);
 * assert.equal([...changed].filter((character, at) => character !== "58,07$"[at]).length, 2);
 * ```
 */
export function corrupt(random: Random, chain: string, digits: number): string {
  const places = [...chain].flatMap((character, at) => (character >= "0" && character <= "9" ? [at] : []));
  if (!Number.isInteger(digits) || digits < 1 || digits > places.length) {
    throw new RangeError(
      `Cannot corrupt ${chain}: expected 1 to ${places.length} digits to change, found ${digits}`,
    );
  }
  if (digits === 1) {
    const wrong = variants(chain);
    return wrong[uniformInt(random, wrong.length)];
  }
  const changed = [...chain];
  for (const at of shuffle(random, places).slice(0, digits)) {
    changed[at] = String((Number(chain[at]) + 1 + uniformInt(random, 9)) % 10);
  }
  return changed.join("");
}

/**
 * Draw different held-out problems with their chains.
 *
 * @param random the generator to draw from
 * @param count how many, 1 to {@linkcode HELD_OUT_COUNT}
 * @throws {RangeError} a count outside that range
 */
export function generateHeldOut(random: Random, count: number): ArithmeticExample[] {
  return drawDistinct(random, { count, split: "heldOut" }).map((prompt) => ({
    prompt,
    completion: solveProblem(prompt),
  }));
}
