/**
 * How floating-point tensors lie in memory. Kernels compute in f32 whatever the storage: they read four elements with
 * {@link loadQuad} and write them with {@link packQuad}. Sixteen-bit storage packs two elements in a u32, so it needs
 * no optional device feature; rows divide by four then.
 * @module
 */
/** Element types that kernels read: f32, IEEE half, bfloat16 (read only: frozen weights). */
export type Storage = "f32" | "f16" | "bf16";

/** The binding type of four elements. */
export function quadType(storage: Storage): "vec4f" | "vec2u" {
  return storage === "f32" ? "vec4f" : "vec2u";
}

/** Expression: the four elements that `stored` (an expression of {@link quadType}) holds, as vec4f. */
export function loadQuad(storage: Storage, stored: string): string {
  return storage === "f32" ? stored : `unpack_${storage}(${stored})`;
}

/**
 * Expression: a vec4f as it is stored.
 *
 * @throws {TypeError} for bf16, which no kernel writes
 */
export function packQuad(storage: Storage, value: string): string {
  if (storage === "bf16") {
    throw new TypeError("Cannot store bf16: expected f32 or f16, found a read-only type");
  }
  return storage === "f32" ? value : `pack_f16(${value})`;
}

const UNPACK_F16 = `
fn unpack_f16(q: vec2u) -> vec4f { return vec4f(unpack2x16float(q.x), unpack2x16float(q.y)); }`;

// WGSL leaves a value beyond f16 undefined; overflow must show as infinity, or loss scaling would not see it.
const PACK_F16 = `
fn to_half_range(v: vec4f) -> vec4f {
  let bits = bitcast<vec4u>(v);
  let infinite = bitcast<vec4f>((bits & vec4u(0x80000000u)) | vec4u(0x7f800000u));
  let size = bits & vec4u(0x7fffffffu);
  return select(v, infinite, (size >= vec4u(0x477ff000u)) & (size <= vec4u(0x7f800000u)));
}
fn pack_f16(v: vec4f) -> vec2u {
  let h = to_half_range(v);
  return vec2u(pack2x16float(h.xy), pack2x16float(h.zw));
}`;

// A bfloat16 is the upper half of an f32.
const UNPACK_BF16 = `
fn unpack_bf16(q: vec2u) -> vec4f {
  return bitcast<vec4f>(vec4u(q.x << 16u, q.x & 0xffff0000u, q.y << 16u, q.y & 0xffff0000u));
}`;

/** The functions that {@link loadQuad} and {@link packQuad} call, for a kernel that uses these storages. */
export function storageFunctions(...storages: readonly Storage[]): string {
  return (storages.includes("f16") ? UNPACK_F16 + PACK_F16 : "") +
    (storages.includes("bf16") ? UNPACK_BF16 : "");
}
