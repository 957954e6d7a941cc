import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { argmax } from "../../engine/ops/argmax.ts";
import { ShapeError } from "../../engine/shape.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release, scope, toHost, upload } from "../../engine/tensor.ts";
import { gpuTest } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";

for (const [R, V] of [[1, 1], [3, 17], [17, 63], [5, 64], [2, 65], [65, 257], [9, 1000]]) {
  gpuTest(`argmax of [${R}, ${V}]`, async (gpu) => {
    const values = Float32Array.from(normals(seededRandom(R * V), { length: R * V }));
    const rows = Array.from({ length: R }, (_, r) => values.subarray(r * V, (r + 1) * V));
    assert.deepEqual(await argmaxOf(gpu, values, [R, V]), rows.map((row) => row.indexOf(Math.max(...row))));
  });

  gpuTest(`argmax of [${R}, ${V}] with few distinct values takes the first of equals`, async (gpu) => {
    const random = seededRandom(R + V);
    const values = Float32Array.from({ length: R * V }, () => Math.floor(random() * 3) - 5);
    const rows = Array.from({ length: R }, (_, r) => values.subarray(r * V, (r + 1) * V));
    assert.deepEqual(await argmaxOf(gpu, values, [R, V]), rows.map((row) => row.indexOf(Math.max(...row))));
  });
}

gpuTest("argmax of rows that are infinite, or all the lowest number", async (gpu) => {
  const lowest = -3.4028234663852886e38;
  const values = Float32Array.of(
    ...[lowest, lowest, lowest],
    ...[-Infinity, -Infinity, -Infinity],
    ...[-Infinity, lowest, -Infinity],
    ...[1, Infinity, Infinity],
  );
  assert.deepEqual(await argmaxOf(gpu, values, [4, 3]), [0, 0, 1, 1]);
});

gpuTest("argmax refuses a vector, and to be recorded", (gpu) => {
  assert.throws(
    () => argmax(upload(gpu, new Float32Array(4))),
    new ShapeError("Cannot run argmax: expected x of shape [any, any], found [4]"),
  );
  using _tape = new Tape(gpu);
  const x = { ...upload(gpu, new Float32Array(4), { shape: [2, 2] }), requiresGrad: true };
  assert.throws(() => argmax(x), new ShapeError("Cannot run argmax: it has no gradient"));
});

async function argmaxOf(
  gpu: Gpu,
  values: Float32Array<ArrayBuffer>,
  shape: [number, number],
): Promise<number[]> {
  const x = fromHost(gpu, values, { shape });
  const ids = scope(gpu, () => argmax(x));
  const found = await toHost(ids);
  release(x);
  release(ids);
  return [...found];
}
