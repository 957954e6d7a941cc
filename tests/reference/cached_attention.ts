/**
 * Attention over a key/value cache in plain f64. Equation 1, arXiv 1706.03762; grouped queries, arXiv 2305.13245.
 *
 * @module
 */

/** Sizes. Query head h reads kv head floor(h / (H / K)). */
export interface CacheDims {
  /** Slots of the cache. */
  S: number;
  /** Query heads. */
  H: number;
  /** Key and value heads. */
  K: number;
  /** Head size. */
  D: number;
}

/** Tokens and what is there of their sequences. */
export interface CachedAttentionInputs {
  /** `[N, (H + 2 K) D]` */
  qkv: ArrayLike<number>;
  /** `[P, S, 2 K D]` */
  cache: ArrayLike<number>;
  /** `[N]`, S or more for padding. */
  slots: ArrayLike<number>;
  /** `[N]` */
  positions: ArrayLike<number>;
}

/** cache[positions[n], slots[n]] = k, v of token n. */
export function writeCache(inputs: CachedAttentionInputs, { S, H, K, D }: CacheDims): Float64Array {
  const cache = Float64Array.from(inputs.cache);
  for (let n = 0; n < inputs.slots.length; n++) {
    if (inputs.slots[n] >= S) continue;
    for (let c = 0; c < 2 * K * D; c++) {
      cache[(inputs.positions[n] * S + inputs.slots[n]) * 2 * K * D + c] =
        inputs.qkv[n * (H + 2 * K) * D + H * D + c];
    }
  }
  return cache;
}

/** out[n, h] = sum over j <= positions[n] of softmax_j(q k_j / sqrt(D)) v_j in the token's slot; zero for padding. */
export function cachedAttention(inputs: CachedAttentionInputs, { S, H, K, D }: CacheDims): Float64Array {
  const { qkv, cache, slots, positions } = inputs;
  const out = new Float64Array(slots.length * H * D);
  for (let n = 0; n < slots.length; n++) {
    if (slots[n] >= S) continue;
    for (let h = 0; h < H; h++) {
      const g = Math.floor(h * K / H);
      const key = (j: number, d: number) => cache[((j * S + slots[n]) * 2 * K + g) * D + d];
      const value = (j: number, d: number) => cache[((j * S + slots[n]) * 2 * K + K + g) * D + d];
      const scores = Array.from({ length: positions[n] + 1 }, (_, j) => {
        let score = 0;
        for (let d = 0; d < D; d++) score += qkv[(n * (H + 2 * K) + h) * D + d] * key(j, d);
        return score / Math.sqrt(D);
      });
      const largest = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - largest));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      weights.forEach((weight, j) => {
        for (let d = 0; d < D; d++) out[(n * H + h) * D + d] += weight / total * value(j, d);
      });
    }
  }
  return out;
}
