import assert from "node:assert/strict";
import { rope, ropeTable } from "../../engine/ops/rope.ts";
import { ShapeError } from "../../engine/shape.ts";
import { release, toHost, upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { integers, seededRandom } from "../reference/random.ts";
import * as reference from "../reference/rope.ts";
import { checkOp } from "./check_op.ts";

// `rotated` of the H heads; the rest is left alone. Head sizes 2 and 6 leave halves that do not divide by four. Far positions and a large base come as in real models.
const CASES = [
  { N: 1, H: 1, rotated: 1, D: 2, theta: 10000, positions: 1 },
  { N: 17, H: 3, rotated: 2, D: 6, theta: 10000, positions: 64 },
  { N: 63, H: 2, rotated: 2, D: 8, theta: 10000, positions: 257 },
  { N: 64, H: 4, rotated: 3, D: 32, theta: 10000, positions: 2048 },
  { N: 65, H: 1, rotated: 1, D: 64, theta: 500000, positions: 8192 },
  { N: 257, H: 6, rotated: 4, D: 16, theta: 500000, positions: 131072 },
  { N: 17, H: 6, rotated: 4, D: 16, theta: 10000, positions: 64, type: "f16" as const },
];

for (const { N, H, rotated, D, theta, positions, type } of CASES) {
  gpuTest(
    `rope of ${rotated} of [${N}, ${H} * ${D}] ${type ?? "f32"}, positions below ${positions}`,
    async (gpu) => {
      const at = Uint32Array.from(integers(seededRandom(N), { length: N, high: positions }));
      at[0] = positions - 1;
      const dims = { N, H, D, theta, rotated };
      const table = ropeTable(gpu, { positions, headDim: D, theta });
      await checkOp(gpu, {
        op: `rope [${N}, ${H} * ${D}]`,
        inputs: { x: { shape: [N, H * D], type } },
        outputType: type,
        run: ({ x }) => rope(x, upload(gpu, at), table, { heads: rotated }),
        reference: ({ x }) => ({
          output: reference.forward({ x, positions: at }, dims).y,
          backward: (dY) => ({ x: reference.backward({ x, positions: at }, dims, { dY }).dX }),
        }),
        // The table holds cosines and sines rounded once from f64, wherever the position.
        ...(type === "f16" ? { atol: 2e-3, rtol: 2 ** -10 } : { atol: 1e-6, rtol: 1e-6 }),
      });
      release(table);
    },
    { layouts: LAYOUTS },
  );
}

gpuTest("a table of scaled frequencies holds the cosines and sines of those", async (gpu) => {
  const [positions, headDim, theta] = [9, 8, 10000];
  const scale = (frequency: number) => frequency < 0.05 ? frequency / 4 : frequency;
  const table = ropeTable(gpu, { positions, headDim, theta, scale });
  const found = await toHost(table);
  const kinds = new Set<number>();
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < 4; i++) {
      const frequency = 10 ** -i;
      kinds.add(scale(frequency) / frequency);
      const [cosine, sine] = [found[position * 8 + i], found[position * 8 + 4 + i]];
      assert.ok(Math.abs(cosine - Math.cos(position * scale(frequency))) < 1e-7);
      assert.ok(Math.abs(sine - Math.sin(position * scale(frequency))) < 1e-7);
    }
  }
  assert.deepEqual(kinds, new Set([1, 0.25]));
  release(table);
});

gpuTest("rope refuses an odd head_dim, a width that is no multiple of it, and too few positions", (gpu) => {
  assert.throws(() => ropeTable(gpu, { positions: 2, headDim: 3, theta: 10 }), ShapeError);
  const table = ropeTable(gpu, { positions: 2, headDim: 4, theta: 10 });
  const positions = upload(gpu, new Uint32Array(2));
  assert.throws(
    () => rope(upload(gpu, new Float32Array(12), { shape: [2, 6] }), positions, table),
    new ShapeError("Cannot run rope: expected whole heads of head_dim 4 in a row, found 6 columns"),
  );
  assert.throws(
    () => rope(upload(gpu, new Float32Array(8), { shape: [1, 8] }), positions, table, { heads: 3 }),
    new ShapeError("Cannot run rope: expected 3 heads of head_dim 4 in a row, found 8 columns"),
  );
  assert.throws(
    () => rope(upload(gpu, new Float32Array(12), { shape: [3, 4] }), positions, table),
    new ShapeError("Cannot run rope: expected positions of shape [3], found [2]"),
  );
  release(table);
});
