import assert from "node:assert/strict";
import { fromHost, release, writeHost } from "../../engine/tensor.ts";
import { createOptimizer } from "../../train/optimizer.ts";
import { gpuTest } from "../gpu.ts";
import { readWeights, tinyModel } from "../tiny_model.ts";

const OPTIONS = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 };

gpuTest("frozen parameters are refused, and nothing stays on the GPU", (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  assert.throws(
    () => createOptimizer(model.parameters, OPTIONS),
    /^TypeError: Cannot make an optimizer: expected trainable parameters, found frozen ones$/,
  );
});

gpuTest("a gradient that is not finite changes neither weights nor moments", async (gpu) => {
  const slot = { metrics: fromHost(gpu, new Float32Array(4), { shape: [4] }), index: 1, accumulate: false };
  const results: Float32Array[] = [];
  for (const bad of [NaN, Infinity, undefined]) {
    using model = tinyModel(gpu);
    using optimizer = createOptimizer(model.parameters, OPTIONS);
    const [{ gradient }] = model.parameters.blocks;
    const good = Float32Array.from({ length: gradient!.shape[0] }, (_, i) => Math.sin(i));
    const before = await readWeights(model);
    if (bad === undefined) {
      // The same number of steps, for the bias correction, with no gradient and so no moments; rate 0 for no decay.
      writeHost(gradient!, new Float32Array(good.length));
      optimizer.step(0, slot);
    } else {
      writeHost(gradient!, good.with(good.length - 1, bad));
      optimizer.step(0.1, slot);
    }
    assert.deepEqual(await readWeights(model), before, `${bad}`);
    writeHost(gradient!, good);
    optimizer.step(0.1, slot);
    assert.equal(optimizer.steps, 2);
    results.push(await readWeights(model));
    assert.notDeepEqual(results.at(-1), before);
  }
  assert.deepEqual(results[0], results[2]);
  assert.deepEqual(results[1], results[2]);
  release(slot.metrics);
});
