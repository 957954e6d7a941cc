/**
 * Elementwise sum in plain f64.
 *
 * @module
 */
import { requireLengths } from "./shape.ts";
import type { ElementwiseDims } from "./silu.ts";

/** Tensors of a sum. */
export interface AddInputs {
  /** `[length]` first summand. */
  a: Float64Array;
  /** `[length]` second summand. */
  b: Float64Array;
}

/**
 * y = a + b.
 *
 * @param inputs The summands.
 * @param dims Size.
 * @returns y `[length]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward({ a, b }: AddInputs, { length }: ElementwiseDims): { y: Float64Array } {
  requireLengths("add", { a: [a, length], b: [b, length] });
  return { y: a.map((value, i) => value + b[i]) };
}

/**
 * y = a + b, so dA = dB = dY, as two arrays of their own.
 *
 * @param _inputs The summands, not needed.
 * @param dims Size.
 * @param upstream dY `[length]`.
 * @returns dA and dB `[length]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  _inputs: AddInputs,
  { length }: ElementwiseDims,
  { dY }: { dY: Float64Array },
): { dA: Float64Array; dB: Float64Array } {
  requireLengths("add backward", { dY: [dY, length] });
  return { dA: dY.slice(), dB: dY.slice() };
}
