/**
 * Shapes and the one error about them.
 * @module
 */

/** A tensor's extents, outermost first; row-major. */
export type Shape = readonly number[];

/**
 * A tensor whose shape an operation cannot take.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.throws(() => expectShape("add", "b", [3], [2]), ShapeError);
 * ```
 */
export class ShapeError extends TypeError {
  /** The class, as messages print it. */
  override name = "ShapeError";
}

/**
 * Number of elements of a shape.
 *
 * @param shape any; `[]` is a scalar
 * @returns the product of its extents
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(sizeOf([2, 3]), 6);
 * assert.equal(sizeOf([]), 1); // a scalar
 * ```
 */
export function sizeOf(shape: Shape): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/**
 * Checks a shape against the expected one, where -1 stands for any extent.
 *
 * @throws {ShapeError} naming the operation, the operand and both shapes
 */
export function expectShape(operation: string, operand: string, found: Shape, expected: Shape): void {
  const matches = found.length === expected.length &&
    expected.every((extent, axis) => extent === -1 || extent === found[axis]);
  if (!matches) {
    const wanted = expected.map((extent) => (extent === -1 ? "any" : extent)).join(", ");
    throw new ShapeError(
      `Cannot run ${operation}: expected ${operand} of shape [${wanted}], found [${found.join(", ")}]`,
    );
  }
}
