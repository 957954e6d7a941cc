/**
 * Numbers of a dispatch that may change between replays of a recorded graph.
 * @module
 */

/** A number of a dispatch. A function is asked again each time that a recorded graph is replayed. */
export type Scalar = number | (() => number);

/**
 * A number that follows from others, asked again whenever one of them is.
 *
 * @param from what it follows from
 * @param of computes it, in f64
 * @returns a number where all of `from` are numbers, else a function
 */
export function derive(from: readonly Scalar[], of: (...values: number[]) => number): Scalar {
  const now = () => of(...from.map(valueOf));
  return from.every((scalar) => typeof scalar === "number") ? now() : now;
}

/** A condition that a kernel reads as 1 or 0. A function is asked again at each replay, as for {@link Scalar}. */
export type Flag = boolean | (() => boolean);

/** 1 or 0. */
export function flagScalar(flag: Flag): Scalar {
  return typeof flag === "function" ? () => (flag() ? 1 : 0) : flag ? 1 : 0;
}

/** A scalar's value now. */
export function valueOf(scalar: Scalar): number {
  return typeof scalar === "number" ? scalar : scalar();
}
