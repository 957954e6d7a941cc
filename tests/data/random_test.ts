import assert from "node:assert/strict";
import {
  createRandom,
  deriveSeed,
  fillNormal,
  type RandomState,
  shuffle,
  splitMix64,
  uniform,
  uniformInt,
} from "../../train/random.ts";

const take = (count: number, next: () => number) => Array.from({ length: count }, next);

Deno.test("xoshiro128** from state 1, 2, 3, 4 gives the reference implementation's words", () => {
  const random = createRandom([1, 2, 3, 4]);
  assert.deepEqual(take(10, random.nextUint32), [
    11520,
    0,
    5927040,
    70819200,
    2031721883,
    1637235492,
    1287239034,
    3734860849,
    3729100597,
    4258142804,
  ]);
});

Deno.test("SplitMix64 from 1234567 gives the published words", () => {
  assert.deepEqual(splitMix64(1234567n, 3), [
    6457827717110365317n,
    3203168211198807973n,
    9817491932198370423n,
  ]);
});

Deno.test("a seed fills the state with SplitMix64's words, low halves first", () => {
  const words = splitMix64(1234567n, 2);
  const expected = words.flatMap((word) => [Number(word & 0xffffffffn), Number(word >> 32n)]);
  assert.deepEqual(createRandom(1234567).state(), expected);
});

Deno.test("a generator continues from its state, also after JSON", () => {
  const random = createRandom(5);
  take(7, random.nextUint32);
  const state: RandomState = JSON.parse(JSON.stringify(random.state()));
  const expected = take(20, random.nextUint32);
  assert.deepEqual(take(20, createRandom(state).nextUint32), expected);
});

Deno.test("bad seeds and states are refused", () => {
  for (const seed of [0.5, NaN, 2 ** 53]) {
    assert.throws(() => createRandom(seed), /expected a safe integer, found/);
  }
  for (const state of [[0, 0, 0, 0], [1, 2, 3], [1, 2, 3, -1], [1, 2, 3, 2 ** 32], "seed"]) {
    assert.throws(() => createRandom(state as unknown as RandomState), /four 32-bit words, not all zero/);
  }
});

Deno.test("derived seeds differ by seed, name, type and grouping, and repeat", () => {
  const seeds = [
    deriveSeed(1),
    deriveSeed(2),
    deriveSeed(-1),
    deriveSeed(1, "a"),
    deriveSeed(1, "b"),
    deriveSeed(1, "a", "b"),
    deriveSeed(1, "ab"),
    deriveSeed(1, 1),
    deriveSeed(1, "1"),
  ];
  assert.equal(new Set(seeds).size, seeds.length);
  assert.ok(seeds.every((seed) => Number.isSafeInteger(seed) && seed >= 0));
  assert.equal(deriveSeed(1, "a", "b"), seeds[5]);
});

Deno.test("uniform numbers use 53 bits, stay below 1 and have the mean and variance of the distribution", () => {
  const random = createRandom(3);
  const values = take(20_000, () => uniform(random));
  assert.ok(values.every((value) => value >= 0 && value < 1));
  // Six standard errors: a seed is fixed, so this never fails by chance.
  assert.ok(Math.abs(mean(values) - 0.5) < 6 * Math.sqrt(1 / 12 / 20_000));
  assert.ok(values.some((value) => value * 2 ** 32 !== Math.floor(value * 2 ** 32)));
  const almostOne = uniform({ nextUint32: () => 0xffffffff, state: () => [1, 1, 1, 1] });
  assert.equal(almostOne, 1 - 2 ** -53);
});

Deno.test("uniform integers redraw the words that would bias the remainder", () => {
  const words = [4294967295, 4294967294, 7];
  const random = { nextUint32: () => words.shift()!, state: (): RandomState => [1, 1, 1, 1] };
  // 2^32 = 3 * 1431655765 + 1: only the last word is outside the whole runs of three.
  assert.equal(uniformInt(random, 3), 4294967294 % 3);
  assert.deepEqual(words, [7]);
  assert.equal(uniformInt(random, 2 ** 32), 7);
});

Deno.test("uniform integers reach every value equally", () => {
  const random = createRandom(11);
  const counts = new Array(10).fill(0);
  for (let i = 0; i < 10_000; i++) counts[uniformInt(random, 10)]++;
  const chiSquared = counts.reduce((sum, count) => sum + (count - 1000) ** 2 / 1000, 0);
  assert.ok(chiSquared < 27.9, `chi squared ${chiSquared} with 9 degrees of freedom`); // p = 0.001
  for (const bound of [0, -1, 1.5, 2 ** 32 + 1]) assert.throws(() => uniformInt(random, bound), RangeError);
});

Deno.test("normal numbers have the mean, spread and tails asked for, in arrays of odd length too", () => {
  const values = fillNormal(createRandom(4), { target: new Float64Array(20_001), mean: 2, std: 3 });
  const average = mean([...values]);
  const variance = mean([...values].map((value) => (value - average) ** 2));
  assert.ok(Math.abs(average - 2) < 6 * 3 / Math.sqrt(20_001));
  assert.ok(Math.abs(variance - 9) < 6 * 9 * Math.sqrt(2 / 20_001));
  const outside = values.filter((value) => Math.abs(value - 2) > 6).length / values.length;
  assert.ok(Math.abs(outside - 0.0455) < 0.01);
  const covariance = mean([...values.slice(1)].map((value, i) => (value - average) * (values[i] - average)));
  assert.ok(Math.abs(covariance) < 6 * 9 / Math.sqrt(20_000));
  assert.ok(values.every((value) => value !== 0));
  for (const std of [-1, NaN]) {
    assert.throws(() => fillNormal(createRandom(4), { target: new Float32Array(2), std }), RangeError);
  }
});

Deno.test("a shuffle reaches all orders equally", () => {
  const random = createRandom(6);
  const counts = new Map<string, number>();
  for (let i = 0; i < 2400; i++) {
    const order = shuffle(random, ["a", "b", "c", "d"]).join("");
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  assert.equal(counts.size, 24);
  assert.ok(counts.keys().every((order) => [...order].toSorted().join("") === "abcd"));
  const chiSquared = [...counts.values()].reduce((sum, count) => sum + (count - 100) ** 2 / 100, 0);
  assert.ok(chiSquared < 49.7, `chi squared ${chiSquared} with 23 degrees of freedom`); // p = 0.001
});

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
