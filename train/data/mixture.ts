/**
 * Several sources drawn from by weight: which sample of a run comes from which source, and which of its items.
 * @module
 */
import { createRandom, deriveSeed, shuffle } from "../random.ts";
import { DataError } from "./errors.ts";

/** A source of items: those after the ones of the sources before it. */
export interface MixturePart {
  /** How many items it has. */
  count: number;
  /** Its share of the samples drawn, against the sum of all weights; above 0. */
  weight: number;
}

/**
 * Weights of files as a user writes them.
 *
 * @param text numbers above 0, joined by commas
 * @returns the numbers, or undefined where one is none
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseWeights("3,0.5"), [3, 0.5]);
 * assert.equal(parseWeights("3,0"), undefined);
 * ```
 */
export function parseWeights(text: string): number[] | undefined {
  const weights = text.split(",").map((word) => (word.trim() === "" ? NaN : Number(word)));
  return weights.every((weight) => Number.isFinite(weight) && weight > 0) ? weights : undefined;
}

/**
 * How many of an epoch's samples each source gives: its share, rounded so that the sum is kept (largest remainders).
 *
 * @param parts the sources
 * @param samples of an epoch
 * @throws {RangeError} a weight that is no positive number
 * @throws {DataError} a weight so small that an epoch has no sample of its source
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(samplesPerEpoch([{ count: 90, weight: 1 }, { count: 10, weight: 2 }], 100), [33, 67]);
 * ```
 */
export function samplesPerEpoch(parts: readonly MixturePart[], samples: number): number[] {
  const bad = parts.find(({ weight }) => !(Number.isFinite(weight) && weight > 0));
  if (bad) throw new RangeError(`Cannot mix data: expected weights above 0, found ${bad.weight}`);
  const sum = parts.reduce((total, { weight }) => total + weight, 0);
  const shares = parts.map(({ weight }) => (samples * weight) / sum);
  const quotas = shares.map(Math.floor);
  const missing = samples - quotas.reduce((total, quota) => total + quota, 0);
  const byRemainder = shares.map((share, i) => [share - quotas[i], i]).toSorted(([a, i], [b, j]) =>
    b - a || i - j
  );
  for (const [, i] of byRemainder.slice(0, missing)) quotas[i]++;
  const none = quotas.indexOf(0);
  if (none >= 0) {
    throw new DataError(
      `Cannot mix data: expected a weight that gives source ${
        none + 1
      } a sample in an epoch of ${samples}, ` +
        `found ${parts[none].weight} of ${sum}`,
    );
  }
  return quotas;
}

/**
 * The order of one epoch of a mixture. Sources are interleaved at random in exact shares; each is an endless sequence of
 * passes over its own items, every pass in another order, so a source drawn from often comes round several times in an
 * epoch, and one drawn from seldom goes on in the next epoch where it stood.
 *
 * @param parts the sources
 * @param options.seed of the run; with the epoch it decides the order, whatever came before
 * @param options.epoch from 0
 * @param options.shuffle whether passes are shuffled; interleaving always is
 * @returns `[sum of counts]` indices into all items
 */
export function mixtureOrder(
  parts: readonly MixturePart[],
  options: { seed: number; epoch: number; shuffle: boolean },
): Uint32Array {
  const { seed, epoch } = options;
  const samples = parts.reduce((total, { count }) => total + count, 0);
  const quotas = samplesPerEpoch(parts, samples);
  const order = Uint32Array.from(quotas.flatMap((quota, part) => Array<number>(quota).fill(part)));
  shuffle(createRandom(deriveSeed(seed, "mixture", epoch)), order);
  // An empty source would have no item to draw.
  if (parts.some(({ count }) => count < 1)) {
    throw new DataError("Cannot mix data: expected items in every source, found one without");
  }
  const starts = parts.map((_, i) => parts.slice(0, i).reduce((total, { count }) => total + count, 0));
  const drawn = quotas.map((quota) => quota * epoch);
  const passes: { pass: number; items: Uint32Array }[] = [];
  return order.map((part) => {
    const { count } = parts[part];
    const [pass, place] = [Math.floor(drawn[part] / count), drawn[part] % count];
    drawn[part]++;
    if (passes[part]?.pass !== pass) {
      const items = Uint32Array.from({ length: count }, (_, i) => i);
      if (options.shuffle) shuffle(createRandom(deriveSeed(seed, "source", part, pass)), items);
      passes[part] = { pass, items };
    }
    return starts[part] + passes[part].items[place];
  });
}
