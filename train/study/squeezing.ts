/**
 * The squeezing effect (arXiv 2407.10490) without a language model: one step of gradient descent that pushes an answer
 * down, on the logits of a softmax over K answers.
 *
 * The gradient of log p(y-) by the logits is e(y-) - p, so a step of rate eta that lowers it adds eta (p - e(y-)): each other * answer gains by its own probability, so the most likely one takes nearly all; where y- is unlikely already, even answers
 * that are more likely than y- lose.
 * @module
 */

/** What one step does to the probabilities. */
export interface SqueezingResult {
  /** Where y- is. */
  readonly place: "peak" | "valley";
  /** Weight of -log p(y+) in the same step. */
  readonly lambda: number;
  /** Probabilities before and after. */
  readonly rejected: readonly [number, number];
  readonly chosen: readonly [number, number];
  readonly mostLikely: readonly [number, number];
  /** Of all others together. */
  readonly others: readonly [number, number];
}

/** Answers. */
const ANSWERS = 50;
/** Rate of the step. */
const RATE = 4;

/**
 * y+ is the fourth most likely answer, y- the second most likely one (peak) or the least likely one (valley).
 *
 * @param place where y- is
 * @param lambda weight of -log p(y+), SPO's linear penalty; 0 is the push down alone
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { chosen, mostLikely } = squeeze("valley", 0);
 * assert(chosen[1] < chosen[0]); // y+ loses, though nothing was said about it
 * assert(mostLikely[1] > mostLikely[0]);
 * ```
 */
export function squeeze(place: SqueezingResult["place"], lambda: number): SqueezingResult {
  // Probabilities fall by a constant factor from answer to answer.
  const logits = Array.from({ length: ANSWERS }, (_, answer) => -0.4 * answer);
  const before = softmax(logits);
  const [mostLikely, chosen] = [0, 3];
  const rejected = place === "peak" ? 1 : ANSWERS - 1;
  const after = softmax(logits.map((logit, answer) => {
    const down = before[answer] - (answer === rejected ? 1 : 0);
    const up = (answer === chosen ? 1 : 0) - before[answer];
    return logit + RATE * (down + lambda * up);
  }));
  const of = (answer: number) => [before[answer], after[answer]] as const;
  const rest = (p: readonly number[]) => 1 - p[mostLikely] - p[chosen] - p[rejected];
  return {
    place,
    lambda,
    rejected: of(rejected),
    chosen: of(chosen),
    mostLikely: of(mostLikely),
    others: [rest(before), rest(after)],
  };
}

/**
 * @param logits any finite numbers
 * @returns probabilities
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(softmax([1000, 1000]), [0.5, 0.5]);
 * ```
 */
export function softmax(logits: readonly number[]): number[] {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
