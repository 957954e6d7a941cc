/**
 * Sigmoid and its logarithm, accurate for arguments of any size.
 *
 * @module
 */

/**
 * 1 / (1 + e^-x). Far out on the negative side e^-x is Infinity and the result 0, as it should be.
 *
 * @param x Any number.
 * @returns A number from 0 to 1.
 */
export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/**
 * log(sigmoid(x)) = min(x, 0) - log1p(e^-|x|): exact to rounding where log(sigmoid(x)) would be -Infinity or 0.
 *
 * @param x Any number.
 * @returns A number that is 0 or less.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(logSigmoid(0), -Math.log(2));
 * assert.equal(logSigmoid(-1000), -1000);
 * ```
 */
export function logSigmoid(x: number): number {
  return Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));
}
