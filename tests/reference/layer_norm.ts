/**
 * Layer normalization in plain f64. Equation 4, arXiv 1607.06450, over each row, epsilon added to the variance.
 *
 * @module
 */
import { requireLengths } from "./shape.ts";

/** Tensors of a layer normalization. */
export interface LayerNormInputs {
  /** `[N, C]` rows to normalize. */
  x: Float64Array;
  /** `[C]` gain. */
  w: Float64Array;
  /** `[C]` added at the end. */
  b: Float64Array;
}

/** Sizes of a layer normalization. */
export interface LayerNormDims {
  /** Rows. */
  N: number;
  /** Hidden size. */
  C: number;
  /** Added to the variance. */
  eps: number;
}

/**
 * y = (x - m) r w + b with m = mean(x), r = 1 / sqrt(mean((x - m)^2) + eps), row by row.
 *
 * @param inputs Rows, gain and bias.
 * @param dims Sizes and epsilon.
 * @returns y `[N, C]`, the saved m as mean `[N]`, and r as rstd `[N]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(
  { x, w, b }: LayerNormInputs,
  { N, C, eps }: LayerNormDims,
): { y: Float64Array; mean: Float64Array; rstd: Float64Array } {
  requireLengths("layer_norm", { x: [x, N * C], w: [w, C], b: [b, C] });
  const y = new Float64Array(N * C);
  const [mean, rstd] = [new Float64Array(N), new Float64Array(N)];
  for (let n = 0; n < N; n++) {
    const row = x.subarray(n * C, (n + 1) * C);
    mean[n] = row.reduce((sum, value) => sum + value, 0) / C;
    const variance = row.reduce((sum, value) => sum + (value - mean[n]) ** 2, 0) / C;
    rstd[n] = 1 / Math.sqrt(variance + eps);
    for (let c = 0; c < C; c++) y[n * C + c] = (row[c] - mean[n]) * rstd[n] * w[c] + b[c];
  }
  return { y, mean, rstd };
}

/**
 * y = z w + b, z = (x - m) r: with g = dY w, dX = r (g - mean(g) - z mean(g z)); dW = sum over n of dY z, dB of dY.
 *
 * @param inputs Rows, gain and bias.
 * @param dims Sizes and epsilon.
 * @param upstream dY `[N, C]`.
 * @returns dX `[N, C]`, dW `[C]` and dB `[C]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  { x, w, b }: LayerNormInputs,
  dims: LayerNormDims,
  { dY }: { dY: Float64Array },
): { dX: Float64Array; dW: Float64Array; dB: Float64Array } {
  const { N, C } = dims;
  requireLengths("layer_norm backward", { dY: [dY, N * C] });
  const { mean, rstd } = forward({ x, w, b }, dims);
  const dX = new Float64Array(N * C);
  const [dW, dB] = [new Float64Array(C), new Float64Array(C)];
  for (let n = 0; n < N; n++) {
    const z = (c: number) => (x[n * C + c] - mean[n]) * rstd[n];
    let [sum, projection] = [0, 0];
    for (let c = 0; c < C; c++) {
      sum += dY[n * C + c] * w[c];
      projection += dY[n * C + c] * w[c] * z(c);
    }
    for (let c = 0; c < C; c++) {
      const i = n * C + c;
      dX[i] = rstd[n] * (dY[i] * w[c] - sum / C - z(c) * projection / C);
      dW[c] += dY[i] * z(c);
      dB[c] += dY[i];
    }
  }
  return { dX, dW, dB };
}
