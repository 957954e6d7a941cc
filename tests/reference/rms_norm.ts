/**
 * Root-mean-square normalization in plain f64. Equation 4, arXiv 1910.07467, with epsilon as Llama adds it.
 *
 * @module
 */
import { requireLengths } from "./shape.ts";

/** Tensors of an RMS normalization. */
export interface RmsNormInputs {
  /** `[N, C]` rows to normalize. */
  x: Float64Array;
  /** `[C]` gain. */
  w: Float64Array;
}

/** Sizes of an RMS normalization. */
export interface RmsNormDims {
  /** Rows. */
  N: number;
  /** Hidden size. */
  C: number;
  /** Added to the mean square. */
  eps: number;
}

/**
 * y = x * r * w with r = 1 / sqrt(mean(x^2) + eps), row by row.
 *
 * @param inputs Rows and gain.
 * @param dims Sizes and epsilon.
 * @returns y `[N, C]`, and the saved r as rstd `[N]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(
  { x, w }: RmsNormInputs,
  { N, C, eps }: RmsNormDims,
): { y: Float64Array; rstd: Float64Array } {
  requireLengths("rms_norm", { x: [x, N * C], w: [w, C] });
  const y = new Float64Array(N * C);
  const rstd = new Float64Array(N);
  for (let n = 0; n < N; n++) {
    let sumSquares = 0;
    for (let c = 0; c < C; c++) sumSquares += x[n * C + c] ** 2;
    rstd[n] = 1 / Math.sqrt(sumSquares / C + eps);
    for (let c = 0; c < C; c++) y[n * C + c] = x[n * C + c] * rstd[n] * w[c];
  }
  return { y, rstd };
}

/**
 * y = x r w and dr/dx_j = -r^3 x_j / C, so dx_j = r w_j dy_j - (r^3 x_j / C) sum_c(dy_c w_c x_c) and
 * dw_c = sum_n dy x r.
 *
 * @param inputs Rows and gain.
 * @param dims Sizes and epsilon.
 * @param upstream dY `[N, C]`.
 * @returns dX `[N, C]` and dW `[C]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  { x, w }: RmsNormInputs,
  dims: RmsNormDims,
  { dY }: { dY: Float64Array },
): { dX: Float64Array; dW: Float64Array } {
  const { N, C } = dims;
  requireLengths("rms_norm backward", { dY: [dY, N * C] });
  const { rstd } = forward({ x, w }, dims);
  const dX = new Float64Array(N * C);
  const dW = new Float64Array(C);
  for (let n = 0; n < N; n++) {
    const r = rstd[n];
    let projection = 0;
    for (let c = 0; c < C; c++) projection += dY[n * C + c] * w[c] * x[n * C + c];
    for (let c = 0; c < C; c++) {
      const i = n * C + c;
      dX[i] = r * w[c] * dY[i] - r ** 3 * x[i] * projection / C;
      dW[c] += dY[i] * x[i] * r;
    }
  }
  return { dX, dW };
}
