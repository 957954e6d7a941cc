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

/** Sizes of packed rows. */
export interface PackedDims {
  /** Rows. */
  N: number;
  /** Columns of the result. */
  F: number;
}

/**
 * y = silu(gate) up, where a row is its gate, then its up.
 *
 * @param inputs gateUp `[N, 2 F]`.
 * @param dims Sizes.
 * @returns y `[N, F]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function packedForward({ gateUp }: { gateUp: Float64Array }, dims: PackedDims): { y: Float64Array } {
  return forward(unpacked(gateUp, dims), { length: dims.N * dims.F });
}

/**
 * The gradients of both halves, side by side as they were.
 *
 * @param inputs gateUp `[N, 2 F]`.
 * @param dims Sizes.
 * @param upstream dY `[N, F]`.
 * @returns dGateUp `[N, 2 F]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function packedBackward(
  { gateUp }: { gateUp: Float64Array },
  dims: PackedDims,
  upstream: { dY: Float64Array },
): { dGateUp: Float64Array } {
  const { N, F } = dims;
  const { dGate, dUp } = backward(unpacked(gateUp, dims), { length: N * F }, upstream);
  const dGateUp = new Float64Array(gateUp.length);
  for (let n = 0; n < N; n++) {
    dGateUp.set(dGate.subarray(n * F, (n + 1) * F), 2 * n * F);
    dGateUp.set(dUp.subarray(n * F, (n + 1) * F), (2 * n + 1) * F);
  }
  return { dGateUp };
}

function unpacked(gateUp: Float64Array, { N, F }: PackedDims): SwigluInputs {
  requireLengths("swiglu", { gateUp: [gateUp, 2 * N * F] });
  const half = (first: number) =>
    Float64Array.from({ length: N * F }, (_, i) => gateUp[Math.floor(i / F) * 2 * F + first + i % F]);
  return { gate: half(0), up: half(F) };
}
