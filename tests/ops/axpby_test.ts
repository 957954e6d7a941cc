import assert from "node:assert/strict";
import { axpby } from "../../engine/ops/axpby.ts";
import { CLIP_STATE } from "../../engine/ops/adamw.ts";
import { ShapeError } from "../../engine/shape.ts";
import { fromHost, release, upload } from "../../engine/tensor.ts";
import { gpuTest, readAll } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { assertClose } from "./check_op.ts";

for (const length of [1, 3, 64, 4160]) {
  for (const [a, b] of [[-0.3, 1], [2, 0.5], [1, 0]]) {
    for (const power of [undefined, 1, -1] as const) {
      gpuTest(`axpby of ${length}: ${a} x + ${b} y, norm to the power ${power}`, async (gpu) => {
        const random = seededRandom(length);
        const [x, y] = [1, 2].map(() => Float32Array.from(normals(random, { length })));
        const tensor = fromHost(gpu, y, { shape: [length] });
        const state = fromHost(gpu, Float32Array.of(2.5, 9, 9, 9), { shape: [CLIP_STATE.size] });
        axpby(upload(gpu, x), tensor, { a, b, ...(power ? { norm: { state, power } } : {}) });
        const factor = a * 2.5 ** (power ?? 0);
        const [found] = await readAll(gpu, [tensor]);
        assertClose(found, y.map((value, i) => factor * x[i] + b * value), { what: "y" });
        for (const kept of [tensor, state]) release(kept);
      });
    }
  }
}

gpuTest("axpby along a direction of no length goes nowhere, and b = 0 forgets what y held", async (gpu) => {
  const vector = (...values: number[]) => fromHost(gpu, Float32Array.from(values), { shape: [4] });
  const [x, y, state, infinite] = [
    vector(0, 0, 0, 0),
    vector(1, 2, 3, 4),
    vector(0, 1, 1, 0),
    vector(NaN, Infinity, 1, 1),
  ];
  axpby(x, y, { a: 5, norm: { state, power: -1 } });
  axpby(y, infinite, { a: 2, b: 0 });
  const [still, twice] = await readAll(gpu, [y, infinite]);
  assert.deepEqual([...still], [1, 2, 3, 4]);
  assert.deepEqual([...twice], [2, 4, 6, 8]);
  for (const kept of [x, y, state, infinite]) release(kept);
});

gpuTest("axpby refuses other shapes and half precision", (gpu) => {
  const x = upload(gpu, new Float32Array(4));
  assert.throws(() => axpby(x, upload(gpu, new Float32Array(8)), { a: 1 }), ShapeError);
  assert.throws(() => axpby(x, upload(gpu, new Uint32Array(4)), { a: 1 }), ShapeError);
});
