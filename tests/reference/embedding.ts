/**
 * Embedding lookup in plain f64.
 *
 * @module
 */
import { requireLengths } from "./shape.ts";

/** Tensors of an embedding lookup. */
export interface EmbeddingInputs {
  /** `[N]` token ids. */
  ids: ArrayLike<number>;
  /** `[V, C]` one row per token. */
  weight: Float64Array;
}

/** Sizes of an embedding lookup. */
export interface EmbeddingDims {
  /** Rows. */
  N: number;
  /** Vocabulary. */
  V: number;
  /** Hidden size. */
  C: number;
}

/**
 * Copies row ids[n] of the weight to row n.
 *
 * @param inputs Ids and weight.
 * @param dims Sizes.
 * @returns y `[N, C]`.
 * @throws {RangeError} When a length disagrees with the dimensions or an id is outside the vocabulary.
 */
export function forward({ ids, weight }: EmbeddingInputs, { N, V, C }: EmbeddingDims): { y: Float64Array } {
  requireLengths("embedding", { ids: [ids, N], weight: [weight, V * C] });
  const y = new Float64Array(N * C);
  for (let n = 0; n < N; n++) {
    requireId(ids[n], V);
    for (let c = 0; c < C; c++) y[n * C + c] = weight[ids[n] * C + c];
  }
  return { y };
}

/**
 * y[n] = weight[ids[n]], so dWeight[v] sums dY over the rows with id v.
 *
 * @param inputs Ids and weight.
 * @param dims Sizes.
 * @param upstream dY `[N, C]`.
 * @returns dWeight `[V, C]`, zero for ids that do not occur.
 * @throws {RangeError} When a length disagrees with the dimensions or an id is outside the vocabulary.
 */
export function backward(
  { ids, weight }: EmbeddingInputs,
  { N, V, C }: EmbeddingDims,
  { dY }: { dY: Float64Array },
): { dWeight: Float64Array } {
  requireLengths("embedding backward", { ids: [ids, N], weight: [weight, V * C], dY: [dY, N * C] });
  const dWeight = new Float64Array(V * C);
  for (let n = 0; n < N; n++) {
    requireId(ids[n], V);
    for (let c = 0; c < C; c++) dWeight[ids[n] * C + c] += dY[n * C + c];
  }
  return { dWeight };
}

function requireId(id: number, V: number): void {
  if (!(Number.isInteger(id) && id >= 0 && id < V)) {
    throw new RangeError(`Cannot look up an embedding: expected an id from 0 to ${V - 1}, found ${id}`);
  }
}
