/**
 * The element types of stored weights, and exact conversion between them and f32.
 *
 * Everything is bit arithmetic on little-endian data, the byte order of checkpoint files, of WebGPU and of every
 * machine that runs it; no floating-point operation touches a value, so NaN payloads survive.
 *
 * @module
 */

/** The element types that tensors are stored in: IEEE single, IEEE half, and bfloat16. */
export type DType = "f32" | "f16" | "bf16";

/** Bytes that one element of each {@link DType} takes. */
export const DTYPE_SIZE_BYTES: Readonly<Record<DType, number>> = { f32: 4, f16: 2, bf16: 2 };

/** The least f32 bit pattern (sign cleared) that rounding to nearest turns into infinity. */
const OVERFLOW_BITS: Readonly<Record<DType, number>> = { f32: 0x7f800000, f16: 0x477ff000, bf16: 0x7f7f8000 };

/**
 * Widens stored elements to f32. Every f16 and bf16 value is a f32 value, so nothing is rounded.
 *
 * @param bytes `[N * size]`, little-endian elements.
 * @param dtype What the bytes hold.
 * @param options.into `[at least N]`, where f16 and bf16 are widened to; new memory by default.
 * @returns `[N]`. For an aligned f32 input it is a view of the same memory, not a copy.
 * @throws {RangeError} When the byte count is not a multiple of the element size.
 * @example
 * ```ts
 * const one = widen(new Uint8Array([0x00, 0x3c]), "f16");
 * if (one[0] !== 1) throw new Error("0x3c00 is 1 in half precision");
 * ```
 */
export function widen(
  bytes: Uint8Array,
  dtype: DType,
  options: { into?: Float32Array<ArrayBuffer> } = {},
): Float32Array {
  const sizeBytes = DTYPE_SIZE_BYTES[dtype];
  if (bytes.byteLength % sizeBytes !== 0) {
    throw new RangeError(
      `Cannot widen ${dtype} data: expected a multiple of ${sizeBytes} bytes, found ${bytes.byteLength}`,
    );
  }
  const aligned = bytes.byteOffset % sizeBytes === 0 ? bytes : bytes.slice();
  const length = bytes.byteLength / sizeBytes;
  if (dtype === "f32") return new Float32Array(aligned.buffer, aligned.byteOffset, length);
  const stored = new Uint16Array(aligned.buffer, aligned.byteOffset, length);
  const { into } = options;
  const bits = into ? new Uint32Array(into.buffer, into.byteOffset, length) : new Uint32Array(length);
  if (dtype === "bf16") {
    for (let i = 0; i < length; i++) bits[i] = stored[i] << 16;
  } else {
    const table = halfTable();
    for (let i = 0; i < length; i++) bits[i] = table[stored[i]];
  }
  return new Float32Array(bits.buffer, bits.byteOffset, length);
}

/**
 * Narrows f32 values to stored elements, rounding to nearest, ties to even (IEEE 754): subnormal halves are kept, what
 * is too large becomes infinity ({@link findOverflow} tells beforehand), NaN stays NaN with what fits of its payload.
 *
 * @param values `[N]`.
 * @param dtype What to store.
 * @returns `[N * size]`, little-endian elements. For f32 it is a view of the same memory, not a copy.
 * @example
 * ```ts
 * const bytes = narrow(new Float32Array([1]), "bf16");
 * if (bytes[0] !== 0x80 || bytes[1] !== 0x3f) throw new Error("1 is 0x3f80 in bfloat16");
 * ```
 */
export function narrow(values: Float32Array, dtype: DType): Uint8Array {
  if (dtype === "f32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const stored = new Uint16Array(values.length);
  const convert = dtype === "f16" ? toHalf : toBfloat;
  for (let i = 0; i < stored.length; i++) stored[i] = convert(bits[i]);
  return new Uint8Array(stored.buffer);
}

/**
 * Finds the first finite value that {@link narrow} would turn into infinity.
 *
 * @param values `[N]`.
 * @param dtype What would be stored.
 * @returns Its index, or -1 when every finite value stays finite.
 * @example
 * ```ts
 * if (findOverflow(new Float32Array([1, 65520]), "f16") !== 1) throw new Error("65504 is the largest half");
 * ```
 */
export function findOverflow(values: Float32Array, dtype: DType): number {
  const limit = OVERFLOW_BITS[dtype];
  const words = new Int32Array(values.buffer, values.byteOffset, values.length);
  if (dtype === "f32" || !reaches(words, limit)) return -1;
  return words.findIndex((value) => (value & 0x7fffffff) >= limit && (value & 0x7fffffff) < 0x7f800000);
}

/**
 * Finds the first stored element that is NaN or infinite, or would be infinite in another storage.
 *
 * @param bytes `[N * size]`, little-endian elements.
 * @param dtype What the bytes hold.
 * @param storage What the elements are to be stored as; `dtype` by default.
 * @returns Its index, or -1 when every element is and stays finite.
 * @throws {RangeError} When the byte count is not a multiple of the element size.
 * @example
 * ```ts
 * const bytes = narrow(new Float32Array([1, 65536, NaN]), "bf16");
 * if (findUnusable(bytes, "bf16") !== 2) throw new Error("NaN is no weight");
 * if (findUnusable(bytes, "bf16", { storage: "f16" }) !== 1) throw new Error("65504 is the largest half");
 * ```
 */
export function findUnusable(bytes: Uint8Array, dtype: DType, options: { storage?: DType } = {}): number {
  const { storage = dtype } = options;
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const words = new Int32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength >>> 2);
  const limit = OVERFLOW_BITS[storage];
  if (dtype === "f32") {
    expectWhole(bytes, 4);
    return reaches(words, limit) ? words.findIndex((word) => (word & 0x7fffffff) >= limit) : -1;
  }
  expectWhole(bytes, 2);
  // A half's infinity; or the least bfloat16 that is not below the limit. Every finite half stays finite elsewhere.
  const least = dtype === "f16" ? 0x7c00 : Math.ceil(limit / 0x10000);
  const halves = new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength >>> 1);
  const isUnusable = (half: number) => (half & 0x7fff) >= least;
  const isTailUnusable = halves.length % 2 === 1 && isUnusable(halves[halves.length - 1]);
  return isTailUnusable || reachesInPairs(words, least) ? halves.findIndex(isUnusable) : -1;
}

function expectWhole(bytes: Uint8Array, sizeBytes: number): void {
  if (bytes.byteLength % sizeBytes === 0) return;
  throw new RangeError(
    `Cannot check elements: expected a multiple of ${sizeBytes} bytes, found ${bytes.byteLength}`,
  );
}

/** Whether any word, its sign cleared, is at least `limit`: adding what is missing to 2^31 sets the sign bit then. */
function reaches(words: Int32Array, limit: number): boolean {
  return orOfSums(words, { mask: 0x7fffffff, addend: 0x80000000 - limit }) < 0;
}

/** The same of both halves of each word: the lower sum is at most 0xffff, so nothing is carried between them. */
function reachesInPairs(words: Int32Array, limit: number): boolean {
  const addend = (0x8000 - limit) * 0x10001;
  return (orOfSums(words, { mask: 0x7fff7fff, addend }) & 0x80008000) !== 0;
}

/** Without a branch in the loop: several gigabytes a second, where a callback an element takes a tenth of that. */
function orOfSums(x: Int32Array, { mask, addend }: { mask: number; addend: number }): number {
  const a = addend | 0;
  const end = x.length & ~7;
  let bits = 0;
  for (let i = 0; i < end; i += 8) {
    bits |= ((x[i] & mask) + a) | ((x[i + 1] & mask) + a) | ((x[i + 2] & mask) + a) |
      ((x[i + 3] & mask) + a) |
      ((x[i + 4] & mask) + a) | ((x[i + 5] & mask) + a) | ((x[i + 6] & mask) + a) | ((x[i + 7] & mask) + a);
  }
  for (let i = end; i < x.length; i++) bits |= (x[i] & mask) + a;
  return bits;
}

/** f32 bits of all 65,536 halves, made on first use: a lookup is several times faster than the arithmetic. */
let halfBits: Uint32Array | undefined;

function halfTable(): Uint32Array {
  halfBits ??= Uint32Array.from({ length: 0x10000 }, (_, half) => fromHalf(half));
  return halfBits;
}

function fromHalf(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f800000 | (fraction << 13);
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  // A subnormal half is a normal f32: shift its leading one to the hidden place (bit 10).
  const shift = Math.clz32(fraction) - 21;
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13);
}

function toHalf(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  // A payload that lies in the dropped bits would read as infinity: keep it NaN by the quiet bit.
  if (magnitude > 0x7f800000) return sign | 0x7c00 | (((magnitude >>> 13) & 0x3ff) || 0x200);
  if (magnitude >= OVERFLOW_BITS.f16) return sign | 0x7c00;
  // From 2^-14 up the exponent is rebiased by 112; a carry out of the fraction correctly raises it by one.
  if (magnitude >= 0x38800000) {
    return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  }
  // 2^-25 is half the smallest subnormal: a tie, to even, hence zero.
  if (magnitude <= 0x33000000) return sign;
  const shift = 126 - (magnitude >>> 23);
  const significand = (magnitude & 0x7fffff) | 0x800000;
  const quotient = significand >>> shift;
  const remainder = significand & ((1 << shift) - 1);
  const tie = 1 << (shift - 1);
  return sign | (quotient + (remainder > tie || (remainder === tie && (quotient & 1) === 1) ? 1 : 0));
}

function toBfloat(bits: number): number {
  const high = bits >>> 16;
  if ((bits & 0x7fffffff) > 0x7f800000) return (high & 0x7f) !== 0 ? high : high | 0x40;
  return (bits + 0x7fff + (high & 1)) >>> 16;
}
