/**
 * Causal grouped-query attention over packed sequences with an online softmax (arXiv 1805.02867, 2205.14135): no
 * [T, T] matrix exists. What its kernels share: the maths, the bindings, how a token's heads lie. The kernels are in
 * `attention_rows.ts` for CPU adapters and in `attention_tiles.ts` for GPUs.
 *
 * qkv `[N, (H + 2 K) D]`: a token's H query heads, K key heads, K value heads. bounds `[N]` of vec4u, for token t: its
 * own sequence's start; start and end of the prefix before it; and where the readers of its key end. Token i sees key j
 * in [own start, i] and in [prefix start, prefix end); all of [j, readers end of j) and no others see key j. Starts and
 * prefixes ascend with the token, so those of a tile's first and last token enclose the tile's.
 * @module
 */
import { input, type Kernel, output, type StorageBinding } from "./kernel.ts";
import { quadType, type Storage } from "./storage.ts";

/** What every attention pipeline is specialised on. */
export interface AttentionShape {
  /** D, a multiple of four. */
  readonly headDim: number;
  /** Of qkv, out and their gradients. */
  readonly storage: Storage;
}

/** One implementation. Its three kernels take the same bindings and parameters as every other's. */
export interface AttentionKernels<Constants> {
  readonly forward: Kernel<Constants>;
  readonly backwardQ: Kernel<Constants>;
  readonly backwardKv: Kernel<Constants>;
}

/** Parameters of the forward; the backward's also have `accumulate`. */
export const PARAMS = { tokens: "u32", heads: "u32", kv_heads: "u32", scale: "f32" } as const;

export { MASKED } from "./lib.ts";

/** What the kernels compute, printed above each. */
export const DOCS = {
  forward:
    `out[i, h] = sum over j of softmax_j(q[i, h] . k[j, g] scale) v[j, g] over the keys j that i sees, g = h K / H.
    lse[i, h] = log sum over j of exp(q . k scale), saved. qkv [N, (H + 2 K) D]; bounds [N]; out [N, H D]; lse [N, H].
    Grid: (row tiles, H).`,
  backwardQ:
    `out = softmax(s) v, s = q . k scale: with prob = exp(s - lse), delta[i, h] = d_out[i, h] . out[i, h],
    d_s = prob (d_out[i] . v[j] - delta[i]), d_q[i, h] (+)= scale sum over j of d_s k[j, g], in d_qkv's first H D columns.
    delta [N, H] is saved for dK. Shapes and grid as the forward's.`,
  backwardKv: `With prob and d_s as in the dQ kernel: d_k[j, g] (+)= scale sum over i, h of d_s q[i, h];
    d_v[j, g] (+)= sum over i, h of prob d_out[i, h]; h over the group of g, i over the queries that see j, in d_qkv's
    columns behind the queries'. Grid: (row tiles, K). The sum's order is fixed.`,
} as const;

/** The element of a binding that is read through a texture, four in one texel. */
export function texelType(storage: Storage): "vec4f" | "vec2u" {
  return storage === "f32" ? "vec4f" : "vec2u";
}

/**
 * Bindings of the three kernels for a storage of qkv, out and their gradients.
 *
 * @param quads how qkv, out and d_out are read
 */
export function attentionBindings(
  storage: Storage,
  quads: StorageBinding,
): Record<"forward" | "backwardQ" | "backwardKv", Record<string, StorageBinding>> {
  const quad = quadType(storage);
  const read = { qkv: quads, bounds: input("vec4u") };
  return {
    forward: { ...read, lse: output("f32"), out: output(quad) },
    backwardQ: {
      ...read,
      lse: input("f32"),
      out: quads,
      d_out: quads,
      delta: output("f32"),
      d_qkv: output(quad),
    },
    backwardKv: {
      ...read,
      lse: input("f32"),
      delta: input("f32"),
      d_out: quads,
      d_qkv: output(quad),
    },
  };
}

/** Declares in quads: what a token's row takes, and where in it k and v of head `g` start. */
export function headLayout(quads: number): string {
  return `let row_quads = (p.heads + 2u * p.kv_heads) * ${quads}u;
let k_first = (p.heads + g) * ${quads}u;
let v_first = (p.heads + p.kv_heads + g) * ${quads}u;`;
}

/** `sum4(v)`: the sum of a vector's components. */
export const SUM4 = "fn sum4(v: vec4f) -> f32 { return (v.x + v.y) + (v.z + v.w); }\n";
