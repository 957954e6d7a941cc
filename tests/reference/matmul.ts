/**
 * Matrix product in plain f64.
 *
 * @module
 */
import { requireLengths } from "./shape.ts";

/** Tensors of a matrix product. */
export interface MatmulInputs {
  /** `[M, K]`, or `[K, M]` with `transposeA`. */
  a: Float64Array;
  /** `[K, N]`, or `[N, K]` with `transposeB`. */
  b: Float64Array;
}

/** Sizes of the product: C is `[M, N]`, K is summed. */
export interface MatmulDims {
  /** Rows of C. */
  M: number;
  /** Columns of C. */
  N: number;
  /** Summed dimension. */
  K: number;
  /** `a` is stored transposed. */
  transposeA?: boolean;
  /** `b` is stored transposed. */
  transposeB?: boolean;
}

/**
 * C = op(A) op(B).
 *
 * @param inputs The two matrices as stored.
 * @param dims Sizes and transpositions.
 * @returns c `[M, N]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward({ a, b }: MatmulInputs, dims: MatmulDims): { c: Float64Array } {
  const { M, N, K } = dims;
  requireLengths("matmul", { a: [a, M * K], b: [b, K * N] });
  const c = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      for (let k = 0; k < K; k++) c[m * N + n] += a[indexA(dims, m, k)] * b[indexB(dims, k, n)];
    }
  }
  return { c };
}

/**
 * C[m,n] = sum_k A[m,k] B[k,n], so dA[m,k] = sum_n dC[m,n] B[k,n] and dB[k,n] = sum_m A[m,k] dC[m,n].
 *
 * @param inputs The two matrices as stored.
 * @param dims Sizes and transpositions.
 * @param upstream dC `[M, N]`.
 * @returns dA and dB, stored as a and b are.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  { a, b }: MatmulInputs,
  dims: MatmulDims,
  { dC }: { dC: Float64Array },
): { dA: Float64Array; dB: Float64Array } {
  const { M, N, K } = dims;
  requireLengths("matmul backward", { a: [a, M * K], b: [b, K * N], dC: [dC, M * N] });
  const dA = new Float64Array(a.length);
  const dB = new Float64Array(b.length);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      for (let k = 0; k < K; k++) {
        dA[indexA(dims, m, k)] += dC[m * N + n] * b[indexB(dims, k, n)];
        dB[indexB(dims, k, n)] += a[indexA(dims, m, k)] * dC[m * N + n];
      }
    }
  }
  return { dA, dB };
}

function indexA({ M, K, transposeA }: MatmulDims, m: number, k: number): number {
  return transposeA ? k * M + m : m * K + k;
}

function indexB({ N, K, transposeB }: MatmulDims, k: number, n: number): number {
  return transposeB ? n * K + k : k * N + n;
}

/** What a product adds and how it is scaled. */
export interface EpilogueInputs extends MatmulInputs {
  /** `[N]`, added to every row. */
  bias: Float64Array;
  /** `[M, N]`, added. */
  residual: Float64Array;
}

/**
 * C = scale op(A) op(B) + bias + residual.
 *
 * @param inputs The two matrices as stored, the bias and the residual.
 * @param dims Sizes, transpositions and the scale.
 * @returns c `[M, N]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function epilogueForward(
  { bias, residual, ...operands }: EpilogueInputs,
  dims: MatmulDims & { scale: number },
): { c: Float64Array } {
  const { M, N, scale } = dims;
  requireLengths("matmul epilogue", { bias: [bias, N], residual: [residual, M * N] });
  const { c } = forward(operands, dims);
  return { c: c.map((value, i) => scale * value + bias[i % N] + residual[i]) };
}

/**
 * C = scale op(A) op(B) + bias + residual: dA and dB are scale times those of the plain product, dBias[n] = sum_m
 * dC[m,n], dResidual = dC.
 *
 * @param inputs The two matrices as stored, the bias and the residual.
 * @param dims Sizes, transpositions and the scale.
 * @param upstream dC `[M, N]`.
 * @returns The gradients, each as its input is stored.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function epilogueBackward(
  inputs: EpilogueInputs,
  dims: MatmulDims & { scale: number },
  { dC }: { dC: Float64Array },
): { dA: Float64Array; dB: Float64Array; dBias: Float64Array; dResidual: Float64Array } {
  const { M, N, scale } = dims;
  const { dA, dB } = backward(inputs, dims, { dC: dC.map((value) => scale * value) });
  const dBias = new Float64Array(N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) dBias[n] += dC[m * N + n];
  }
  return { dA, dB, dBias, dResidual: dC };
}
