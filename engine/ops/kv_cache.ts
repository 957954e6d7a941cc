/**
 * The key/value cache of a layer: what decoding keeps of the tokens before.
 * @module
 */
import { KV_CACHE_WORKGROUP, kvCacheWrite } from "../../shaders/kv_cache.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { refuseGradient } from "../tape.ts";
import { expectType, type Tensor } from "../tensor.ts";
import { activationStorage } from "./dispatch.ts";

/** Where tokens are in a cache, and how the columns of qkv are cut into heads. */
export interface CachePlace {
  /** D, a multiple of four. */
  readonly headDim: number;
  /** H, query heads. */
  readonly heads: number;
  /** K, key and value heads, a divisor of H. */
  readonly kvHeads: number;
  /** `[N]`, u32: the sequence's place in the cache, below S; any other number marks padding. */
  readonly slots: Tensor;
  /** `[N]`, u32: where each token is in its sequence, below P. */
  readonly positions: Tensor;
}

/**
 * cache[positions[n], slots[n]] = the keys and values of token n. Has no gradient.
 *
 * @param qkv `[N, (H + 2 K) D]`, f32 or f16: query, key and value heads, rotated already
 * @param cache `[P, S, 2 K D]`, stored as qkv
 * @param place no two tokens of one slot and position
 * @throws {ShapeError} when the shapes or types do not fit, or the op would be recorded on a tape
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { empty, fromHost, openGpu, toHost, upload } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const qkv = fromHost(gpu, Float32Array.of(0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8), { shape: [1, 12] });
 * const cache = fromHost(gpu, new Float32Array(16), { shape: [2, 1, 8] });
 * const [slots, positions] = [upload(gpu, Uint32Array.of(0)), upload(gpu, Uint32Array.of(1))];
 * writeCache(qkv, cache, { headDim: 4, heads: 1, kvHeads: 1, slots, positions });
 * assert.deepEqual([...await toHost(cache)].slice(8), [1, 2, 3, 4, 5, 6, 7, 8]);
 * ```
 */
export function writeCache(qkv: Tensor, cache: Tensor, place: CachePlace): void {
  const { tokens, rowQuads, kvQuads, slots } = checkCache("kv_cache", { qkv, cache, place });
  qkv.gpu.dispatch(kvCacheWrite, {
    constants: { storage: activationStorage("kv_cache", qkv) },
    bindings: {
      qkv: qkv.range,
      slots: place.slots.range,
      positions: place.positions.range,
      cache: cache.range,
    },
    params: { tokens, slots, row_quads: rowQuads, kv_quads: kvQuads },
    workgroups: Math.ceil(tokens * kvQuads / KV_CACHE_WORKGROUP),
  });
}

/**
 * Checks that tokens and a cache fit each other.
 *
 * @param operation names the op in errors
 * @param tensors the op's
 * @returns N, the quads of a row of qkv and of a slot at a position, P and S
 * @throws {ShapeError} when they do not, or the op would be recorded on a tape
 */
export function checkCache(
  operation: string,
  { qkv, cache, place }: { qkv: Tensor; cache: Tensor; place: CachePlace },
) {
  const { headDim, heads, kvHeads, slots, positions } = place;
  const positive = [headDim, heads, kvHeads].every((extent) => Number.isInteger(extent) && extent > 0);
  if (!positive || headDim % 4 !== 0 || heads % kvHeads !== 0) {
    throw new ShapeError(
      `Cannot run ${operation}: expected head_dim a multiple of 4, H a multiple of K, found head_dim ${headDim}, ` +
        `H ${heads}, K ${kvHeads}`,
    );
  }
  const [kvColumns, columns] = [2 * kvHeads * headDim, (heads + 2 * kvHeads) * headDim];
  expectShape(operation, "qkv", qkv.shape, [-1, columns]);
  expectShape(operation, "the cache", cache.shape, [-1, -1, kvColumns]);
  expectType(operation, "the cache", cache, qkv.type);
  const [tokens] = qkv.shape;
  expectShape(operation, "the slots", slots.shape, [tokens]);
  expectShape(operation, "the positions", positions.shape, [tokens]);
  refuseGradient(operation, qkv);
  return {
    tokens,
    rowQuads: columns / 4,
    kvQuads: kvColumns / 4,
    positions: cache.shape[0],
    slots: cache.shape[1],
  };
}
