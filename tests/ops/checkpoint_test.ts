/**
 * Activation checkpointing against the plain step: the same gradients, in less memory.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Gpu } from "../../engine/gpu.ts";
import { checkpoint } from "../../engine/ops/checkpoint.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { scaledSum } from "../../engine/ops/scaled_sum.ts";
import { activation } from "../../engine/ops/activation.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release, scope, type Tensor, toHost } from "../../engine/tensor.ts";
import { packSequences } from "../../train/data/batch.ts";
import { uploadBatch } from "../../train/models/batch_tensors.ts";
import { batchTokenLogps } from "../../train/models/model.ts";
import { gpuTest, testGpu } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { randomCompletions, readGradients, tinyModel } from "../tiny_model.ts";

const silu = (x: Tensor): Tensor => activation(x, { kind: "silu" });

Deno.test("a checkpointed Llama has the plain one's gradients bit for bit, in less memory", async () => {
  const { device, adapter } = await testGpu();
  // Longer than wide, so that activations are what is large.
  const batch = packSequences(randomCompletions(64, 3));
  const run = async (activationCheckpointing: boolean) => {
    const gpu = new Gpu(device, adapter, { poison: true });
    using plain = tinyModel(gpu, { config: { num_hidden_layers: 2 } });
    const model = { ...plain, activationCheckpointing };
    const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
    gpu.queue.submit();
    const before = gpu.stats().memory.peakBytes;
    model.parameters.zeroGradients();
    using tape = new Tape(gpu);
    const loss = scaledSum(batchTokenLogps(model, uploadBatch(model, batch)), { scale: -0.01 });
    tape.backward([{ tensor: loss, gradient: one }]);
    const result = { loss: [...await toHost(loss)], gradients: await readGradients(plain) };
    release(one);
    return { ...result, stepBytes: gpu.stats().memory.peakBytes - before };
  };
  const plain = await run(false);
  const less = await run(true);
  assert.deepEqual(less.loss, plain.loss);
  assert.ok(plain.gradients.some((value) => value !== 0) && plain.gradients.every(Number.isFinite));
  assert.deepEqual(less.gradients, plain.gradients);
  assert.ok(less.stepBytes < 0.9 * plain.stepBytes, `${less.stepBytes} of ${plain.stepBytes} bytes`);
});

/** [4, 4] with a gradient of its own, as a parameter. */
function parameter(gpu: Gpu, seed: number): Tensor & { grad: Tensor } {
  const values = normals(seededRandom(seed), { length: 16, scale: 1 });
  const grad = fromHost(gpu, new Float32Array(16), { shape: [4, 4] });
  return { ...fromHost(gpu, Float32Array.from(values), { shape: [4, 4], requiresGrad: true }), grad };
}

gpuTest(
  "gradients reach tensors around a checkpoint, inside another one, and where x wants none",
  async (gpu) => {
    const [a, b, frozen] = [parameter(gpu, 1), parameter(gpu, 2), parameter(gpu, 3)];
    const x = { ...frozen, requiresGrad: false };
    const one = fromHost(gpu, new Float32Array(16).fill(1), { shape: [4, 4] });
    const gradients = async (keep: (input: Tensor, body: (input: Tensor) => Tensor) => Tensor) => {
      for (const { grad } of [a, b]) gpu.queue.clear(grad.range);
      using tape = new Tape(gpu);
      const outside = silu(a);
      const y = keep(x, (x) => matmul(x, a, { kind: "NT" }));
      const z = keep(
        y,
        (y) => keep(matmul(y, outside, { kind: "NT" }), (inner) => matmul(inner, b, { kind: "NT" })),
      );
      tape.backward([{ tensor: matmul(z, y, { kind: "NT" }), gradient: one }]);
      return [await toHost(a.grad), await toHost(b.grad)];
    };
    const plain = await gradients((input, body) => body(input));
    assert.ok(plain.flatMap((values) => [...values]).every((value) => Number.isFinite(value) && value !== 0));
    assert.deepEqual(await gradients(checkpoint), plain);
    for (const tensor of [a, a.grad, b, b.grad, frozen, frozen.grad, one]) release(tensor);
  },
);

gpuTest("without a tape a checkpoint is its body, and leaves only the result", async (gpu) => {
  const x = parameter(gpu, 4);
  const before = gpu.stats().memory.usedBytes;
  const y = scope(gpu, () => checkpoint(x, (x) => silu(silu(x))));
  assert.equal(gpu.stats().memory.usedBytes - before, 256);
  const plain = scope(gpu, () => silu(silu(x)));
  assert.deepEqual(await toHost(y), await toHost(plain));
  for (const tensor of [x, x.grad, y, plain]) release(tensor);
});
