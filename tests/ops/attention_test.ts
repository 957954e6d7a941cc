import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { attention } from "../../engine/ops/attention.ts";
import { type Segments, sequenceBounds } from "../../engine/ops/sequence_bounds.ts";
import { ShapeError } from "../../engine/shape.ts";
import { fromHost, release, scope, type Tensor, toHost, upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/attention.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { checkHalf } from "./check_half.ts";
import { checkOp } from "./check_op.ts";

interface Case {
  lengths: number[];
  /** The segment that each continues; none by default. */
  prefixes?: number[];
  H: number;
  K: number;
  D: number;
  /** Standard deviation of q and k, 1 by default. */
  scale?: number;
  capacity?: number;
}

/** Each length the sizes at which tiles of rows begin and end. */
const LENGTHS = [1, 17, 63, 64, 65, 257];

/** Prompts with two continuations each, between sequences that are alone. */
const PAIRS = {
  lengths: [5, 40, 9, 17, 1, 1, 1, 33, 3, 65, 8, 64, 30, 2],
  prefixes: [0, 1, 1, 1, 4, 4, 4, 7, 8, 8, 8, 11, 11, 11],
};

const CASES: Case[] = [
  { lengths: [1], H: 1, K: 1, D: 4 },
  { lengths: LENGTHS, H: 2, K: 2, D: 4 },
  { lengths: LENGTHS, H: 4, K: 2, D: 32 },
  { lengths: [65, 17, 1], H: 4, K: 1, D: 16 },
  { lengths: [17, 64], H: 2, K: 1, D: 64 },
  { lengths: [17, 40], H: 2, K: 1, D: 128 },
  { lengths: [40], H: 1, K: 1, D: 256 },
  { lengths: [33, 5], H: 2, K: 1, D: 48 },
  // Many sequences within one tile, and across the borders of tiles.
  { lengths: [1, 1, 1, 2, 3, 1, 2, 5, 1, 1, 8, 1, 3, 7, 1], H: 4, K: 2, D: 8 },
  { lengths: Array.from({ length: 70 }, () => 1), H: 2, K: 2, D: 8 },
  // An empty sequence has no tokens and changes nothing.
  { lengths: [5, 0, 3], H: 1, K: 1, D: 8 },
  { ...PAIRS, H: 2, K: 2, D: 8 },
  { ...PAIRS, H: 4, K: 2, D: 32 },
  // Scores of magnitude 300: the softmax is nearly one-hot, its exponentials would overflow unshifted.
  { lengths: [17, 65], H: 2, K: 1, D: 16, scale: 10 },
  { lengths: [9, 17], H: 4, K: 2, D: 8, capacity: 300 },
];

for (const one of CASES) {
  const { lengths, prefixes, H, K, D, scale = 1 } = one;
  const shown = lengths.length > 6 ? `${lengths.length} segments` : `sequences ${lengths}`;
  gpuTest(
    `attention of ${shown}, H=${H}, K=${K}, D=${D}, scale ${scale}${prefixes ? ", shared prompts" : ""}` +
      (one.capacity ? ", room for more" : ""),
    (gpu) => checkAttention(gpu, one),
    { layouts: LAYOUTS },
  );
}

function segmentsOf({ lengths, prefixes }: Case): Segments & { tokens: number } {
  const segmentOffsets = new Uint32Array(lengths.length + 1);
  lengths.forEach((length, s) => segmentOffsets[s + 1] = segmentOffsets[s] + length);
  return {
    segmentOffsets,
    ...(prefixes ? { prefixSegments: Uint32Array.from(prefixes) } : {}),
    tokens: segmentOffsets[lengths.length],
  };
}

/** The reference on packed rows. */
function referenceOf(
  { H, K, D }: Case,
  { segmentOffsets, prefixSegments, tokens: N }: ReturnType<typeof segmentsOf>,
) {
  const widths = [H * D, K * D, K * D];
  return (qkv: Float64Array) => {
    const [q, k, v] = unpackColumns(qkv, widths);
    const inputs = { q, k, v, sequenceOffsets: segmentOffsets, prefixSegments };
    const dims = { N, H, K, D };
    return {
      output: reference.forward(inputs, dims).out,
      backward: (dOut: Float64Array) => {
        const { dQ, dK, dV } = reference.backward(inputs, dims, { dOut });
        return packColumns([dQ, dK, dV], widths);
      },
    };
  };
}

function checkAttention(gpu: Gpu, one: Case): Promise<void> {
  const { lengths, H, K, D, scale = 1, capacity } = one;
  const segments = segmentsOf(one);
  const width = (H + 2 * K) * D;
  const random = seededRandom(segments.tokens * width);
  const ofReference = referenceOf(one, segments);
  return checkOp(gpu, {
    op: `attention of ${lengths}`,
    inputs: {
      qkv: {
        shape: [segments.tokens, width],
        // Queries and keys are scaled, values are not.
        values: normals(random, { length: segments.tokens * width })
          .map((value, i) => value * (i % width < (H + K) * D ? scale : 1)),
        capacity,
      },
    },
    run: ({ qkv }) =>
      attention(qkv, {
        ...{ headDim: D, heads: H, kvHeads: K },
        bounds: sequenceBounds(gpu, segments, { capacity }),
      }),
    reference: ({ qkv }) => {
      const { output, backward } = ofReference(qkv);
      return { output, backward: (dOut) => ({ qkv: backward(dOut) }) };
    },
    // Scores s of magnitude up to 300 are rounded to 1.5e-5 before exp(s), which scales by it; then gradients are
    // multiplied by q and k of magnitude 30.
    ...(scale === 10 ? { atol: 2e-3, rtol: 1e-4 } : {}),
  });
}

for (const one of [{ ...PAIRS, H: 4, K: 2, D: 32 }, { lengths: [17, 40], H: 2, K: 1, D: 128 }] as Case[]) {
  const { H, K, D } = one;
  gpuTest(`attention in f16, H=${H}, K=${K}, D=${D}`, (gpu) => {
    const segments = segmentsOf(one);
    const heads = { headDim: D, heads: H, kvHeads: K };
    return checkHalf(gpu, {
      op: "attention in f16",
      shape: [segments.tokens, (H + 2 * K) * D],
      outputShape: [segments.tokens, H * D],
      run: (qkv) => attention(qkv, { ...heads, bounds: sequenceBounds(gpu, segments) }),
      reference: referenceOf(one, segments),
      // Sums are f32; what is stored is rounded to eleven bits. delta is of the rounded output, of magnitude up to 3.
      ...{ atol: 4e-3, rtol: 2 ** -10 },
    });
  }, { layouts: LAYOUTS });
}

/** The output of one attention op on host values. */
async function outputOf(gpu: Gpu, qkv: Float32Array<ArrayBuffer>, one: Case): Promise<Float32Array> {
  const segments = segmentsOf(one);
  const [H, K, D] = [one.H, one.K, one.D];
  const out = scope(gpu, () => {
    const tensor = fromHost(gpu, qkv, { shape: [segments.tokens, (H + 2 * K) * D] });
    return attention(tensor, {
      ...{ headDim: D, heads: H, kvHeads: K },
      bounds: sequenceBounds(gpu, segments),
    });
  });
  const values = await toHost(out);
  release(out);
  return values;
}

const drawn = (length: number) => Float32Array.from(normals(seededRandom(length), { length }));

gpuTest("attention: weights sum to one, so where every value is 1 every output is", async (gpu) => {
  const one = { ...PAIRS, H: 2, K: 1, D: 8 };
  const width = 4 * 8;
  const qkv = drawn(segmentsOf(one).tokens * width).map((value, i) => (i % width >= 3 * 8 ? 1 : 3 * value));
  for (const value of await outputOf(gpu, qkv, one)) assert.ok(Math.abs(value - 1) < 1e-6, `${value}`);
}, { layouts: LAYOUTS });

gpuTest("attention: later tokens, and other sequences, never change an output", async (gpu) => {
  const one = { lengths: [9, 70, 12, 20], prefixes: [0, 1, 1, 1], H: 2, K: 1, D: 8 };
  const width = 4 * 8;
  const qkv = drawn(111 * width);
  const before = await outputOf(gpu, qkv, one);
  const changed = async (from: number, to: number) => {
    const after = await outputOf(
      gpu,
      qkv.map((value, i) => (i >= from * width && i < to * width ? 2 - value : value)),
      one,
    );
    return Array.from(
      { length: 111 },
      (_, n) => after.subarray(n * 16, n * 16 + 16).some((x, i) => x !== before[n * 16 + i]),
    )
      .flatMap((differs, n) => differs ? [n] : []);
  };
  const span = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
  assert.deepEqual(await changed(5, 9), span(5, 9)); // of the sequence before the prompt
  assert.deepEqual(await changed(60, 61), span(60, 111)); // of the prompt: both answers see it
  assert.deepEqual(await changed(80, 81), span(80, 91)); // of the first answer
  assert.deepEqual(await changed(100, 101), span(100, 111)); // of the second
}, { layouts: LAYOUTS });

gpuTest("attention refuses widths that do not fit its heads, and bounds of other tokens", (gpu) => {
  const tensor = (columns: number): Tensor =>
    upload(gpu, new Float32Array(2 * columns), { shape: [2, columns] });
  const bounds = sequenceBounds(gpu, { segmentOffsets: Uint32Array.of(0, 2) });
  const run = (columns: number, headDim: number, heads: number, kvHeads: number) => () =>
    attention(tensor(columns), { headDim, heads, kvHeads, bounds });
  assert.throws(run(32, 8, 3, 1), ShapeError); // columns
  assert.throws(run(56, 8, 3, 2), ShapeError); // H no multiple of K
  assert.throws(run(18, 6, 1, 1), ShapeError); // D no multiple of four
  assert.throws(run(780, 260, 1, 1), /head_dim a multiple of 4 up to 256, .* found head_dim 260, H 1, K 1/);
  assert.throws(run(0, 8, 0, 0), ShapeError);
  assert.throws(
    () =>
      attention(tensor(24), {
        ...{ headDim: 8, heads: 1, kvHeads: 1 },
        bounds: sequenceBounds(gpu, { segmentOffsets: Uint32Array.of(0, 1) }),
      }),
    new ShapeError("Cannot run attention: expected the sequence bounds of shape [2, 4], found [1, 4]"),
  );
});

gpuTest("attention refuses sequences past a software adapter's loops", (gpu) => {
  const bounds = { ...sequenceBounds(gpu, { segmentOffsets: Uint32Array.of(0, 1) }), readers: 64_000 };
  const run = (headDim: number, heads: number) => () =>
    attention(upload(gpu, new Float32Array((heads + 2) * headDim), { shape: [1, (heads + 2) * headDim] }), {
      ...{ headDim, heads, kvHeads: 1, bounds },
    });
  assert.throws(
    run(4, 16),
    /expected at most 65000 loop iterations .* found 128048 \(64000 tokens x 16 heads a group\)/,
  );
  assert.throws(run(128, 1), /found 851275 \(64000 tokens x 1 heads a group\)/);
}, { layouts: ["cpu"] });

function unpackColumns(packed: Float64Array, widths: number[]): Float64Array[] {
  const width = widths.reduce((total, columns) => total + columns, 0);
  let first = 0;
  return widths.map((columns) => {
    const start = first;
    first += columns;
    return packed.filter((_, i) => i % width >= start && i % width < start + columns);
  });
}

function packColumns(parts: Float64Array[], widths: number[]): Float64Array {
  const rows = parts[0].length / widths[0];
  return Float64Array.from(
    Array.from(
      { length: rows },
      (_, n) => parts.flatMap((part, i) => [...part.subarray(n * widths[i], (n + 1) * widths[i])]),
    ).flat(),
  );
}
