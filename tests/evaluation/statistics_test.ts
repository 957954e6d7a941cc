import assert from "node:assert/strict";
import { meanOf, proportionOf } from "../../train/evaluation/statistics.ts";

const outcomes = (right: number, count: number) => Array.from({ length: count }, (_, i) => i < right);
const near = (found: number, expected: number) =>
  assert.ok(Math.abs(found - expected) < 1e-9, `${found} is not ${expected}`);

Deno.test("the Wilson interval's ends solve (p - value)^2 = z^2 p (1 - p) / n", () => {
  const z = 1.959963984540054;
  for (const [right, count] of [[0, 1], [1, 1], [0, 8], [3, 7], [50, 100], [999, 1000]]) {
    const { value, low, high } = proportionOf(outcomes(right, count));
    assert.equal(value, right / count);
    for (const end of [low, high]) near((end - value) ** 2, z * z * end * (1 - end) / count);
    assert.ok(low <= value && value <= high && low >= 0 && high <= 1 && low < high);
  }
});

Deno.test("the Wilson interval of 81 in 263 is the textbook's", () => {
  // Newcombe, Statistics in Medicine 17 (1998), Table I, method 3.
  const { low, high } = proportionOf(outcomes(81, 263));
  assert.deepEqual([low.toFixed(4), high.toFixed(4)], ["0.2553", "0.3662"]);
});

Deno.test("a mean's standard error is that of its sample", () => {
  const { value, standardError } = meanOf([2, 4, 4, 4, 5, 5, 7, 9]);
  assert.equal(value, 5);
  near(standardError!, Math.sqrt(32 / 7 / 8));
  assert.throws(() => meanOf([]), RangeError);
  assert.throws(() => proportionOf([]), RangeError);
});
