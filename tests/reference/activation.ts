/**
 * An activation function of rows with a bias, in plain f64. SiLU: arXiv 1702.03118; GELU with tanh: arXiv 1606.08415.
 *
 * @module
 */
import { sigmoid } from "./log_sigmoid.ts";
import { requireLengths } from "./shape.ts";

/** Tensors of an activation. */
export interface ActivationInputs {
  /** `[N, C]` rows. */
  x: Float64Array;
  /** `[C]` added to every row. */
  bias: Float64Array;
}

/** Sizes of an activation, and which function. */
export interface ActivationDims {
  /** Rows. */
  N: number;
  /** Columns. */
  C: number;
  /** The function. */
  kind: "silu" | "gelu_tanh";
}

/** Value and slope of each function. */
const FUNCTIONS = {
  silu: (v: number) => ({ value: v * sigmoid(v), slope: sigmoid(v) * (1 + v * sigmoid(-v)) }),
  gelu_tanh: (v: number) => {
    const factor = Math.sqrt(2 / Math.PI);
    const t = Math.tanh(factor * (v + 0.044715 * v ** 3));
    const slope = 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * factor * (1 + 3 * 0.044715 * v * v);
    return { value: 0.5 * v * (1 + t), slope };
  },
};

/**
 * y = act(x + bias).
 *
 * @param inputs Rows and bias.
 * @param dims Sizes and function.
 * @returns y `[N, C]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(
  { x, bias }: ActivationInputs,
  { N, C, kind }: ActivationDims,
): { y: Float64Array } {
  requireLengths("activation", { x: [x, N * C], bias: [bias, C] });
  return { y: x.map((value, i) => FUNCTIONS[kind](value + bias[i % C]).value) };
}

/**
 * y = act(v), v = x + bias: dX = dY act'(v), dBias = sum over rows of dX.
 *
 * @param inputs Rows and bias.
 * @param dims Sizes and function.
 * @param upstream dY `[N, C]`.
 * @returns dX `[N, C]` and dBias `[C]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  { x, bias }: ActivationInputs,
  { N, C, kind }: ActivationDims,
  { dY }: { dY: Float64Array },
): { dX: Float64Array; dBias: Float64Array } {
  requireLengths("activation backward", { x: [x, N * C], bias: [bias, C], dY: [dY, N * C] });
  const dX = x.map((value, i) => dY[i] * FUNCTIONS[kind](value + bias[i % C]).slope);
  const dBias = new Float64Array(C);
  dX.forEach((value, i) => dBias[i % C] += value);
  return { dX, dBias };
}
