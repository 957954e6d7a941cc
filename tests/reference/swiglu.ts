/**
 * Gated linear unit with SiLU in plain f64. Equation 6, arXiv 2002.05202.
 *
 * @module
 */
import { requireLengths } from "./shape.ts";
import * as silu from "./silu.ts";
import type { ElementwiseDims } from "./silu.ts";

/** Tensors of a SwiGLU. */
export interface SwigluInputs {
  /** `[length]` values that pass through SiLU. */
  gate: Float64Array;
  /** `[length]` values that are gated. */
  up: Float64Array;
}

/**
 * y = silu(gate) up.
 *
 * @param inputs Gate and up.
 * @param dims Size.
 * @returns y `[length]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward({ gate, up }: SwigluInputs, dims: ElementwiseDims): { y: Float64Array } {
  requireLengths("swiglu", { up: [up, dims.length] });
  return { y: silu.forward({ x: gate }, dims).y.map((value, i) => value * up[i]) };
}

/**
 * y = silu(gate) up, so dGate = dY up silu'(gate) and dUp = dY silu(gate).
 *
 * @param inputs Gate and up.
 * @param dims Size.
 * @param upstream dY `[length]`.
 * @returns dGate and dUp `[length]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  { gate, up }: SwigluInputs,
  dims: ElementwiseDims,
  { dY }: { dY: Float64Array },
): { dGate: Float64Array; dUp: Float64Array } {
  requireLengths("swiglu backward", { up: [up, dims.length], dY: [dY, dims.length] });
  const { y: activated } = silu.forward({ x: gate }, dims);
  const { dX: dGate } = silu.backward({ x: gate }, dims, { dY: dY.map((value, i) => value * up[i]) });
  return { dGate, dUp: dY.map((value, i) => value * activated[i]) };
}
