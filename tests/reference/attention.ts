/**
 * Causal grouped-query attention over packed sequences in plain f64. Equation 1, arXiv 1706.03762; grouped queries, arXiv
 * 2305.13245.
 *
 * @module
 */
import { requireLengths, requireOffsets } from "./shape.ts";

/** Tensors of an attention op. */
export interface AttentionInputs {
  /** `[N, H * D]` queries. */
  q: Float64Array;
  /** `[N, K * D]` keys. */
  k: Float64Array;
  /** `[N, K * D]` values. */
  v: Float64Array;
  /** `[S + 1]` first row of each sequence, then N. */
  sequenceOffsets: ArrayLike<number>;
  /** `[S]` the earlier sequence whose rows come before each one's own, or itself where none do; none by default. */
  prefixSegments?: ArrayLike<number>;
}

/** Sizes of an attention op. Query head h reads kv head floor(h / (H / K)). */
export interface AttentionDims {
  /** Rows of all sequences together. */
  N: number;
  /** Query heads. */
  H: number;
  /** Key and value heads, a divisor of H. */
  K: number;
  /** Head size. */
  D: number;
}

/** One query row of one head: where its numbers lie, and the key rows it attends to. */
interface QueryRow {
  /** Index into `[N, H]`. */
  row: number;
  /** First element in `[N, H * D]`. */
  query: number;
  /** First elements in `[N, K * D]` of each attended key, the row itself last. */
  keys: number[];
}

/**
 * out[n,h] = sum_j p_j v_j over the rows j of the prefix, the earlier rows of the same sequence and n itself,
 * p = softmax(q k_j / sqrt(D)).
 *
 * @param inputs Queries, keys, values and offsets.
 * @param dims Sizes.
 * @returns out `[N, H * D]`, and lse `[N, H]`, the log of the softmax's denominator.
 * @throws {RangeError} When a length or an offset disagrees with the dimensions.
 */
export function forward(
  inputs: AttentionInputs,
  dims: AttentionDims,
): { out: Float64Array; lse: Float64Array } {
  requireAttention(inputs, dims);
  const { v } = inputs;
  const { N, H, D } = dims;
  const out = new Float64Array(N * H * D);
  const lse = new Float64Array(N * H);
  for (const { row, query, keys } of queryRows(inputs, dims)) {
    const scores = scoresOf(inputs, { D, query, keys });
    const largest = Math.max(...scores);
    lse[row] = largest + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - largest), 0));
    keys.forEach((key, j) => {
      const p = Math.exp(scores[j] - lse[row]);
      for (let d = 0; d < D; d++) out[query + d] += p * v[key + d];
    });
  }
  return { out, lse };
}

/**
 * out = sum_j p_j v_j, s_j = q k_j / sqrt(D), p = softmax(s), so dV_j = p_j dOut, dP_j = dOut v_j,
 * dS_j = p_j (dP_j - dOut out), dQ = sum_j dS_j k_j / sqrt(D), dK_j = dS_j q / sqrt(D).
 *
 * @param inputs Queries, keys, values and offsets.
 * @param dims Sizes.
 * @param upstream dOut `[N, H * D]`.
 * @returns dQ `[N, H * D]`, dK and dV `[N, K * D]`, summed over the query heads of a group.
 * @throws {RangeError} When a length or an offset disagrees with the dimensions.
 */
export function backward(
  inputs: AttentionInputs,
  dims: AttentionDims,
  { dOut }: { dOut: Float64Array },
): { dQ: Float64Array; dK: Float64Array; dV: Float64Array } {
  const { q, k, v } = inputs;
  const { D } = dims;
  const { out, lse } = forward(inputs, dims);
  requireLengths("attention backward", { dOut: [dOut, out.length] });
  const dQ = new Float64Array(q.length);
  const dK = new Float64Array(k.length);
  const dV = new Float64Array(v.length);
  const scale = 1 / Math.sqrt(D);
  for (const { row, query, keys } of queryRows(inputs, dims)) {
    const scores = scoresOf(inputs, { D, query, keys });
    const delta = dot(dOut, query, { other: out, otherStart: query, D });
    keys.forEach((key, j) => {
      const p = Math.exp(scores[j] - lse[row]);
      const dScore = p * (dot(dOut, query, { other: v, otherStart: key, D }) - delta);
      for (let d = 0; d < D; d++) {
        dV[key + d] += p * dOut[query + d];
        dQ[query + d] += dScore * scale * k[key + d];
        dK[key + d] += dScore * scale * q[query + d];
      }
    });
  }
  return { dQ, dK, dV };
}

function* queryRows(
  { sequenceOffsets: offsets, prefixSegments }: AttentionInputs,
  { H, K, D }: AttentionDims,
): Generator<QueryRow> {
  for (let s = 0; s + 1 < offsets.length; s++) {
    const prefix = prefixSegments?.[s] ?? s;
    for (let n = offsets[s]; n < offsets[s + 1]; n++) {
      for (let h = 0; h < H; h++) {
        const kvHead = Math.floor(h / (H / K));
        const keys = [];
        if (prefix !== s) {
          for (let j = offsets[prefix]; j < offsets[prefix + 1]; j++) keys.push((j * K + kvHead) * D);
        }
        for (let j = offsets[s]; j <= n; j++) keys.push((j * K + kvHead) * D);
        yield { row: n * H + h, query: (n * H + h) * D, keys };
      }
    }
  }
}

function scoresOf(
  { q, k }: AttentionInputs,
  { D, query, keys }: { D: number; query: number; keys: number[] },
): number[] {
  return keys.map((key) => dot(q, query, { other: k, otherStart: key, D }) / Math.sqrt(D));
}

function dot(
  values: Float64Array,
  start: number,
  { other, otherStart, D }: { other: Float64Array; otherStart: number; D: number },
): number {
  let sum = 0;
  for (let d = 0; d < D; d++) sum += values[start + d] * other[otherStart + d];
  return sum;
}

function requireAttention(inputs: AttentionInputs, { N, H, K, D }: AttentionDims): void {
  const { q, k, v, sequenceOffsets } = inputs;
  requireLengths("attention", { q: [q, N * H * D], k: [k, N * K * D], v: [v, N * K * D] });
  requireOffsets(sequenceOffsets, N);
  if (H % K !== 0) {
    throw new RangeError(`Cannot group query heads: expected kv heads that divide ${H}, found ${K}`);
  }
}
