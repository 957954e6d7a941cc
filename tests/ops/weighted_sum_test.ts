import assert from "node:assert/strict";
import { weightedSum } from "../../engine/ops/weighted_sum.ts";
import { ShapeError } from "../../engine/shape.ts";
import { fromHost, release, scope, upload } from "../../engine/tensor.ts";
import { gpuTest, readAll } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { checkOp } from "./check_op.ts";

for (const R of [1, 63, 64, 65, 5000]) {
  gpuTest(`weighted_sum of ${R}`, async (gpu) => {
    const scale = -1 / R;
    const weights = Float32Array.from(normals(seededRandom(R), { length: R }));
    const kept = fromHost(gpu, weights, { shape: [R] });
    const metrics = fromHost(gpu, new Float32Array(1), { shape: [1] });
    await checkOp(gpu, {
      op: `weighted_sum ${R}`,
      inputs: { x: { shape: [R] } },
      run: ({ x }) =>
        weightedSum(x, { weights: kept, scale, metric: { metrics, index: 0, accumulate: false } }),
      reference: ({ x }) => ({
        output: Float64Array.of(scale * x.reduce((total, value, r) => total + weights[r] * value, 0)),
        backward: ([dY]) => ({ x: Float64Array.from(weights, (weight) => scale * dY * weight) }),
      }),
    });
    release(kept);
    release(metrics);
  });
}

gpuTest("weighted_sum reports to its metric alone: overwriting, then adding", async (gpu) => {
  const metrics = fromHost(gpu, Float32Array.of(7, 7, 7), { shape: [3] });
  scope(gpu, () => {
    for (const accumulate of [false, true]) {
      weightedSum(upload(gpu, Float32Array.of(1, 2, 3)), {
        weights: upload(gpu, Float32Array.of(1, 0, 3)),
        ...{ scale: 0.5, metric: { metrics, index: 1, accumulate } },
      });
    }
  });
  const [found] = await readAll(gpu, [metrics]);
  assert.deepEqual(found, Float32Array.of(7, 10, 7));
  release(metrics);
});

gpuTest("weighted_sum refuses weights of another length", (gpu) => {
  const metric = { metrics: upload(gpu, new Float32Array(1)), index: 0, accumulate: false };
  assert.throws(
    () =>
      weightedSum(upload(gpu, new Float32Array(4)), {
        weights: upload(gpu, new Float32Array(3)),
        ...{ scale: 1, metric },
      }),
    ShapeError,
  );
});
