import assert from "node:assert/strict";
import { narrow, widen } from "../../engine/dtype.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { createParameters } from "../../engine/parameters.ts";
import { fromHost, release, toHost, writeHost } from "../../engine/tensor.ts";
import { createMetricsRing } from "../../train/metrics.ts";
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

gpuTest(
  "a gradient that is not finite changes neither weights nor moments, and its step does not count",
  async (gpu) => {
    const slot = { metrics: fromHost(gpu, new Float32Array(4), { shape: [4] }), index: 1, accumulate: false };
    const results: Float32Array[] = [];
    for (const bad of [NaN, Infinity, undefined]) {
      using model = tinyModel(gpu);
      using optimizer = createOptimizer(model.parameters, OPTIONS);
      const [{ gradient }] = model.parameters.blocks;
      const good = Float32Array.from({ length: gradient!.shape[0] }, (_, i) => Math.sin(i));
      const before = await readWeights(model);
      if (bad !== undefined) {
        writeHost(gradient!, good.with(good.length - 1, bad));
        optimizer.step(0.1, slot);
      }
      assert.deepEqual(await readWeights(model), before, `${bad}`);
      writeHost(gradient!, good);
      optimizer.step(0.1, slot);
      assert.equal(optimizer.steps, bad === undefined ? 1 : 2);
      results.push(await readWeights(model));
      assert.notDeepEqual(results.at(-1), before);
    }
    assert.deepEqual(results[0], results[2]);
    assert.deepEqual(results[1], results[2]);
    release(slot.metrics);
  },
);

/** Sixteen parameters in f16 with their optimizer, and what a step reports. */
function scaledRun(gpu: Gpu) {
  const shapes = new Map([["weight", [4, 4]], ["norm", [5]]]);
  const parameters = createParameters(gpu, shapes, { trainable: true, storage: "f16" });
  const weight = Float32Array.from({ length: 16 }, (_, i) => Math.cos(i));
  parameters.write("weight", weight);
  const lossScale = { initial: 1024, growthInterval: 3, minimum: 1 };
  const optimizer = createOptimizer(parameters, { ...OPTIONS, lossScale });
  const ring = createMetricsRing(gpu, 1, { isScaled: true });
  const gradients = Float32Array.from({ length: 16 }, (_, i) => Math.sin(i + 1));
  return {
    ...{ parameters, optimizer, gradients },
    /** One step on gradients times `factor`; NaN stands for an overflow. */
    async step(factor: number) {
      parameters.zeroGradients();
      writeHost(parameters.get("weight").grad!, gradients.map((value) => value * factor));
      optimizer.step(0.1, ring.gradNorm(0));
      return (await ring.read(1, []))[0];
    },
    [Symbol.dispose]() {
      [ring, optimizer, parameters].forEach((one) => one[Symbol.dispose]());
    },
  };
}

gpuTest(
  "the loss scale halves at a gradient that is not finite and doubles after good steps",
  async (gpu) => {
    using run = scaledRun(gpu);
    const norm = Math.hypot(...run.gradients);
    assert.deepEqual([...await toHost(run.optimizer.seed)], [1024]);
    const expected = [[1024, 0], [512, 1], [512, 1], [512, 1], [1024, 1], [1024, 1]];
    for (const [index, factor] of [1024, Infinity, 512, 512, 512, 1024].entries()) {
      const before = await run.parameters.read("weight");
      const record = await run.step(factor);
      assert.deepEqual([record.loss_scale, record.skipped_steps], expected[index], `step ${index + 1}`);
      assert.deepEqual([...await toHost(run.optimizer.seed)], [expected[index][0]]);
      const after = await run.parameters.read("weight");
      if (factor === Infinity) assert.deepEqual(after, before, "the weights of a skipped step");
      else {
        assert.ok(Math.abs(record.grad_norm - norm) < 1e-5 * norm, `${record.grad_norm}`);
        assert.ok(after.every((value, i) => value !== before[i]));
      }
      assert.deepEqual(await toHost(run.parameters.get("weight")), widen(narrow(after, "f16"), "f16"));
    }
  },
);

gpuTest("updates do not depend on the loss scale nor on skipped steps", async (gpu) => {
  using plain = scaledRun(gpu);
  using skipping = scaledRun(gpu);
  for (const factors of [[1024, 1024, 1024], [Infinity, 512, NaN, 256, 256]].entries()) {
    for (const factor of factors[1]) await [plain, skipping][factors[0]].step(factor);
  }
  // Scales are powers of two, which change no digit.
  assert.deepEqual(await skipping.parameters.read("weight"), await plain.parameters.read("weight"));
});

gpuTest("a slot without a place for the loss scale is refused", (gpu) => {
  using run = scaledRun(gpu);
  const metrics = fromHost(gpu, new Float32Array(4), { shape: [4] });
  assert.throws(
    () => run.optimizer.step(0.1, { metrics, index: 0, accumulate: false }),
    new TypeError("Cannot scale the loss: expected a place where the scale is reported, found none"),
  );
  release(metrics);
});
