/**
 * Seeded random numbers: one small generator, and the few distributions that training needs. Nothing in the project
 * draws from any other source, so a run is repeated by its seed and resumed by its generator's state.
 *
 * The generator is xoshiro128** 1.1 (Blackman and Vigna, arXiv 1805.01407), its state filled by SplitMix64, as its
 * authors recommend.
 * @module
 */

/** The four 32-bit words of a generator: plain data, safe to write as JSON and to hand back to {@linkcode createRandom}. */
export type RandomState = readonly [number, number, number, number];

/** A seeded generator of uniform 32-bit words. Each draw advances it. */
export interface Random {
  /** The next word, uniform over 0 .. 2^32 - 1. */
  nextUint32(): number;
  /** A copy of the present state; `createRandom(state)` continues exactly here. */
  state(): RandomState;
}

const MASK_64 = 0xffff_ffff_ffff_ffffn;
const TWO_32 = 0x1_0000_0000;

/**
 * The SplitMix64 sequence of a seed: well mixed 64-bit words, also from seeds as alike as 1 and 2.
 *
 * @param seed any 64-bit integer; a negative one counts modulo 2^64
 * @param count how many words
 * @returns `count` words, each 0 .. 2^64 - 1
 */
export function splitMix64(seed: bigint, count: number): bigint[] {
  const words: bigint[] = [];
  let counter = seed & MASK_64;
  for (let i = 0; i < count; i++) {
    counter = (counter + 0x9e3779b97f4a7c15n) & MASK_64;
    let z = counter;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK_64;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK_64;
    words.push(z ^ (z >> 31n));
  }
  return words;
}

/**
 * Make a generator from a seed, or continue one from its state.
 *
 * @param seedOrState a safe integer, or what {@linkcode Random.state} returned
 * @returns a generator that shares nothing with others
 * @throws {RangeError} a seed that is not a safe integer, or a state that is not four 32-bit words, not all zero
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const random = createRandom(7);
 * const resumed = createRandom(random.state());
 * assert.equal(resumed.nextUint32(), random.nextUint32());
 * ```
 */
export function createRandom(seedOrState: number | RandomState): Random {
  let [a, b, c, d] = typeof seedOrState === "number" ? stateFromSeed(seedOrState) : checkedState(seedOrState);
  return {
    nextUint32() {
      const scrambled = Math.imul(b, 5) | 0;
      const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
      const shifted = b << 9;
      c ^= a;
      d ^= b;
      b ^= c;
      a ^= d;
      c ^= shifted;
      d = (d << 11) | (d >>> 21);
      return result;
    },
    state: () => [a >>> 0, b >>> 0, c >>> 0, d >>> 0],
  };
}

function stateFromSeed(seed: number): RandomState {
  if (!Number.isSafeInteger(seed)) {
    throw new RangeError(`Cannot seed a generator: expected a safe integer, found ${seed}`);
  }
  const [first, second] = splitMix64(BigInt(seed), 2);
  return [
    Number(first & 0xffff_ffffn),
    Number(first >> 32n),
    Number(second & 0xffff_ffffn),
    Number(second >> 32n),
  ];
}

function checkedState(state: RandomState): RandomState {
  const isWord = (word: unknown) =>
    Number.isInteger(word) && (word as number) >= 0 && (word as number) < TWO_32;
  // The all-zero state is the one fixed point of the generator: it would return 0 for ever.
  if (
    !Array.isArray(state) || state.length !== 4 || !state.every(isWord) || state.every((word) => word === 0)
  ) {
    throw new RangeError(
      `Cannot restore a generator: expected four 32-bit words, not all zero, found ${JSON.stringify(state)}`,
    );
  }
  return state;
}

/**
 * A seed for one named part of a run, so that no two parts draw the same numbers and adding a part changes no other.
 *
 * @param seed the run's seed, a safe integer
 * @param path names or numbers of the part, for example `"loader", 3` for the order of epoch 3
 * @returns an integer, 0 .. 2^53 - 1, good for {@linkcode createRandom}
 * @throws {RangeError} a seed that is not a safe integer
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.notEqual(deriveSeed(1, "loader", 0), deriveSeed(1, "loader", 1));
 * ```
 */
export function deriveSeed(seed: number, ...path: (string | number)[]): number {
  if (!Number.isSafeInteger(seed)) {
    throw new RangeError(`Cannot derive a seed: expected a safe integer, found ${seed}`);
  }
  let word = splitMix64(BigInt(seed), 1)[0];
  // The text of the path keeps "1" and 1 apart, and ["ab"] from ["a", "b"].
  for (const character of JSON.stringify(path)) {
    word = splitMix64(word ^ BigInt(character.codePointAt(0)!), 1)[0];
  }
  return Number(word >> 11n);
}

/**
 * A uniform number in [0, 1), with 53 random bits (two words drawn).
 *
 * @param random the generator to draw from
 */
export function uniform(random: Random): number {
  const high = random.nextUint32() >>> 5;
  const low = random.nextUint32() >>> 6;
  return (high * 0x400_0000 + low) / 0x20_0000_0000_0000;
}

/**
 * A uniform integer in 0 .. bound - 1, without the bias of a bare remainder: words of the last, incomplete run of
 * `bound` are drawn again.
 *
 * @param random the generator to draw from
 * @param bound 1 .. 2^32
 * @throws {RangeError} a bound outside that range
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const die = uniformInt(createRandom(1), 6) + 1;
 * assert(die >= 1 && die <= 6);
 * ```
 */
export function uniformInt(random: Random, bound: number): number {
  if (!Number.isInteger(bound) || bound < 1 || bound > TWO_32) {
    throw new RangeError(`Cannot draw an integer: expected a bound of 1 to ${TWO_32}, found ${bound}`);
  }
  const limit = TWO_32 - (TWO_32 % bound);
  let word = random.nextUint32();
  while (word >= limit) word = random.nextUint32();
  return word % bound;
}

/**
 * Fill an array with independent normal numbers (Box and Muller's transform), for weights at the start of training.
 *
 * @param random the generator to draw from
 * @param options `target`: `[N]`, overwritten; `mean` (0) and `std` (1, not negative)
 * @returns `target`
 * @throws {RangeError} a mean or standard deviation that is not finite, or a negative standard deviation
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const weights = fillNormal(createRandom(1), { target: new Float32Array(8), std: 0.02 });
 * assert(weights.every((weight) => weight !== 0 && Math.abs(weight) < 0.2));
 * ```
 */
export function fillNormal<T extends Float32Array | Float64Array>(
  random: Random,
  options: { target: T; mean?: number; std?: number },
): T {
  const { target, mean = 0, std = 1 } = options;
  if (!Number.isFinite(mean) || !Number.isFinite(std) || std < 0) {
    throw new RangeError(
      `Cannot draw normal numbers: expected finite mean and std >= 0, found ${mean} and ${std}`,
    );
  }
  for (let i = 0; i < target.length; i += 2) {
    // 1 - u is in (0, 1], where the logarithm is finite.
    const radius = std * Math.sqrt(-2 * Math.log(1 - uniform(random)));
    const angle = 2 * Math.PI * uniform(random);
    target[i] = mean + radius * Math.cos(angle);
    if (i + 1 < target.length) target[i + 1] = mean + radius * Math.sin(angle);
  }
  return target;
}

/**
 * Shuffle in place, every order equally likely (Fisher and Yates).
 *
 * @param random the generator to draw from
 * @param items `[N]`, reordered
 * @returns `items`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(shuffle(createRandom(1), [3, 1, 2]).toSorted(), [1, 2, 3]);
 * ```
 */
export function shuffle<T extends unknown[] | Uint32Array>(random: Random, items: T): T {
  for (let i = items.length - 1; i > 0; i--) {
    const j = uniformInt(random, i + 1);
    [items[i], items[j]] = [items[j], items[i]];
  }
  return items;
}
