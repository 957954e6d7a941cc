/**
 * RMS normalization of the query and key heads of packed queries, keys and values, in plain f64: Qwen3's q_norm and
 * k_norm (arXiv 2505.09388, section 2; the idea of query-key normalization is arXiv 2010.04245's).
 *
 * @module
 */
import * as rmsNorm from "./rms_norm.ts";
import { requireLengths } from "./shape.ts";

/** Tensors of the normalization. */
export interface HeadNormInputs {
  /** `[N, (H + 2 K) D]`: a row's query heads, key heads, value heads. */
  qkv: Float64Array;
  /** `[D]` gain of every query head. */
  q: Float64Array;
  /** `[D]` gain of every key head. */
  k: Float64Array;
}

/** Sizes of the normalization. */
export interface HeadNormDims {
  /** Rows. */
  N: number;
  /** Query heads. */
  H: number;
  /** Key heads, and as many value heads. */
  K: number;
  /** Head size. */
  D: number;
  /** Added to the mean square. */
  eps: number;
}

/** The heads of a row that share a gain: where they start, and how many. */
function parts({ H, K }: HeadNormDims): { gain: "q" | "k"; first: number; heads: number }[] {
  return [{ gain: "q", first: 0, heads: H }, { gain: "k", first: H, heads: K }];
}

/**
 * Each query head is normalized and multiplied by q, each key head by k; value heads stay as they are.
 *
 * @param inputs Packed heads and gains.
 * @param dims Sizes and epsilon.
 * @returns y `[N, (H + 2 K) D]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(inputs: HeadNormInputs, dims: HeadNormDims): { y: Float64Array } {
  const { N, H, K, D, eps } = dims;
  const total = H + 2 * K;
  requireLengths("head_norm", { qkv: [inputs.qkv, N * total * D], q: [inputs.q, D], k: [inputs.k, D] });
  const y = inputs.qkv.slice();
  for (const { gain, first, heads } of parts(dims)) {
    for (let n = 0; n < N; n++) {
      const start = (n * total + first) * D;
      const x = inputs.qkv.subarray(start, start + heads * D);
      y.set(rmsNorm.forward({ x, w: inputs[gain] }, { N: heads, C: D, eps }).y, start);
    }
  }
  return { y };
}

/**
 * As of an RMS normalization with heads for rows; the gains' gradients sum over all their heads of all rows.
 *
 * @param inputs Packed heads and gains.
 * @param dims Sizes and epsilon.
 * @param upstream dY `[N, (H + 2 K) D]`.
 * @returns dQkv `[N, (H + 2 K) D]`, dQ `[D]` and dK `[D]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  inputs: HeadNormInputs,
  dims: HeadNormDims,
  { dY }: { dY: Float64Array },
): { dQkv: Float64Array; dQ: Float64Array; dK: Float64Array } {
  const { N, H, K, D, eps } = dims;
  const total = H + 2 * K;
  requireLengths("head_norm backward", { dY: [dY, N * total * D] });
  const dQkv = dY.slice();
  const gains = { q: new Float64Array(D), k: new Float64Array(D) };
  for (const { gain, first, heads } of parts(dims)) {
    for (let n = 0; n < N; n++) {
      const [start, end] = [(n * total + first) * D, (n * total + first + heads) * D];
      const x = inputs.qkv.subarray(start, end);
      const upstream = { dY: dY.subarray(start, end) };
      const { dX, dW } = rmsNorm.backward({ x, w: inputs[gain] }, { N: heads, C: D, eps }, upstream);
      dQkv.set(dX, start);
      dW.forEach((value, d) => gains[gain][d] += value);
    }
  }
  return { dQkv, dQ: gains.q, dK: gains.k };
}
