import assert from "node:assert/strict";
import { narrow, widen } from "../../engine/dtype.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { cachedAttention } from "../../engine/ops/cached_attention.ts";
import { writeCache } from "../../engine/ops/kv_cache.ts";
import { ShapeError } from "../../engine/shape.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release, scope, toHost, upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/cached_attention.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { assertClose } from "./check_op.ts";

interface Case {
  /** Slot and position of each token; slot -1 is padding. */
  tokens: [slot: number, position: number][];
  P: number;
  S: number;
  H: number;
  K: number;
  D: number;
  /** Keys that are bound; all by default. */
  length?: number;
  /** Standard deviation of queries and keys, 1 by default. */
  scale?: number;
  type?: "f32" | "f16";
}

/** Each a position at which blocks and lanes begin and end. */
const EDGES: [number, number][] = [[0, 0], [1, 1], [2, 7], [3, 8], [4, 62], [5, 63], [6, 64], [7, 256]];

const CASES: Case[] = [
  { tokens: [[0, 0]], P: 1, S: 1, H: 1, K: 1, D: 4 },
  { tokens: EDGES, P: 257, S: 8, H: 2, K: 2, D: 8 },
  { tokens: EDGES, P: 300, S: 9, H: 4, K: 2, D: 32, length: 257 },
  { tokens: [[2, 16], [0, 64], [1, 3]], P: 65, S: 3, H: 6, K: 2, D: 64 },
  { tokens: [[0, 200], [-1, 0], [1, 17], [-1, 0]], P: 256, S: 2, H: 4, K: 1, D: 16 },
  { tokens: [[0, 130]], P: 131, S: 1, H: 3, K: 1, D: 48 },
  { tokens: [[0, 70]], P: 80, S: 1, H: 2, K: 1, D: 128 },
  { tokens: [[0, 70]], P: 80, S: 1, H: 2, K: 2, D: 256 },
  // A chunk of one prompt, and two tokens of another sequence.
  {
    tokens: [...Array.from({ length: 40 }, (_, i): [number, number] => [1, 30 + i]), [0, 4], [0, 5]],
    ...{ P: 70, S: 2, H: 4, K: 2, D: 16 },
  },
  // So many queries that a workgroup walks several blocks of keys: all of them, or a range.
  {
    tokens: Array.from({ length: 70 }, (_, i): [number, number] => [i % 2, 130 + (i >> 1)]),
    ...{ P: 170, S: 2, H: 4, K: 2, D: 16 },
  },
  {
    tokens: Array.from({ length: 40 }, (_, i): [number, number] => [0, 260 + i]),
    ...{ P: 300, S: 1, H: 4, K: 1, D: 8 },
  },
  // One long sequence, many ranges of keys.
  { tokens: [[0, 2047]], P: 2048, S: 1, H: 2, K: 1, D: 8 },
  { tokens: [[0, 65], [1, 16]], P: 66, S: 2, H: 2, K: 1, D: 32, scale: 10 },
  { tokens: EDGES, P: 257, S: 8, H: 4, K: 2, D: 32, type: "f16" },
  { tokens: [[0, 300], [-1, 0]], P: 301, S: 1, H: 2, K: 1, D: 64, type: "f16" },
];

for (const one of CASES) {
  const { tokens, P, S, H, K, D, scale = 1, type = "f32" } = one;
  gpuTest(
    `cached attention of ${tokens.length} tokens, P=${P}, S=${S}, H=${H}, K=${K}, D=${D}, scale ${scale}, ${type}`,
    (gpu) => checkCached(gpu, one),
    { layouts: LAYOUTS },
  );
}

/** Values as a type holds them. */
function rounded(values: Float64Array, type: "f32" | "f16"): Float32Array<ArrayBuffer> {
  const stored = narrow(Float32Array.from(values), type);
  return widen(
    new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength),
    type,
  ) as Float32Array<ArrayBuffer>;
}

/** Writes the tokens' own keys, then attends; everything a token does not see is infinite. */
async function checkCached(gpu: Gpu, one: Case): Promise<void> {
  const { tokens, P, S, H, K, D, scale = 1, type = "f32" } = one;
  const N = tokens.length;
  const random = seededRandom(N * P * D);
  const width = (H + 2 * K) * D;
  const qkv = rounded(
    normals(random, { length: N * width }).map((x, i) => i % width < (H + K) * D ? scale * x : x),
    type,
  );
  const before = rounded(
    normals(random, { length: P * S * 2 * K * D }).map((x, i) => i % (2 * K * D) < K * D ? scale * x : x),
    type,
  );
  for (let slot = 0; slot < S; slot++) {
    const seen = Math.max(-1, ...tokens.filter(([s]) => s === slot).map(([, position]) => position));
    for (let j = seen + 1; j < P; j++) {
      before.fill(Infinity, (j * S + slot) * 2 * K * D, (j * S + slot + 1) * 2 * K * D);
    }
  }
  // Any number past the slots marks padding.
  const slots = Uint32Array.from(tokens, ([slot], n) => slot >= 0 ? slot : n % 2 === 0 ? 0xffffffff : S);
  const positions = Uint32Array.from(tokens, ([, position]) => position);
  const cache = fromHost(gpu, before, { shape: [P, S, 2 * K * D], type });
  const out = scope(gpu, () => {
    const tensor = fromHost(gpu, qkv, { shape: [N, width], type });
    const place = {
      headDim: D,
      heads: H,
      kvHeads: K,
      slots: upload(gpu, slots),
      positions: upload(gpu, positions),
    };
    writeCache(tensor, cache, place);
    return cachedAttention(tensor, cache, { ...place, length: one.length });
  });
  const [found, kept] = [await toHost(out), await toHost(cache)];
  release(out);
  release(cache);
  const dims = { S, H, K, D };
  const inputs = { qkv, cache: before, slots, positions };
  const written = reference.writeCache(inputs, dims);
  assert.deepEqual([...kept], [...written], "the cache");
  const expected = reference.cachedAttention({ ...inputs, cache: written }, dims);
  // Scores of magnitude 300 are rounded to 1.5e-5 before exp; f16 rounds what is stored to eleven bits.
  const close = scale === 10
    ? { atol: 2e-4, rtol: 1e-4 }
    : type === "f16"
    ? { atol: 1e-3, rtol: 2 ** -10 }
    : {};
  assertClose(found, expected, { what: "out", ...close });
}

gpuTest("cached attention refuses shapes that do not fit, and to be recorded", (gpu) => {
  const tensor = (shape: number[]) =>
    upload(gpu, new Float32Array(shape.reduce((a, b) => a * b, 1)), { shape });
  const index = (length: number) => upload(gpu, new Uint32Array(length));
  const heads = { headDim: 8, heads: 2, kvHeads: 1 };
  const place = { ...heads, slots: index(1), positions: index(1) };
  const [qkv, cache] = [tensor([1, 32]), tensor([4, 1, 16])];
  assert.throws(
    () => cachedAttention(qkv, tensor([4, 1, 8]), place),
    new ShapeError(
      "Cannot run cached_attention: expected the cache of shape [any, any, 16], found [4, 1, 8]",
    ),
  );
  assert.throws(() => writeCache(tensor([1, 24]), cache, place), ShapeError);
  assert.throws(
    () => writeCache(qkv, cache, { ...place, slots: index(2) }),
    /the slots of shape \[1\], found \[2\]/,
  );
  assert.throws(() => cachedAttention(qkv, cache, { ...place, positions: index(2) }), ShapeError);
  assert.throws(() => cachedAttention(qkv, cache, { ...place, headDim: 6 }), /found head_dim 6, H 2, K 1/);
  assert.throws(
    () => cachedAttention(qkv, cache, { ...place, length: 5 }),
    /1 to 4 keys, found head_dim 8, 5 keys/,
  );
  using _tape = new Tape(gpu);
  assert.throws(() => writeCache({ ...qkv, requiresGrad: true }, cache, place), /it has no gradient/);
}, { layouts: LAYOUTS });
