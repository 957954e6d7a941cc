/**
 * Shares and means with how far they can be trusted.
 * @module
 */

/** A share of a number of independent trials. */
export interface Proportion {
  /** 0 to 1. */
  readonly value: number;
  /** Trials. */
  readonly count: number;
  /** Lower end of the Wilson interval, 95 %. */
  readonly low: number;
  /** Upper end. */
  readonly high: number;
}

/** A mean of a number of values. */
export interface Mean {
  /** It. */
  readonly value: number;
  /** Standard deviation of the values over the square root of their number; undefined for one value. */
  readonly standardError?: number;
}

/** Two-sided 95 % quantile of the normal distribution. */
const Z = 1.959963984540054;

/**
 * A share with its Wilson score interval, which unlike value +- 2 sqrt(p (1 - p) / n) stays within 0 to 1 and is
 * not empty at 0 and 1 (Wilson, JASA 22, 1927).
 *
 * @param outcomes whether each trial succeeded; at least one
 * @throws {RangeError} without trials
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { value, low, high } = proportionOf([true, true, false, true]);
 * assert.equal(value, 0.75);
 * assert(low > 0.30 && low < 0.301 && high > 0.954 && high < 0.955);
 * ```
 */
export function proportionOf(outcomes: readonly boolean[]): Proportion {
  const count = outcomes.length;
  if (count === 0) throw new RangeError("Cannot take a share: expected trials, found none");
  const value = outcomes.filter((outcome) => outcome).length / count;
  const scale = 1 + Z * Z / count;
  const centre = (value + Z * Z / (2 * count)) / scale;
  const half = Z * Math.sqrt(value * (1 - value) / count + Z * Z / (4 * count * count)) / scale;
  return { value, count, low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/**
 * A mean with its standard error.
 *
 * @param values at least one
 * @throws {RangeError} without values
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(meanOf([1, 3]), { value: 2, standardError: 1 });
 * assert.deepEqual(meanOf([5]), { value: 5 });
 * ```
 */
export function meanOf(values: readonly number[]): Mean {
  const count = values.length;
  if (count === 0) throw new RangeError("Cannot take a mean: expected values, found none");
  const value = values.reduce((sum, item) => sum + item, 0) / count;
  if (count === 1) return { value };
  const variance = values.reduce((sum, item) => sum + (item - value) ** 2, 0) / (count - 1);
  return { value, standardError: Math.sqrt(variance / count) };
}
