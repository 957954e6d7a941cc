/**
 * Attention of new tokens over a key/value cache.
 * @module
 */
import {
  CACHE_BLOCK,
  CACHE_LANES,
  cachedAttentionBlocks,
  cachedAttentionCombine,
  cachedAttentionLanes,
  COMBINE_WORKGROUP,
} from "../../shaders/cached_attention.ts";
import type { Gpu } from "../gpu.ts";
import { ShapeError } from "../shape.ts";
import { empty, emptyLike, scope, type Tensor } from "../tensor.ts";
import { activationStorage, CPU_LOOP_LIMIT } from "./dispatch.ts";
import { type CachePlace, checkCache } from "./kv_cache.ts";

/** Wider heads would leave no lane for some columns of a result. */
const MAX_HEAD_DIM = 256;
/** Elements of results that a lane of a CPU adapter holds at most. */
const LANE_ELEMENTS = 128;
/** Workgroups to aim at by splitting the keys of few tokens over workgroups. */
const SPLIT_TO = 256;

/** How the keys are read. */
export interface CachedAttentionOptions extends CachePlace {
  /** Most keys that a token sees, the largest position + 1; the cache's P by default. What lies behind is not read. */
  readonly length?: number;
}

/**
 * out[n, h] = sum over j of softmax_j(q[n, h] . k[j, g] / sqrt(D)) v[j, g], g = floor(h K / H), over the keys of the
 * token's slot at positions up to its own: write the tokens' own keys first. Zero for padding. Has no gradient.
 *
 * @param qkv `[N, (H + 2 K) D]`, f32 or f16, rotated already; the queries are read
 * @param cache `[P, S, 2 K D]`, stored as qkv, as `writeCache` fills it
 * @param options heads, slots, positions, length
 * @returns `[N, H * D]`, stored as qkv
 * @throws {ShapeError} when the shapes or types do not fit, or the op would be recorded on a tape
 * @throws {RangeError} when there are more keys than this adapter's loops can do
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, upload } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * // Keys are zero, so both positions weigh the same; their values are 1 and 3.
 * const values = Float32Array.from({ length: 16 }, (_, i) => [0, 1, 0, 3][i >> 2]);
 * const cache = fromHost(gpu, values, { shape: [2, 1, 8] });
 * const qkv = fromHost(gpu, new Float32Array(12), { shape: [1, 12] });
 * const [slots, positions] = [upload(gpu, Uint32Array.of(0)), upload(gpu, Uint32Array.of(1))];
 * const out = cachedAttention(qkv, cache, { headDim: 4, heads: 1, kvHeads: 1, slots, positions });
 * assert.deepEqual([...await toHost(out)], [2, 2, 2, 2]);
 * ```
 */
export function cachedAttention(qkv: Tensor, cache: Tensor, options: CachedAttentionOptions): Tensor {
  const { headDim, heads, kvHeads } = options;
  const { tokens, slots, kvQuads, positions } = checkCache("cached_attention", {
    qkv,
    cache,
    place: options,
  });
  const length = options.length ?? positions;
  if (headDim > MAX_HEAD_DIM || length < 1 || length > positions) {
    throw new ShapeError(
      `Cannot run cached_attention: expected head_dim up to ${MAX_HEAD_DIM} and 1 to ${positions} keys, found ` +
        `head_dim ${headDim}, ${length} keys`,
    );
  }
  refuseLongCacheLoops(qkv.gpu, { headDim, length });
  const out = emptyLike(qkv, [tokens, heads * headDim], { type: qkv.type });
  const bytes = qkv.type === "f16" ? 2 : 4;
  const work = {
    out,
    length,
    positions,
    storage: activationStorage("cached_attention", qkv),
    bindings: {
      qkv: qkv.range,
      cache: { ...cache.range, sizeBytes: length * slots * kvQuads * 4 * bytes },
      slots: options.slots.range,
      positions: options.positions.range,
    },
    params: { heads, kv_heads: kvHeads, slots, scale: 1 / Math.sqrt(headDim) },
    options,
  };
  if (fitsLanes(qkv.gpu, headDim)) attendInLanes(work);
  else attendInBlocks(work);
  return out;
}

interface Work {
  readonly out: Tensor;
  readonly length: number;
  readonly positions: number;
  readonly storage: "f32" | "f16";
  readonly bindings: Record<"qkv" | "cache" | "slots" | "positions", Tensor["range"]>;
  readonly params: { heads: number; kv_heads: number; slots: number; scale: number };
  readonly options: CachePlace;
}

/** On a CPU adapter whose subgroup is a workgroup of the kernel. */
function fitsLanes({ adapter }: Gpu, headDim: number): boolean {
  return adapter.isCpu && adapter.subgroupSize === CACHE_LANES && headDim <= LANE_ELEMENTS;
}

function attendInLanes({ out, storage, bindings, params, options: { headDim } }: Work): void {
  const group = params.heads / params.kv_heads;
  let heads = Math.min(group, Math.max(1, Math.floor(LANE_ELEMENTS / headDim)));
  while (group % heads !== 0) heads--;
  out.gpu.dispatch(cachedAttentionLanes, {
    constants: { headDim, storage, heads },
    bindings: { ...bindings, out: out.range },
    params,
    workgroups: [out.shape[0], params.heads / heads],
  });
}

function attendInBlocks(
  { out, length, positions, storage, bindings, params, options: { headDim } }: Work,
): void {
  const { gpu, shape: [tokens] } = out;
  const { heads } = params;
  const splitsOf = (keys: number) =>
    Math.max(1, Math.min(Math.ceil(keys / CACHE_BLOCK), Math.ceil(SPLIT_TO / Math.max(1, tokens * heads))));
  const splitKeys = Math.ceil(length / splitsOf(length) / CACHE_BLOCK) * CACHE_BLOCK;
  const splits = Math.ceil(length / splitKeys);
  const attend = (target: Record<string, Tensor["range"]>) =>
    gpu.dispatch(cachedAttentionBlocks, {
      constants: { headDim, storage, split: splits > 1 },
      bindings: { ...bindings, ...target },
      params: { ...params, split_keys: splitKeys },
      workgroups: [tokens, heads * splits],
    });
  if (splits === 1) return attend({ out: out.range });
  scope(gpu, () => {
    // As for the longest: steps of every length find the same buffer.
    const partial = empty(gpu, [out.capacity, heads, splitsOf(positions), headDim + 4]);
    attend({ partial: partial.range });
    gpu.dispatch(cachedAttentionCombine, {
      constants: { headDim, storage },
      bindings: { partial: partial.range, out: out.range },
      params: { rows: tokens * heads, splits },
      workgroups: Math.ceil(tokens * heads * headDim / 4 / COMBINE_WORKGROUP),
    });
  });
}

/** Trips of the loops inside a block of keys, at most: the maximum's tree, then the values of a subset. */
const BLOCK_TRIPS = 6 + CACHE_BLOCK + 1;

/**
 * @throws {RangeError} when a software adapter would stop an invocation before its last key
 */
function refuseLongCacheLoops(gpu: Gpu, { headDim, length }: { headDim: number; length: number }): void {
  const iterations = fitsLanes(gpu, headDim)
    ? Math.ceil(length / CACHE_LANES)
    : Math.ceil(length / CACHE_BLOCK) * BLOCK_TRIPS;
  if (gpu.adapter.isCpu && iterations > CPU_LOOP_LIMIT) {
    throw new RangeError(
      `Cannot run cached_attention: expected at most ${CPU_LOOP_LIMIT} loop iterations on this software adapter, found ` +
        `${iterations} (${length} keys)`,
    );
  }
}
