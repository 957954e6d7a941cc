import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { attention, sequenceBounds } from "../../engine/ops/attention.ts";
import { ShapeError } from "../../engine/shape.ts";
import { upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/attention.ts";
import { checkOp } from "./check_op.ts";

interface Case {
  lengths: number[];
  H: number;
  K: number;
  D: number;
  /** Standard deviation of q and k, 1 by default. */
  scale?: number;
  capacity?: number;
}

/** Each length the sizes at which tiles of 8 and of 64 rows begin and end. */
const LENGTHS = [1, 17, 63, 64, 65, 257];

const CASES: Case[] = [
  { lengths: [1], H: 1, K: 1, D: 4 },
  { lengths: LENGTHS, H: 2, K: 2, D: 4 },
  { lengths: LENGTHS, H: 4, K: 2, D: 8 },
  { lengths: LENGTHS, H: 4, K: 1, D: 16 },
  { lengths: [65, 17, 1], H: 4, K: 2, D: 32 },
  { lengths: [17, 64], H: 2, K: 1, D: 64 },
  // Many sequences within one tile, and across the borders of tiles.
  { lengths: [1, 1, 1, 2, 3, 1, 2, 5, 1, 1, 8, 1, 3, 7, 1], H: 4, K: 2, D: 8 },
  { lengths: Array.from({ length: 70 }, () => 1), H: 2, K: 2, D: 8 },
  // An empty sequence has no tokens and changes nothing.
  { lengths: [5, 0, 3], H: 1, K: 1, D: 8 },
  // Scores of magnitude 300: the softmax is nearly one-hot, its exponentials would overflow unshifted.
  { lengths: [17, 65], H: 2, K: 1, D: 16, scale: 10 },
  { lengths: [9, 17], H: 4, K: 2, D: 8, capacity: 300 },
];

for (const one of CASES) {
  const { lengths, H, K, D, scale = 1 } = one;
  const shown = lengths.length > 6 ? `${lengths.length} short sequences` : `sequences ${lengths}`;
  gpuTest(
    `attention of ${shown}, H=${H}, K=${K}, D=${D}, scale ${scale}${one.capacity ? ", room for more" : ""}`,
    (gpu) => checkAttention(gpu, one),
    { layouts: LAYOUTS },
  );
}

function checkAttention(gpu: Gpu, { lengths, H, K, D, scale, capacity }: Case): Promise<void> {
  const sequenceOffsets = offsetsOf(lengths);
  const N = sequenceOffsets[lengths.length];
  const dims = { N, H, K, D };
  return checkOp(gpu, {
    op: `attention of ${lengths}`,
    inputs: {
      q: { shape: [N, H * D], scale, capacity },
      k: { shape: [N, K * D], scale, capacity },
      v: { shape: [N, K * D], capacity },
    },
    run: ({ q, k, v }) =>
      attention(q, k, v, { headDim: D, bounds: sequenceBounds(gpu, sequenceOffsets, { capacity }) }),
    reference: ({ q, k, v }) => ({
      output: reference.forward({ q, k, v, sequenceOffsets }, dims).out,
      backward: (dOut) => {
        const { dQ, dK, dV } = reference.backward({ q, k, v, sequenceOffsets }, dims, { dOut });
        return { q: dQ, k: dK, v: dV };
      },
    }),
    // Scores s of magnitude up to 300 are rounded to 1.5e-5 before exp(s), which scales by it; then gradients are
    // multiplied by q and k of magnitude 30.
    ...(scale === 10 ? { atol: 2e-3, rtol: 1e-4 } : {}),
  });
}

gpuTest("attention refuses widths that do not fit head_dim, and bounds of other tokens", (gpu) => {
  const tensor = (columns: number) => upload(gpu, new Float32Array(2 * columns), { shape: [2, columns] });
  const bounds = sequenceBounds(gpu, Uint32Array.of(0, 2));
  const cases: [number, number, number, number][] = [[12, 8, 8, 8], [24, 16, 16, 8], [12, 12, 12, 6], [
    8,
    8,
    4,
    4,
  ]];
  for (const [q, k, v, headDim] of cases) {
    assert.throws(() => attention(tensor(q), tensor(k), tensor(v), { headDim, bounds }), ShapeError);
  }
  const short = sequenceBounds(gpu, Uint32Array.of(0, 1));
  assert.throws(
    () => attention(tensor(8), tensor(8), tensor(8), { headDim: 8, bounds: short }),
    new ShapeError("Cannot run attention: expected the sequence bounds of shape [2], found [1]"),
  );
});

gpuTest("attention refuses sequences past a software adapter's loops", (gpu) => {
  const q = upload(gpu, new Float32Array(64), { shape: [1, 64] });
  const k = upload(gpu, new Float32Array(4), { shape: [1, 4] });
  const v = upload(gpu, new Float32Array(4), { shape: [1, 4] });
  const bounds = { ...sequenceBounds(gpu, Uint32Array.of(0, 1)), longest: 8000 };
  assert.throws(
    () => attention(q, k, v, { headDim: 4, bounds }),
    /expected at most 65000 loop iterations .* found 128128 \(sequence 8000 x 16 heads a group\)/,
  );
}, { layouts: ["cpu"] });

gpuTest("attention refuses k and v in one tensor, whose gradients would meet", (gpu) => {
  const x = upload(gpu, new Float32Array(4), { shape: [1, 4] });
  const bounds = sequenceBounds(gpu, Uint32Array.of(0, 1));
  assert.throws(() => attention(x, x, x, { headDim: 4, bounds }), ShapeError);
});

gpuTest("sequenceBounds refuses offsets that do not ascend from 0", (gpu) => {
  assert.throws(() => sequenceBounds(gpu, Uint32Array.of(1, 3)), RangeError);
  assert.throws(
    () => sequenceBounds(gpu, Uint32Array.of(0, 3, 2)),
    new RangeError("Cannot pack sequences: expected offsets ascending from 0, found 3 before 2"),
  );
});

function offsetsOf(lengths: readonly number[]): Uint32Array {
  const offsets = new Uint32Array(lengths.length + 1);
  lengths.forEach((length, s) => offsets[s + 1] = offsets[s] + length);
  return offsets;
}
