/**
 * Seeded random numbers for tests.
 *
 * @module
 */

/** A source of uniform numbers in [0, 1). */
export type Random = () => number;

/**
 * Mulberry32: small, fast, and the same on every machine.
 *
 * @param seed Any integer; equal seeds give equal sequences.
 * @returns A source of uniform numbers in [0, 1).
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const first = seededRandom(1)();
 * assert.equal(first, seededRandom(1)());
 * assert.notEqual(first, seededRandom(2)());
 * ```
 */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Standard normal numbers by Box and Muller, times `scale`.
 *
 * @param random Source of uniform numbers.
 * @param options.length How many numbers.
 * @param options.scale Standard deviation, 1 by default.
 * @returns `[length]` numbers.
 */
export function normals(random: Random, options: { length: number; scale?: number }): Float64Array {
  const { length, scale = 1 } = options;
  return new Float64Array(length).map(() => {
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    return scale * radius * Math.cos(2 * Math.PI * random());
  });
}

/**
 * Whole numbers in [low, high).
 *
 * @param random Source of uniform numbers.
 * @param options.length How many numbers.
 * @param options.low Smallest value, 0 by default.
 * @param options.high One more than the largest value.
 * @returns `[length]` whole numbers.
 */
export function integers(
  random: Random,
  options: { length: number; low?: number; high: number },
): Int32Array {
  const { length, low = 0, high } = options;
  return new Int32Array(length).map(() => low + Math.floor(random() * (high - low)));
}
