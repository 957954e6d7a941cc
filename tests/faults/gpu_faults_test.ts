/**
 * A device that is lost, refuses memory, or a kernel that does not compile: an error at the next readback, never a hang.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type Gpu, openGpu } from "../../engine/gpu.ts";
import { empty, release, toHost } from "../../engine/tensor.ts";
import { input, type Kernel, output } from "../../shaders/kernel.ts";
import { sftObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { ensureAdapter } from "../../train/software_driver.ts";
import { train } from "../../train/trainer.ts";
import { createRandom, uniformInt } from "../../train/random.ts";
import { saveToRun, type Session } from "../../train/session.ts";
import { tinyModel, tinyTokenizer } from "../tiny_model.ts";
import { contentsBelow } from "./disk.ts";

/** Far more than any of these takes. */
const DEADLINE_MS = 30_000;

async function within<Result>(body: Promise<Result>): Promise<Result> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("hangs")), DEADLINE_MS);
  });
  return await Promise.race([body, late]).finally(() => clearTimeout(timer));
}

function faultTest(name: string, body: (gpu: Gpu) => Promise<void>): void {
  Deno.test(`a GPU fault: ${name}`, async () => {
    await ensureAdapter();
    using gpu = await openGpu();
    await within(body(gpu));
  });
}

const completion = { promptIds: [1, 2], completionIds: [3, 4], source: { file: "data" } };

/** Loses the device at a readback, from 1. */
function loseAt(gpu: Gpu, readback: number): { reads: number } {
  const { queue } = gpu;
  const read = queue.read.bind(queue);
  const counter = { reads: 0 };
  queue.read = (range) => {
    const result = read(range);
    if (++counter.reads === readback) gpu.device.destroy();
    return result;
  };
  return counter;
}

/** Loads, runs a reference pass, trains, evaluates and reads the weights back, losing the device at a readback. */
async function runUntilLost(gpu: Gpu, readback: number): Promise<void> {
  loseAt(gpu, readback);
  using model = tinyModel(gpu);
  const pairs = [{ chosen: completion, rejected: completion, source: completion.source }];
  await referenceLogps(model, pairs);
  using objective = sftObjective(model, [completion]);
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-3, warmupSteps: 0, maxSteps: 6 },
    ...{ batchSize: 1, seed: 0, logEvery: 1 },
  });
  await referenceLogps(model, pairs);
  for (const name of model.parameters.shapes.keys()) await model.parameters.read(name);
  assert.fail("a lost device must show");
}

const random = createRandom(7);
for (let index = 0; index < 8; index++) {
  const readback = 1 + uniformInt(random, 16);
  faultTest(`the device is lost at readback ${readback} of a run`, async (gpu) => {
    await assert.rejects(runUntilLost(gpu, readback), {
      name: "GpuFaultError",
      message: /^Cannot go on: the GPU device was lost/,
    });
  });
}

faultTest("a kernel that does not compile", async (gpu) => {
  const bad: Kernel<null> = {
    name: "bad",
    doc: "",
    build: () => ({
      ...{ bindings: { x: input("f32"), y: output("f32") }, params: { n: "u32" }, workgroupSize: [1, 1] },
      body: "this is no WGSL",
    }),
  };
  const [x, y] = [empty(gpu, [4]), empty(gpu, [4])];
  gpu.dispatch(bad, {
    ...{ constants: null, bindings: { x: x.range, y: y.range }, params: { n: 1 }, workgroups: 1 },
  });
  await assert.rejects(toHost(y), { name: "ShaderError", message: /^Cannot compile bad/ });
});

faultTest("memory that the device refuses", async (gpu) => {
  const { device } = gpu;
  const create = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => create({ ...descriptor, size: device.limits.maxBufferSize * 2 });
  const refused = empty(gpu, [2 ** 20]);
  device.createBuffer = create;
  gpu.queue.clear(refused.range);
  await assert.rejects(toHost(refused), { name: "GpuFaultError", message: /the GPU reported: Buffer size/ });
  release(refused);
});

Deno.test("a GPU fault: the device is lost while a run's model is written: the older one stays, whole", async () => {
  await ensureAdapter();
  const folder = await Deno.makeTempDir();
  const session = (
    gpu: Gpu,
  ) => ({ gpu, folder, progress: () => ({ update() {}, finish() {} }) } as Partial<Session> as Session);
  const save = async (gpu: Gpu, readback: number, seed: number) => {
    using model = tinyModel(gpu, { seed });
    const counter = loseAt(gpu, readback);
    await saveToRun(session(gpu), model, { name: "model", tokenizer: tinyTokenizer() });
    return counter.reads;
  };
  using whole = await openGpu();
  const reads = await save(whole, Infinity, 1);
  const before = contentsBelow(folder);
  assert.ok(reads > 3 && "model/model.safetensors" in before);
  for (const readback of [1, Math.ceil(reads / 2), reads]) {
    using gpu = await openGpu();
    await assert.rejects(within(save(gpu, readback, 2)), {
      name: "GpuFaultError",
      message: /^Cannot go on: the GPU device was lost/,
    });
    assert.deepEqual(contentsBelow(folder), before, `readback ${readback} of ${reads}`);
  }
  await Deno.remove(folder, { recursive: true });
});
