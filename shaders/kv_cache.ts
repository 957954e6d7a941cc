/**
 * The key/value cache of decoding: where the keys and values of a layer lie, and how a batch's are put there.
 *
 * cache `[P, S, 2 K D]`: for each position the sequences' slots, for each slot K key heads, then K value heads, rotated
 * already. Positions are outermost, so that what a batch of short sequences reads is the front of the buffer.
 * @module
 */
import { type ElementType, input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { quadType } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup. */
export const KV_CACHE_WORKGROUP = 64;

/** What copying into a cache is specialised on. */
export interface KvCacheConstants {
  /** Of qkv and the cache: they are stored alike. */
  readonly storage: "f32" | "f16";
}

/** cache[positions[n], slots[n]] = k and v of token n. */
export const kvCacheWrite: Kernel<KvCacheConstants> = {
  name: "kv_cache_write",
  doc:
    `cache[positions[n], slots[n], c] = qkv[n, H D + c], c < 2 K D, for the tokens whose slot is below S; the others
    are padding. qkv [N, (H + 2 K) D]; slots, positions [N]; cache [P, S, 2 K D]. An invocation owns four elements. Two
    tokens of one slot and position would race.`,
  build({ storage }) {
    const quad: ElementType = quadType(storage);
    return {
      bindings: { qkv: input(quad), slots: input("u32"), positions: input("u32"), cache: output(quad) },
      params: { tokens: "u32", slots: "u32", row_quads: "u32", kv_quads: "u32" },
      workgroupSize: [KV_CACHE_WORKGROUP, 1],
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${KV_CACHE_WORKGROUP}u + local_id.x;
let n = i / p.kv_quads;
if (n >= p.tokens) { return; }
let slot = slots[n];
if (slot >= p.slots) { return; }
let c = i % p.kv_quads;
cache[(positions[n] * p.slots + slot) * p.kv_quads + c] = qkv[(n + 1u) * p.row_quads - p.kv_quads + c];`,
    };
  },
};
