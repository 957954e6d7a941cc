/**
 * Repeated measurements and what is said of them.
 * @module
 */

/** Repeated measurements of one quantity. */
export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** In the order they were taken. */
  readonly samples: readonly number[];
}

/**
 * @param samples at least one
 * @returns their median (the mean of the middle two where their number is even), least and greatest
 * @throws {RangeError} when there is none, or one is not finite
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(summarize([3, 1, 10]).median, 3);
 * assert.equal(summarize([4, 1, 10, 2]).median, 3);
 * ```
 */
export function summarize(samples: readonly number[]): Summary {
  if (samples.length === 0 || !samples.every(Number.isFinite)) {
    throw new RangeError(
      `Cannot summarize measurements: expected finite numbers, found ${samples.join(", ") || "none"}`,
    );
  }
  const sorted = samples.toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return { median: (low + high) / 2, min: sorted[0], max: sorted[sorted.length - 1], samples: [...samples] };
}
