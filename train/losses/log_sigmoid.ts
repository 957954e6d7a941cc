/**
 * log sigmoid for the constants of losses.
 * @module
 */

/** log sigmoid(x), without overflow. */
export function logSigmoid(x: number): number {
  return Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));
}
