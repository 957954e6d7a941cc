/**
 * Sigmoid linear unit in plain f64. arXiv 1702.03118.
 *
 * @module
 */
import { sigmoid } from "./log_sigmoid.ts";
import { requireLengths } from "./shape.ts";

/** Sizes of an elementwise op. */
export interface ElementwiseDims {
  /** Elements of each tensor. */
  length: number;
}

/**
 * y = x sigmoid(x).
 *
 * @param inputs x `[length]`.
 * @param dims Size.
 * @returns y `[length]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward({ x }: { x: Float64Array }, { length }: ElementwiseDims): { y: Float64Array } {
  requireLengths("silu", { x: [x, length] });
  return { y: x.map((value) => value * sigmoid(value)) };
}

/**
 * y = x sigmoid(x), so dX = dY (sigmoid(x) + x sigmoid(x) sigmoid(-x)).
 *
 * @param inputs x `[length]`.
 * @param dims Size.
 * @param upstream dY `[length]`.
 * @returns dX `[length]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  { x }: { x: Float64Array },
  { length }: ElementwiseDims,
  { dY }: { dY: Float64Array },
): { dX: Float64Array } {
  requireLengths("silu backward", { x: [x, length], dY: [dY, length] });
  return { dX: x.map((value, i) => dY[i] * sigmoid(value) * (1 + value * sigmoid(-value))) };
}
