import assert from "node:assert/strict";
import {
  type DType,
  DTYPE_SIZE_BYTES,
  findOverflow,
  findUnusable,
  narrow,
  widen,
} from "../../engine/dtype.ts";

const PATTERNS = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
const FORMATS = {
  f16: { exponentBits: 5, fractionBits: 10 },
  bf16: { exponentBits: 8, fractionBits: 7 },
} as const;
type Short = keyof typeof FORMATS;

/** The value of a pattern from the definition of the format, in f64. */
function valueOf(pattern: number, dtype: Short): number {
  const { exponentBits, fractionBits } = FORMATS[dtype];
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = pattern >> 15 ? -1 : 1;
  const exponent = (pattern >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (pattern & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

function stored(values: Float32Array, dtype: DType): Uint16Array {
  return new Uint16Array(narrow(values, dtype).buffer);
}

/** The f32 beside a finite value, away from zero (+1) or towards it (-1). */
function neighbour(value: number, step: number): number {
  const bits = new Uint32Array(new Float32Array([value]).buffer);
  bits[0] += step;
  return new Float32Array(bits.buffer)[0];
}

for (const dtype of ["f16", "bf16"] as const) {
  Deno.test(`widen gives the defined value of all 65,536 ${dtype} patterns`, () => {
    const values = widen(new Uint8Array(PATTERNS.buffer), dtype);
    for (let i = 0; i < PATTERNS.length; i++) {
      const expected = valueOf(i, dtype);
      assert(Object.is(values[i], expected), `0x${i.toString(16)}: expected ${expected}, found ${values[i]}`);
    }
  });

  Deno.test(`narrow undoes widen on all 65,536 ${dtype} patterns, NaN payloads included`, () => {
    const back = stored(widen(new Uint8Array(PATTERNS.buffer), dtype), dtype);
    assert.deepEqual(back, PATTERNS);
  });

  Deno.test(`narrow rounds every midpoint of neighbouring ${dtype} values to even, and its neighbours to nearest`, () => {
    const infinity = dtype === "f16" ? 0x7c00 : 0x7f80;
    const largest = valueOf(infinity - 1, dtype);
    for (let low = 0; low < infinity; low++) {
      const lower = valueOf(low, dtype);
      // Above the largest value, what rounds to infinity starts where the next value would have been.
      const upper = low + 1 === infinity
        ? largest + (largest - valueOf(infinity - 2, dtype))
        : valueOf(low + 1, dtype);
      const middle = (lower + upper) / 2;
      const even = low % 2 === 0 ? low : low + 1;
      const probes = new Float32Array([neighbour(middle, -1), middle, neighbour(middle, 1), -middle]);
      const found = [...stored(probes, dtype)];
      assert.deepEqual(
        found,
        [low, even, low + 1, even | 0x8000],
        `between 0x${low.toString(16)} and the next`,
      );
    }
  });

  Deno.test(`findOverflow agrees with narrow at the edge of ${dtype}`, () => {
    const infinity = dtype === "f16" ? 0x7c00 : 0x7f80;
    const largest = valueOf(infinity - 1, dtype);
    const edge = largest + (largest - valueOf(infinity - 2, dtype)) / 2;
    const values = new Float32Array([Infinity, NaN, neighbour(edge, -1), -edge]);
    assert.equal(findOverflow(values, dtype), 3);
    assert.equal(stored(values, dtype)[2], infinity - 1);
    assert.equal(stored(values, dtype)[3], infinity | 0x8000);
    assert.equal(findOverflow(values.subarray(0, 3), dtype), -1);
  });
}

Deno.test("narrow keeps a NaN whose payload lies in the dropped bits", () => {
  const values = new Float32Array(new Uint32Array([0x7f800001, 0xff800001]).buffer);
  assert.deepEqual([...stored(values, "f16")], [0x7e00, 0xfe00]);
  assert.deepEqual([...stored(values, "bf16")], [0x7fc0, 0xffc0]);
});

Deno.test("f32 passes through bit by bit, aligned or not", () => {
  const bits = new Uint32Array([0, 0x80000000, 0x7f800001, 0xffc12345, 1, 0x3f800000]);
  const bytes = new Uint8Array(bits.buffer);
  const shifted = new Uint8Array(bytes.length + 1);
  shifted.set(bytes, 1);
  for (const input of [bytes, shifted.subarray(1)]) {
    assert.deepEqual(narrow(widen(input, "f32"), "f32"), bytes);
  }
  assert.equal(findOverflow(new Float32Array([3.4e38]), "f32"), -1);
});

Deno.test("widen reads two-byte elements at an odd offset", () => {
  const bytes = new Uint8Array([0xff, 0x00, 0x3c, 0x00, 0xc0]);
  assert.deepEqual([...widen(bytes.subarray(1), "f16")], [1, -2]);
});

Deno.test("narrow reads only the values of a view", () => {
  const values = new Float32Array([9, 1, 2, 9]).subarray(1, 3);
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    assert.equal(narrow(values, dtype).byteLength, 2 * DTYPE_SIZE_BYTES[dtype]);
    assert.deepEqual([...widen(narrow(values, dtype), dtype)], [1, 2]);
  }
});

Deno.test("widen refuses a broken element", () => {
  assert.throws(() => widen(new Uint8Array(3), "bf16"), {
    name: "RangeError",
    message: "Cannot widen bf16 data: expected a multiple of 2 bytes, found 3",
  });
});

/** What findUnusable is to say of one element, from the values alone. */
function isUnusable(value: number, storage: DType): boolean {
  return !Number.isFinite(value) ||
    !Number.isFinite(widen(narrow(new Float32Array([value]), storage), storage)[0]);
}

for (const dtype of ["f16", "bf16"] as const) {
  Deno.test(`findUnusable judges each of the 65,536 ${dtype} patterns by its value, in either half of a word`, () => {
    for (const storage of ["f32", "f16", "bf16"] as const) {
      const values = widen(new Uint8Array(PATTERNS.buffer), dtype);
      const expected = isUnusableOfAll(values, storage);
      for (let i = 0; i < PATTERNS.length; i++) {
        for (const [first, second, at] of [[PATTERNS[i], 0, 0], [0, PATTERNS[i], 1]]) {
          const bytes = new Uint8Array(Uint16Array.of(first, second).buffer);
          const found = findUnusable(bytes, dtype, { storage });
          if (found !== (expected[i] ? at : -1)) assert.fail(`0x${i.toString(16)} as ${storage}: ${found}`);
        }
      }
    }
  });
}

function isUnusableOfAll(values: Float32Array, storage: DType): boolean[] {
  const kept = widen(narrow(values, storage), storage);
  return Array.from(values, (value, i) => !Number.isFinite(value) || !Number.isFinite(kept[i]));
}

Deno.test("findUnusable judges f32 by its value, at the edges of every storage", () => {
  const [f32, f16, bf16] = new Float32Array(Uint32Array.of(0x7f7fffff, 0x477fefff, 0x7f7f7fff).buffer);
  const limits = { f32, f16, bf16 };
  for (const storage of ["f32", "f16", "bf16"] as const) {
    for (const value of [0, -0, 1e-45, limits[storage], neighbour(limits[storage], 1), Infinity, NaN]) {
      for (const signed of [value, -value]) {
        const bytes = narrow(new Float32Array([signed]), "f32");
        assert.equal(
          findUnusable(bytes, "f32", { storage }),
          isUnusable(signed, storage) ? 0 : -1,
          `${signed}`,
        );
      }
    }
    assert.equal(isUnusable(limits[storage], storage), false, "the largest");
    assert.equal(isUnusable(neighbour(limits[storage], 1), storage), true, "the least that is too large");
  }
});

Deno.test("findUnusable names the first, wherever it lies and however the bytes are aligned", () => {
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    for (let length = 1; length < 36; length++) {
      for (let at = 0; at < length; at++) {
        const values = new Float32Array(length).fill(-1);
        values[at] = NaN;
        values[length - 1] = at === length - 1 ? NaN : Infinity;
        const bytes = narrow(values, dtype);
        const shifted = new Uint8Array(bytes.length + 2);
        shifted.set(bytes, 2);
        assert.equal(findUnusable(bytes, dtype), at);
        assert.equal(findUnusable(shifted.subarray(2), dtype), at);
      }
      assert.equal(findUnusable(narrow(new Float32Array(length).fill(-1), dtype), dtype), -1);
    }
    assert.throws(() => findUnusable(new Uint8Array(3), dtype), RangeError);
  }
});

Deno.test("widen fills the memory that it is given", () => {
  const into = new Float32Array(4).fill(9);
  for (const dtype of ["f16", "bf16"] as const) {
    const values = widen(narrow(new Float32Array([1, -2]), dtype), dtype, { into: into.subarray(1) });
    assert.equal(values.buffer, into.buffer);
    assert.deepEqual([...into], [9, 1, -2, 9]);
    into.fill(9);
  }
});
