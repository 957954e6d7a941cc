import assert from "node:assert/strict";
import { mix } from "../../engine/ops/mix.ts";
import { ShapeError } from "../../engine/shape.ts";
import { empty, fromHost, release } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS, readAll } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { assertClose } from "./check_op.ts";

// Parameters come in blocks of whole quads. The last is more than one row of workgroups.
for (const length of [4, 16, 64, 68, 256, 4160]) {
  for (const alpha of [0.6, 1, 0.001]) {
    gpuTest(`mix of ${length} with alpha ${alpha}, and its copy in f16`, async (gpu) => {
      const random = seededRandom(length);
      const [x, y] = [1, 2].map(() => Float32Array.from(normals(random, { length })));
      const tensor = (values: Float32Array<ArrayBuffer>) => fromHost(gpu, values, { shape: [length] });
      const [from, plain, master] = [tensor(x), tensor(y), tensor(y)];
      const copy = empty(gpu, [length], { type: "f16", owner: "caller" });
      mix(from, plain, { alpha });
      mix(from, master, { alpha, copy });
      const [found, foundMaster, foundCopy] = await readAll(gpu, [plain, master, copy]);
      assertClose(found, y.map((value, i) => alpha * x[i] + (1 - alpha) * value), { what: "y", atol: 1e-6 });
      assert.deepEqual(foundMaster, found, "the master is the same with a copy beside it");
      // f16 keeps 11 bits; below 2^-14 its steps are 2^-24.
      assertClose(foundCopy, found, { what: "copy", rtol: 2 ** -11, atol: 2 ** -25 });
      assert.ok(foundCopy.every((value) => value === Math.f16round(value)), "every element is of f16");
      [from, plain, master, copy].forEach(release);
    }, { layouts: length === 68 ? LAYOUTS : undefined });
  }
}

gpuTest("mix adds up in f32: small moves of an f16 model's masters are not lost", async (gpu) => {
  const vector = (value: number) => fromHost(gpu, new Float32Array(4).fill(value), { shape: [4] });
  const [x, y] = [vector(1.01), vector(1)];
  const copy = empty(gpu, [4], { type: "f16", owner: "caller" });
  // Each moves y by less than half a step of f16 at 1, which is 2^-10.
  for (let times = 0; times < 200; times++) mix(x, y, { alpha: 0.01, copy });
  const [found, half] = await readAll(gpu, [y, copy]);
  const expected = 1.01 - 0.01 * 0.99 ** 200;
  assertClose(found, Array(4).fill(expected), { what: "master", rtol: 1e-5, atol: 0 });
  assertClose(half, Array(4).fill(expected), { what: "copy", rtol: 2 ** -11, atol: 0 });
  [x, y, copy].forEach(release);
});

gpuTest("mix refuses tensors of different sizes", (gpu) => {
  const [x, y] = [
    fromHost(gpu, new Float32Array(4), { shape: [4] }),
    fromHost(gpu, new Float32Array(8), { shape: [8] }),
  ];
  assert.throws(() => mix(x, y, { alpha: 0.5 }), ShapeError);
  [x, y].forEach(release);
});
