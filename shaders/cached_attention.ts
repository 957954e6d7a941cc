/**
 * Attention of queries over a key/value cache (see `kv_cache.ts`), for decoding: few queries, many keys each. A query
 * of slot s at position t sees the keys of that slot at 0 to t, so that several tokens of a sequence may come at once.
 *
 * In lanes, for CPU adapters: a workgroup is one subgroup and owns some query heads of a token that share a key head.
 * Each lane walks its share of the keys with its own running softmax, so that every load serves all of these heads; the
 * lanes meet once, at the end. In blocks, for GPUs: a workgroup owns one query head of a token and a range of keys. A lane
 * scores a key, then owns a column of the result; the ranges meet in a second kernel (flash decoding: the two-level
 * softmax of arXiv 1805.02867), because few tokens have too few heads to fill a GPU.
 * @module
 */
import { MASKED, SUM4, texelType } from "./attention.ts";
import { elementOf, input, type Kernel, output, type StorageBinding, texels } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { loadQuad, packQuad, quadType, storageFunctions } from "./storage.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** What every member is specialised on. */
export interface CachedAttentionShape {
  /** D, a multiple of four. */
  readonly headDim: number;
  /** Of qkv, cache and out. */
  readonly storage: "f32" | "f16";
}

/** What the kernel in lanes is specialised on. */
export interface CachedAttentionLanesConstants extends CachedAttentionShape {
  /** Query heads of a workgroup, a divisor of H / K: their results are in a lane's registers together. */
  readonly heads: number;
}

/** What the kernel in blocks is specialised on. */
export interface CachedAttentionBlocksConstants extends CachedAttentionShape {
  /** Whether the keys are split over workgroups, which {@link cachedAttentionCombine} joins. */
  readonly split: boolean;
}

/** Invocations of a workgroup in lanes, which must be one subgroup. */
export const CACHE_LANES = 8;
/** Invocations of a workgroup in blocks, and keys of a block. */
export const CACHE_BLOCK = 64;
/** Invocations of a workgroup of the second stage. */
export const COMBINE_WORKGROUP = 64;

const PARAMS = { heads: "u32", kv_heads: "u32", slots: "u32", scale: "f32" } as const;

const MATHS =
  `out[n, h] = sum over j of softmax_j(q[n, h] . k[j, g] scale) v[j, g], g = h K / H, over the keys j <= positions[n] of
    the slot slots[n]; zero for tokens whose slot is not below S, which are padding. qkv [N, (H + 2 K) D], of which q is
    read; cache [P, S, 2 K D]; slots, positions [N]; out [N, H D].`;

const sum = (count: number, term: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => term(index)).join(" + ");

/** In lanes: out in one kernel. */
export const cachedAttentionLanes: Kernel<CachedAttentionLanesConstants> = {
  name: "cached_attention_lanes",
  doc:
    `${MATHS} Grid: (N, H / heads). A workgroup owns \`heads\` query heads of a token; its lanes share the keys.`,
  build({ headDim, storage, heads }) {
    const quads = headDim / 4;
    const quad = quadType(storage);
    const staged: StorageBinding = texels(texelType(storage));
    const load = (index: string) => loadQuad(storage, elementOf(staged, "cache", index));
    const each = (fragment: (r: number) => string) => unroll(heads, fragment);
    const eachQuad = (fragment: (d: number) => string) => unroll(quads, fragment);
    return {
      bindings: {
        qkv: input(quad),
        cache: staged,
        slots: input("u32"),
        positions: input("u32"),
        out: output(quad),
      },
      params: PARAMS,
      workgroupSize: [CACHE_LANES, 1],
      declarations: storageFunctions(storage) + SUM4,
      body: wgsl`
let n = workgroup_id.x;
let h = workgroup_id.y * ${heads}u;
let g = h * p.kv_heads / p.heads;
let slot = slots[n];
let is_open = slot < p.slots;
let last = positions[n];
let kv_quads = 2u * p.kv_heads * ${quads}u;
let q_base = (n * (p.heads + 2u * p.kv_heads) + h) * ${quads}u;
${
        each((r) => `
${
          eachQuad((d) =>
            `let q${r}_${d} = ${loadQuad(storage, `qkv[q_base + ${r * quads + d}u]`)} * p.scale;
var o${r}_${d} = vec4f();`
          )
        }
var m${r} = ${MASKED};
var l${r} = 0.0;`)
      }
var j0 = select(last + 1u, 0u, is_open);
while (j0 <= last) {
  let j = j0 + local_id.x;
  let is_seen = j <= last;
  let base = (min(j, last) * p.slots + slot) * kv_quads + g * ${quads}u;
${eachQuad((d) => `let k_${d} = ${load(`base + ${d}u`)};`)}
${eachQuad((d) => `let v_${d} = ${load(`base + p.kv_heads * ${quads}u + ${d}u`)};`)}
${
        each((r) => `
let s${r} = select(${MASKED}, sum4(${sum(quads, (d) => `q${r}_${d} * k_${d}`)}), is_seen);
let m_new${r} = max(m${r}, s${r});
let rescale${r} = exp(m${r} - m_new${r});
let e${r} = select(0.0, exp(s${r} - m_new${r}), is_seen);
l${r} = l${r} * rescale${r} + e${r};
m${r} = m_new${r};
${eachQuad((d) => `o${r}_${d} = o${r}_${d} * rescale${r} + e${r} * v_${d};`)}`)
      }
  j0 += ${CACHE_LANES}u;
}
${
        each((r) => `
let share${r} = exp(m${r} - subgroupMax(m${r}));
let total${r} = subgroupAdd(l${r} * share${r});
${
          eachQuad((d) => `
let sum${r}_${d} = subgroupAdd(o${r}_${d} * share${r});
if (local_id.x == 0u) {
  out[(n * p.heads + h) * ${quads}u + ${r * quads + d}u] = ${
            packQuad(storage, `select(vec4f(), sum${r}_${d} / total${r}, is_open)`)
          };
}`)
        }`)
      }`,
    };
  },
};

/** In blocks: out, or the parts of it. */
export const cachedAttentionBlocks: Kernel<CachedAttentionBlocksConstants> = {
  name: "cached_attention_blocks",
  doc:
    `${MATHS} Grid: (N, H splits). A workgroup owns a query head of a token, and keys from split split_keys on. Where the
    keys are split, partial [N, H, splits, D + 4] holds for each range the sum of exp(s - m) v, then m and the sum of
    exp(s - m).`,
  build({ headDim, storage, split }) {
    const quads = headDim / 4;
    const subsets = Math.floor(CACHE_BLOCK / quads);
    const quad = quadType(storage);
    const load = (array: string, index: string) => loadQuad(storage, `${array}[${index}]`);
    return {
      bindings: {
        qkv: input(quad),
        cache: input(quad),
        slots: input("u32"),
        positions: input("u32"),
        ...(split ? { partial: output("vec4f") } : { out: output(quad) }),
      },
      params: { ...PARAMS, split_keys: "u32" },
      workgroupSize: [CACHE_BLOCK, 1],
      workgroupBytes: 16 * (quads + CACHE_BLOCK) + 4 * CACHE_BLOCK,
      declarations: wgsl`${storageFunctions(storage)}${SUM4}
var<workgroup> query: array<vec4f, ${quads}>;
var<workgroup> weights: array<f32, ${CACHE_BLOCK}>;
var<workgroup> sums: array<vec4f, ${CACHE_BLOCK}>;
fn over_lanes(value: f32, lane: u32, is_sum: bool) -> f32 {
  weights[lane] = value;
  workgroupBarrier();
  for (var stride = ${CACHE_BLOCK / 2}u; stride > 0u; stride >>= 1u) {
    if (lane < stride) {
      let other = weights[lane + stride];
      weights[lane] = select(max(weights[lane], other), weights[lane] + other, is_sum);
    }
    workgroupBarrier();
  }
  let total = weights[0];
  workgroupBarrier();
  return total;
}`,
      body: wgsl`
let lane = local_id.x;
let n = workgroup_id.x;
let h = workgroup_id.y % p.heads;
let range = workgroup_id.y / p.heads;
let g = h * p.kv_heads / p.heads;
let slot = slots[n];
let first = range * p.split_keys;
let end = min(select(0u, positions[n] + 1u, slot < p.slots), first + p.split_keys);
let kv_quads = 2u * p.kv_heads * ${quads}u;
let q_base = (n * (p.heads + 2u * p.kv_heads) + h) * ${quads}u;
for (var d = lane; d < ${quads}u; d += ${CACHE_BLOCK}u) { query[d] = ${load("qkv", "q_base + d")} * p.scale; }
workgroupBarrier();
let column = lane % ${quads}u;
let subset = lane / ${quads}u;
var m = ${MASKED};
var l = 0.0;
var o = vec4f();
for (var j0 = first; j0 < end; j0 += ${CACHE_BLOCK}u) {
  let j = j0 + lane;
  var s = ${MASKED};
  if (j < end) {
    let base = (j * p.slots + slot) * kv_quads + g * ${quads}u;
    var products = vec4f();
${unroll(quads, (d) => `products += query[${d}] * ${load("cache", `base + ${d}u`)};`)}
    s = sum4(products);
  }
  let m_new = max(m, over_lanes(s, lane, false));
  let rescale = exp(m - m_new);
  let e = select(0.0, exp(s - m_new), j < end);
  l = l * rescale + e;
  m = m_new;
  weights[lane] = e;
  workgroupBarrier();
  o *= rescale;
  if (subset < ${subsets}u) {
    for (var i = subset; i < min(${CACHE_BLOCK}u, end - j0); i += ${subsets}u) {
      let base = ((j0 + i) * p.slots + slot) * kv_quads + (p.kv_heads + g) * ${quads}u;
      o += weights[i] * ${load("cache", "base + column")};
    }
  }
  workgroupBarrier();
}
let total = over_lanes(l, lane, true);
sums[lane] = o;
workgroupBarrier();
if (lane < ${quads}u) {
  let value = ${sum(subsets, (i) => `sums[lane + ${i * quads}u]`)};
#if ${split}
  let ranges = num_workgroups.y / p.heads;
  let at = ((n * p.heads + h) * ranges + range) * ${quads + 1}u;
  partial[at + lane] = value;
  if (lane == 0u) { partial[at + ${quads}u] = vec4f(m, total, 0.0, 0.0); }
#else
  out[(n * p.heads + h) * ${quads}u + lane] = ${
        packQuad(storage, "select(vec4f(), value / total, total > 0.0)")
      };
#endif
}`,
    };
  },
};

/** The second stage: joins the ranges of keys. */
export const cachedAttentionCombine: Kernel<CachedAttentionShape> = {
  name: "cached_attention_combine",
  doc:
    `out[n, h] = sum over ranges of exp(m - M) o / sum over ranges of exp(m - M) l, M the largest m; zero where every l
    is. partial [N H, splits, D + 4] of cached_attention_blocks; out [N H, D]. An invocation owns four elements.`,
  build({ headDim, storage }) {
    const quads = headDim / 4;
    return {
      bindings: { partial: input("vec4f"), out: output(quadType(storage)) },
      params: { rows: "u32", splits: "u32" },
      workgroupSize: [COMBINE_WORKGROUP, 1],
      declarations: storageFunctions(storage),
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${COMBINE_WORKGROUP}u + local_id.x;
let row = i / ${quads}u;
if (row >= p.rows) { return; }
let first = row * p.splits * ${quads + 1}u;
var m = ${MASKED};
for (var s = 0u; s < p.splits; s++) { m = max(m, partial[first + s * ${quads + 1}u + ${quads}u].x); }
var total = 0.0;
var value = vec4f();
for (var s = 0u; s < p.splits; s++) {
  let at = first + s * ${quads + 1}u;
  let share = exp(partial[at + ${quads}u].x - m);
  total += share * partial[at + ${quads}u].y;
  value += share * partial[at + i % ${quads}u];
}
out[i] = ${packQuad(storage, "select(vec4f(), value / total, total > 0.0)")};`,
    };
  },
};
