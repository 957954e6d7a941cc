/**
 * Two products and a SwiGLU in plain f64. Equation 6, arXiv 2002.05202.
 *
 * @module
 */
import * as matmul from "./matmul.ts";
import * as swiglu from "./swiglu.ts";

/** Tensors of the op. */
export interface SwigluLinearInputs {
  /** `[N, C]`. */
  x: Float64Array;
  /** `[2 F, C]`: the gate's rows, then those of up. */
  weight: Float64Array;
}

/** Sizes of the op. */
export interface SwigluLinearDims {
  /** Rows. */
  N: number;
  /** Columns of the result. */
  F: number;
  /** Columns of x. */
  C: number;
}

/**
 * y = silu(x Wg^T) (x Wu^T).
 *
 * @param inputs x and the weight.
 * @param dims Sizes.
 * @returns y `[N, F]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(inputs: SwigluLinearInputs, dims: SwigluLinearDims): { y: Float64Array } {
  return swiglu.forward(gateAndUp(inputs, dims), { length: dims.N * dims.F });
}

/**
 * g = x Wg^T, u = x Wu^T: dx = dg Wg + du Wu, dWg = dg^T x, dWu = du^T x.
 *
 * @param inputs x and the weight.
 * @param dims Sizes.
 * @param upstream dY `[N, F]`.
 * @returns dX and dWeight.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  inputs: SwigluLinearInputs,
  dims: SwigluLinearDims,
  { dY }: { dY: Float64Array },
): { dX: Float64Array; dWeight: Float64Array } {
  const { dGate, dUp } = swiglu.backward(gateAndUp(inputs, dims), { length: dims.N * dims.F }, { dY });
  const parts = [dGate, dUp].map((dC, half) =>
    matmul.backward({ a: inputs.x, b: halfOf(inputs.weight, half) }, productDims(dims), { dC })
  );
  return {
    dX: parts[0].dA.map((value, i) => value + parts[1].dA[i]),
    dWeight: Float64Array.of(...parts[0].dB, ...parts[1].dB),
  };
}

function gateAndUp({ x, weight }: SwigluLinearInputs, dims: SwigluLinearDims): swiglu.SwigluInputs {
  const [gate, up] = [0, 1].map((half) =>
    matmul.forward({ a: x, b: halfOf(weight, half) }, productDims(dims)).c
  );
  return { gate, up };
}

function halfOf(weight: Float64Array, half: number): Float64Array {
  const size = weight.length / 2;
  return weight.subarray(half * size, (half + 1) * size);
}

function productDims({ N, F, C }: SwigluLinearDims): matmul.MatmulDims {
  return { M: N, N: F, K: C, transposeB: true };
}
