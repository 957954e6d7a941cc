/**
 * Means, spreads and rank correlation.
 * @module
 */

/** A number over seeds. */
export interface Spread {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

/**
 * @param values at least one
 * @returns mean, smallest and largest
 * @throws {RangeError} on no values
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(spreadOf([1, 3]), { mean: 2, low: 1, high: 3 });
 * ```
 */
export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) {
    throw new RangeError("Cannot take a mean: expected at least one value, found none");
  }
  return {
    mean: values.reduce((total, value) => total + value, 0) / values.length,
    low: Math.min(...values),
    high: Math.max(...values),
  };
}

/**
 * Spearman's rank correlation; equal values share the mean of their ranks.
 *
 * @param x at least two values that are not all equal
 * @param y as many
 * @returns -1 to 1
 * @throws {RangeError} on other lengths, or where all values of one are equal
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(rankCorrelation([1, 2, 3], [10, 100, 1000]), 1);
 * ```
 */
export function rankCorrelation(x: readonly number[], y: readonly number[]): number {
  if (x.length !== y.length || x.length < 2) {
    throw new RangeError(
      `Cannot correlate: expected two lists of one length, found ${x.length} and ${y.length}`,
    );
  }
  const [a, b] = [centred(ranks(x)), centred(ranks(y))];
  const product = (p: readonly number[], q: readonly number[]) =>
    p.reduce((total, value, index) => total + value * q[index], 0);
  const norm = Math.sqrt(product(a, a) * product(b, b));
  if (norm === 0) throw new RangeError("Cannot correlate: expected values that differ, found equal ones");
  return product(a, b) / norm;
}

function centred(values: readonly number[]): number[] {
  const { mean } = spreadOf(values);
  return values.map((value) => value - mean);
}

function ranks(values: readonly number[]): number[] {
  const order = values.map((_, index) => index).sort((a, b) => values[a] - values[b]);
  const found = new Array<number>(values.length);
  for (let start = 0; start < order.length;) {
    let end = start;
    while (end < order.length && values[order[end]] === values[order[start]]) end++;
    for (let at = start; at < end; at++) found[order[at]] = (start + end - 1) / 2;
    start = end;
  }
  return found;
}
