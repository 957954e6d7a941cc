/**
 * A linear layer with low-rank adapters in plain f64. Equation 3, arXiv 2106.09685.
 *
 * @module
 */
import * as matmul from "./matmul.ts";
import { requireLengths } from "./shape.ts";

/** Tensors of the op. */
export interface LoraLinearInputs {
  /** `[N, C]`. */
  x: Float64Array;
  /** `[O, C]`, or `[C, O]` with `isInOut`. */
  weight: Float64Array;
  /** `[G R, C]`: the first factors of G modules. */
  a: Float64Array;
  /** `[sum of the modules' columns, R]`: their second factors. */
  b: Float64Array;
  /** `[O]`. */
  bias: Float64Array;
  /** `[N, O]`. */
  residual: Float64Array;
}

/** Sizes of the op. */
export interface LoraLinearDims {
  /** Rows. */
  N: number;
  /** Columns of x. */
  C: number;
  /** Columns of the result. */
  O: number;
  /** The rank. */
  R: number;
  /** `[first, end)` of each module's columns. */
  modules: readonly (readonly [number, number])[];
  /** Factor of the adapters. */
  scale: number;
  /** How the weight is stored. */
  isInOut?: boolean;
}

/**
 * y = x W^T + bias + residual, and for the columns of module g: + scale (x A_g^T) B_g^T.
 *
 * @param inputs Tensors as stored.
 * @param dims Sizes.
 * @returns y `[N, O]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(inputs: LoraLinearInputs, dims: LoraLinearDims): { y: Float64Array } {
  const { N, O } = dims;
  const { x, bias, residual } = inputs;
  requireLengths("lora_linear", { bias: [bias, O], residual: [residual, N * O] });
  const y = matmul.forward({ a: x, b: wholeWeight(inputs, dims) }, productDims(dims)).c;
  return { y: y.map((value, i) => value + bias[i % O] + residual[i]) };
}

/**
 * y = x V^T + bias + residual, V_g = W_g + scale B_g A_g: dX = dY V, dW = dV = dY^T x, dB_g = scale dV_g A_g^T, dA_g =
 * scale B_g^T dV_g.
 *
 * @param inputs Tensors as stored.
 * @param dims Sizes.
 * @param upstream dY `[N, O]`.
 * @returns The gradients, each as its input is stored.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  inputs: LoraLinearInputs,
  dims: LoraLinearDims,
  { dY }: { dY: Float64Array },
): Record<"dX" | "dWeight" | "dA" | "dB" | "dBias" | "dResidual", Float64Array> {
  const { N, C, O, R, modules, scale, isInOut } = dims;
  const { x, a, b } = inputs;
  const { dA: dX, dB: dV } = matmul.backward({ a: x, b: wholeWeight(inputs, dims) }, productDims(dims), {
    dC: dY,
  });
  const [dA, dB] = [new Float64Array(a.length), new Float64Array(b.length)];
  let row = 0;
  modules.forEach(([first, end], g) => {
    for (let o = first; o < end; o++, row++) {
      for (let k = 0; k < R; k++) {
        for (let c = 0; c < C; c++) {
          dB[row * R + k] += scale * dV[o * C + c] * a[(g * R + k) * C + c];
          dA[(g * R + k) * C + c] += scale * dV[o * C + c] * b[row * R + k];
        }
      }
    }
  });
  const dBias = new Float64Array(O);
  for (let i = 0; i < N * O; i++) dBias[i % O] += dY[i];
  const dWeight = isInOut ? transposed(dV, { rows: O, columns: C }) : dV;
  return { dX, dWeight, dA, dB, dBias, dResidual: dY };
}

/** W + scale B A, `[O, C]`. */
function wholeWeight({ weight, a, b }: LoraLinearInputs, dims: LoraLinearDims): Float64Array {
  const { C, O, R, modules, scale, isInOut } = dims;
  const rows = modules.reduce((total, [first, end]) => total + end - first, 0);
  requireLengths("lora_linear", {
    weight: [weight, O * C],
    a: [a, modules.length * R * C],
    b: [b, rows * R],
  });
  const whole = isInOut ? transposed(weight, { rows: C, columns: O }) : weight.slice();
  let row = 0;
  modules.forEach(([first, end], g) => {
    for (let o = first; o < end; o++, row++) {
      for (let k = 0; k < R; k++) {
        for (let c = 0; c < C; c++) whole[o * C + c] += scale * b[row * R + k] * a[(g * R + k) * C + c];
      }
    }
  });
  return whole;
}

function transposed(
  matrix: Float64Array,
  { rows, columns }: { rows: number; columns: number },
): Float64Array {
  return Float64Array.from(
    { length: rows * columns },
    (_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)],
  );
}

function productDims({ N, O, C }: LoraLinearDims): matmul.MatmulDims {
  return { M: N, N: O, K: C, transposeB: true };
}
