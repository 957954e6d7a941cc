/**
 * Refuses arrays whose length disagrees with the dimensions. Without it a wrong call reads `undefined`, and a comparison
 * of NaN with NaN is easy to get wrong.
 *
 * @module
 */

/**
 * Checks that each named array has the given number of elements.
 *
 * @param op Name of the op, for the message.
 * @param lengths For each tensor: the array, then the element count that the dimensions ask for.
 * @throws {RangeError} When a length differs.
 */
export function requireLengths(op: string, lengths: Record<string, [ArrayLike<unknown>, number]>): void {
  for (const [name, [array, expected]] of Object.entries(lengths)) {
    if (array.length !== expected) {
      throw new RangeError(
        `Cannot compute ${op}: expected ${name} of ${expected} elements, found ${array.length}`,
      );
    }
  }
}

/**
 * Checks that offsets start at 0, never decrease, and end at the number of rows.
 *
 * @param offsets `[S + 1]` first row of each sequence, then the row count.
 * @param N Number of rows.
 * @throws {RangeError} When they do not cover the rows exactly.
 */
export function requireOffsets(offsets: ArrayLike<number>, N: number): void {
  const shown = `[${Array.from(offsets).join(", ")}]`;
  if (offsets.length < 1 || offsets[0] !== 0 || offsets[offsets.length - 1] !== N) {
    throw new RangeError(`Cannot read sequence offsets: expected them to run from 0 to ${N}, found ${shown}`);
  }
  for (let s = 1; s < offsets.length; s++) {
    if (!(offsets[s] >= offsets[s - 1])) {
      throw new RangeError(`Cannot read sequence offsets: expected no decrease, found ${shown}`);
    }
  }
}
