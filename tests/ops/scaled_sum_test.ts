import assert from "node:assert/strict";
import { scaledSum } from "../../engine/ops/scaled_sum.ts";
import { ShapeError } from "../../engine/shape.ts";
import { fromHost, release, scope, upload } from "../../engine/tensor.ts";
import { gpuTest, readAll } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { checkOp } from "./check_op.ts";

for (const R of [1, 17, 63, 64, 65, 257, 5000]) {
  gpuTest(`scaled_sum of ${R}`, (gpu) => {
    const scale = -1 / R;
    return checkOp(gpu, {
      op: `scaled_sum ${R}`,
      inputs: { x: { shape: [R] } },
      run: ({ x }) => scaledSum(x, { scale }),
      reference: ({ x }) => ({
        output: Float64Array.of(scale * x.reduce((total, value) => total + value, 0)),
        backward: ([dY]) => ({ x: new Float64Array(R).fill(scale * dY) }),
      }),
    });
  });

  gpuTest(`scaled_sum of ${R} with weights`, async (gpu) => {
    const scale = -1 / R;
    const weights = Float32Array.from(normals(seededRandom(R), { length: R }));
    const kept = fromHost(gpu, weights, { shape: [R] });
    await checkOp(gpu, {
      op: `scaled_sum ${R} weighted`,
      inputs: { x: { shape: [R] } },
      run: ({ x }) => scaledSum(x, { weights: kept, scale }),
      reference: ({ x }) => ({
        output: Float64Array.of(scale * x.reduce((total, value, r) => total + weights[r] * value, 0)),
        backward: ([dY]) => ({ x: Float64Array.from(weights, (weight) => scale * dY * weight) }),
      }),
    });
    release(kept);
  });
}

gpuTest("scaled_sum reports to its metric alone: overwriting, then adding", async (gpu) => {
  const metrics = fromHost(gpu, Float32Array.of(7, 7, 7), { shape: [3] });
  scope(gpu, () => {
    for (const accumulate of [false, true]) {
      scaledSum(upload(gpu, Float32Array.of(1, 2, 3)), {
        scale: 0.5,
        metric: { metrics, index: 1, accumulate },
      });
    }
  });
  const [found] = await readAll(gpu, [metrics]);
  assert.deepEqual(found, Float32Array.of(7, 6, 7));
  release(metrics);
});

gpuTest("scaled_sum refuses a matrix", (gpu) => {
  assert.throws(
    () => scaledSum(upload(gpu, new Float32Array(4), { shape: [2, 2] }), { scale: 1 }),
    new ShapeError("Cannot run scaled_sum: expected x of shape [any], found [2, 2]"),
  );
});

gpuTest("scaled_sum refuses weights of another length", (gpu) => {
  const [x, weights] = [4, 3].map((length) => upload(gpu, new Float32Array(length)));
  assert.throws(
    () => scaledSum(x, { weights, scale: 1 }),
    new ShapeError("Cannot run scaled_sum: expected weights of shape [4], found [3]"),
  );
});
