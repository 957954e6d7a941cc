/**
 * Choosing a token from logits: repetition penalty, temperature, top-k, top-p, in the order and with the definitions of
 * transformers' generate, and a seeded draw.
 * @module
 */
import { type Random, uniform } from "../random.ts";

/** How a token is chosen. */
export interface SamplingOptions {
  /** Divides the scores; 0 takes the most probable token. 0 by default. */
  readonly temperature?: number;
  /** Only the k most probable tokens, and those equal to the last of them. All by default. */
  readonly topK?: number;
  /** Only the fewest tokens, most probable first, that reach this probability together. All by default. */
  readonly topP?: number;
  /** Makes tokens that came before less likely where it is above 1: see {@link penalizeRepetition}. 1 by default. */
  readonly repetitionPenalty?: number;
}

/**
 * Checks options of sampling.
 *
 * @param options what was asked for
 * @throws {RangeError} naming what is out of range
 */
export function checkSampling(options: SamplingOptions): void {
  const { temperature = 0, topK = 1, topP = 1, repetitionPenalty = 1 } = options;
  const refuse = (expected: string, found: number) => {
    throw new RangeError(`Cannot generate: expected ${expected}, found ${found}`);
  };
  if (!(temperature >= 0 && temperature < Infinity)) refuse("a temperature of 0 or more", temperature);
  if (!(Number.isInteger(topK) && topK >= 1)) refuse("a top-k of 1 or more", topK);
  if (!(topP > 0 && topP <= 1)) refuse("a top-p above 0, up to 1", topP);
  if (!(repetitionPenalty > 0 && repetitionPenalty < Infinity)) {
    refuse("a repetition penalty above 0", repetitionPenalty);
  }
}

/**
 * score / penalty where it is positive, score * penalty where it is negative, for each token that came before
 * (arXiv 1909.05858, as transformers does it).
 *
 * @param scores `[V]`, changed
 * @param ids that came before, prompt included
 * @param penalty above 0
 */
export function penalizeRepetition(scores: Float64Array, ids: Iterable<number>, penalty: number): void {
  for (const id of new Set(ids)) {
    if (id < scores.length) scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
  }
}

/**
 * Leaves the k largest scores, and those equal to the last of them; the others become -Infinity.
 *
 * @param scores `[V]`, changed
 * @param k at least 1
 */
export function keepTopK(scores: Float64Array, k: number): void {
  if (k >= scores.length) return;
  const threshold = scores.toSorted()[scores.length - k];
  scores.forEach((score, id) => {
    if (score < threshold) scores[id] = -Infinity;
  });
}

/**
 * Leaves the fewest tokens whose probabilities reach p together, most probable first, at least one; the others become
 * -Infinity. Of equal scores the later ids go first.
 *
 * @param scores `[V]`, changed
 * @param p above 0, up to 1
 */
export function keepTopP(scores: Float64Array, p: number): void {
  if (p >= 1) return;
  const ascending = scores.toSorted();
  const largest = ascending[ascending.length - 1];
  const total = ascending.reduce((sum, score) => sum + Math.exp(score - largest), 0);
  // transformers drops from the least probable on while their sum is at most 1 - p.
  let below = 0;
  let dropped = 0;
  while (dropped < ascending.length - 1) {
    below += Math.exp(ascending[dropped] - largest) / total;
    if (below > 1 - p) break;
    dropped++;
  }
  const threshold = ascending[dropped];
  let equals = 0;
  for (let index = dropped; index < ascending.length && ascending[index] === threshold; index++) equals++;
  scores.forEach((score, id) => {
    if (score < threshold || (score === threshold && equals-- <= 0)) scores[id] = -Infinity;
  });
}

/**
 * Scores after everything that was asked for.
 *
 * @param logits `[V]`
 * @param ids that came before, prompt included
 * @param options see {@link SamplingOptions}
 * @returns `[V]`, -Infinity for what is left out
 */
export function warpLogits(
  logits: ArrayLike<number>,
  ids: Iterable<number>,
  options: SamplingOptions,
): Float64Array {
  const scores = Float64Array.from(logits);
  const { temperature = 0, topK, topP, repetitionPenalty = 1 } = options;
  if (repetitionPenalty !== 1) penalizeRepetition(scores, ids, repetitionPenalty);
  if (temperature === 0) return scores;
  scores.forEach((score, id) => scores[id] = score / temperature);
  if (topK !== undefined) keepTopK(scores, topK);
  if (topP !== undefined) keepTopP(scores, topP);
  return scores;
}

/**
 * Probabilities of scores.
 *
 * @param scores `[V]`
 * @returns softmax, `[V]`
 */
export function probabilitiesOf(scores: Float64Array): Float64Array {
  const largest = scores.reduce((most, score) => Math.max(most, score), -Infinity);
  const weights = scores.map((score) => Math.exp(score - largest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/**
 * Chooses a token.
 *
 * @param logits `[V]`
 * @param ids that came before, prompt included
 * @param options how; with a temperature of 0 the most probable token, of equals the first
 * @param random where the draw comes from: one number a token
 * @returns its id
 * @throws {RangeError} when no score is a number
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { createRandom } from "../random.ts";
 *
 * assert.equal(chooseId([0, 2, 1], [], { temperature: 0 }, createRandom(1)), 1);
 * assert.equal(chooseId([0, 2, 1], [1], { temperature: 0, repetitionPenalty: 4 }, createRandom(1)), 2);
 * assert.equal(chooseId([0, 2, 1], [], { temperature: 1, topK: 1 }, createRandom(1)), 1);
 * ```
 */
export function chooseId(
  logits: ArrayLike<number>,
  ids: Iterable<number>,
  options: SamplingOptions,
  random: Random,
): number {
  const scores = warpLogits(logits, ids, options);
  const best = scores.reduce((most, score, id) => score > scores[most] ? id : most, 0);
  if (!Number.isFinite(scores[best])) {
    throw new RangeError(`Cannot choose a token: expected finite logits, found ${scores[best]}`);
  }
  if ((options.temperature ?? 0) === 0) return best;
  let left = uniform(random);
  const probabilities = probabilitiesOf(scores);
  for (let id = 0; id < probabilities.length; id++) {
    left -= probabilities[id];
    if (left < 0) return id;
  }
  // Rounding may leave a rest that belongs to no token.
  return best;
}
