import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { GpuFaultError, openGpu } from "../../engine/gpu.ts";
import { add } from "../../engine/ops/add.ts";
import { empty, fromHost, release, scope, type Tensor, toHost, upload } from "../../engine/tensor.ts";
import { addForward } from "../../shaders/elementwise.ts";
import { input, type Kernel, output } from "../../shaders/kernel.ts";
import { LINEAR_WORKGROUP } from "../../shaders/lib.ts";
import { wgsl } from "../../shaders/wgsl.ts";
import { gpuTest, readAll, testGpu } from "../gpu.ts";

/** y[i] += step, one element a workgroup. */
const increase: Kernel<Record<string, never>> = {
  name: "increase",
  doc: "y[i] += step.",
  build: () => ({
    bindings: { y: output("f32") },
    params: { elements: "u32", step: "f32" },
    workgroupSize: [1, 1],
    body: wgsl`
let i = ${LINEAR_WORKGROUP};
if (i < p.elements) { y[i] += p.step; }`,
  }),
};

function dispatchIncrease(y: Tensor, step: number): void {
  const elements = y.shape[0];
  y.gpu.dispatch(increase, {
    constants: {},
    bindings: { y: y.range },
    params: { elements, step },
    workgroups: elements,
  });
}

function zeros(gpu: Gpu, length: number): Tensor {
  return fromHost(gpu, new Float32Array(length), { shape: [length] });
}

gpuTest(
  "bytes written at once come after what was recorded before, and may change afterwards",
  async (gpu) => {
    const y = zeros(gpu, 64);
    dispatchIncrease(y, 1);
    const bytes = new Uint8Array(Float32Array.from({ length: 8 }, (_, i) => 10 + i).buffer);
    const { allocation } = y.range;
    const before = gpu.stats().memory;
    gpu.queue.write({ allocation, offsetBytes: 32, sizeBytes: 16 }, bytes.subarray(8, 24));
    assert.deepEqual(gpu.stats().memory, before);
    bytes.fill(0);
    dispatchIncrease(y, 100);
    assert.deepEqual(
      (await toHost(y)).subarray(6, 14),
      Float32Array.of(101, 101, 112, 113, 114, 115, 101, 101),
    );
    const wrong = new RangeError("Cannot write: expected 16 bytes, a multiple of four, found 8");
    assert.throws(
      () => gpu.queue.write({ allocation, offsetBytes: 0, sizeBytes: 16 }, bytes.subarray(8, 16)),
      wrong,
    );
    release(y);
  },
);

gpuTest("dispatches, copies, clears and uploads of one submit happen in order", async (gpu) => {
  const [a, b] = [zeros(gpu, 4), zeros(gpu, 4)];
  dispatchIncrease(a, 1);
  gpu.queue.copy(a.range, b.range);
  dispatchIncrease(a, 2);
  gpu.queue.copy(upload(gpu, Float32Array.of(10, 20)).range, { ...a.range, offsetBytes: 8, sizeBytes: 8 });
  dispatchIncrease(a, 4);
  gpu.queue.clear({ ...a.range, sizeBytes: 4 });
  dispatchIncrease(a, 0.5);
  const { submits } = gpu.stats();
  assert.deepEqual(await readAll(gpu, [a, b]), [
    Float32Array.of(0.5, 7.5, 14.5, 24.5),
    Float32Array.of(1, 1, 1, 1),
  ]);
  assert.equal(gpu.stats().submits - submits, 1);
  release(a);
  release(b);
});

gpuTest("parameters of more dispatches than one page holds: pages are added once and reused", async (gpu) => {
  const y = zeros(gpu, 4);
  const created: number[] = [];
  // A page of 64 KiB holds 256 blocks of parameters.
  for (let turn = 0; turn < 3; turn++) {
    for (let step = 1; step <= 600; step++) dispatchIncrease(y, step);
    const [found] = await readAll(gpu, [y]);
    assert.deepEqual(found, new Float32Array(4).fill((turn + 1) * 180_300));
    created.push(gpu.stats().memory.created);
  }
  assert.equal(created[1], created[0]);
  assert.equal(created[2], created[0]);
  release(y);
});

gpuTest("uploads of more bytes than one page holds: pages are added once and reused", async (gpu) => {
  const lengths = [1, 200_000, 100_000, 3, 500_000];
  const created: number[] = [];
  for (let turn = 0; turn < 3; turn++) {
    const values = lengths.map((length, index) => new Float32Array(length).fill(turn * 10 + index));
    const found = await readAll(gpu, values.map((one) => upload(gpu, one)));
    assert.deepEqual(found, values);
    created.push(gpu.stats().memory.created);
  }
  assert.equal(created[2], created[1]);
});

gpuTest("an upload that is used after its submit is refused: bound, copied or read", async (gpu) => {
  const old = upload(gpu, Float32Array.of(1, 2));
  assert.deepEqual([...await toHost(old)], [1, 2]);
  const fresh = upload(gpu, Float32Array.of(3, 4));
  const message = /a was uploaded for an earlier submit/;
  assert.throws(() => scope(gpu, () => void add(old, fresh)), message);
  const target = empty(gpu, [2], { owner: "caller" });
  assert.throws(() => gpu.queue.copy(old.range, target.range), /uploaded for an earlier submit/);
  await assert.rejects(toHost(old), /uploaded for an earlier submit/);
  release(target);
});

gpuTest("a dispatch without one of its parameters or bindings is refused, naming it", (gpu) => {
  const x = zeros(gpu, 4);
  const dispatch = {
    constants: { storage: "f32", memory: "buffer" } as const,
    bindings: { a: x.range, b: x.range, y: x.range },
    workgroups: 1,
  };
  assert.throws(
    () => gpu.dispatch(addForward, { ...dispatch, params: {} }),
    new TypeError(
      'Cannot dispatch add_forward {"storage":"f32","memory":"buffer"}: expected parameter elements, found none',
    ),
  );
  assert.throws(
    () =>
      gpu.dispatch(addForward, {
        ...dispatch,
        params: { elements: 4 },
        bindings: { a: x.range, y: x.range },
      }),
    new TypeError(
      'Cannot dispatch add_forward {"storage":"f32","memory":"buffer"}: expected binding b, found none',
    ),
  );
  release(x);
});

gpuTest(
  "more workgroups than a dimension has are folded; a pair that does not fit is refused",
  async (gpu) => {
    const length = 65535 + 100;
    const y = zeros(gpu, length);
    dispatchIncrease(y, 1);
    const [found] = await readAll(gpu, [y]);
    assert.ok(found.every((value) => value === 1));
    const dispatch = { constants: {}, bindings: { y: y.range }, params: { elements: 1, step: 1 } };
    assert.throws(
      () => gpu.dispatch(increase, { ...dispatch, workgroups: [65536, 1] }),
      new RangeError(
        "Cannot dispatch increase: expected at most 65535 workgroups a dimension, found 65536 x 1",
      ),
    );
    const before = gpu.stats().dispatches;
    gpu.dispatch(increase, { ...dispatch, workgroups: 0 });
    assert.equal(gpu.stats().dispatches, before);
    release(y);
  },
);

gpuTest("a buffer given back and trimmed while recorded work uses it stays until the submit", async (gpu) => {
  const [x, y] = [fromHost(gpu, Float32Array.of(1, 2, 3, 4), { shape: [4] }), zeros(gpu, 4)];
  gpu.queue.copy(x.range, y.range);
  release(x);
  gpu.buffers.trim();
  assert.deepEqual(await readAll(gpu, [y]), [Float32Array.of(1, 2, 3, 4)]);
  release(y);
});

gpuTest("equal dispatches share a bind group and a pipeline", async (gpu) => {
  const y = zeros(gpu, 4);
  dispatchIncrease(y, 1);
  const before = gpu.stats();
  for (let turn = 0; turn < 5; turn++) {
    dispatchIncrease(y, 1);
    await readAll(gpu, [y]);
    dispatchIncrease(y, 1);
  }
  const after = gpu.stats();
  assert.equal(after.bindGroups, before.bindGroups);
  assert.equal(after.pipelines, before.pipelines);
  assert.equal(after.dispatches - before.dispatches, 10);
  release(y);
});

Deno.test("a kernel that does not compile is reported with its numbered lines at the next readback", async () => {
  await testGpu();
  using gpu = await openGpu();
  const broken: Kernel<Record<string, never>> = {
    name: "broken",
    doc: "Uses a name that is not there.",
    build: () => ({
      bindings: { x: input("f32") },
      params: { n: "u32" },
      workgroupSize: [1, 1],
      body: "let y = nothing;",
    }),
  };
  const x = empty(gpu, [4]);
  gpu.dispatch(broken, { constants: {}, bindings: { x: x.range }, params: { n: 1 }, workgroups: 1 });
  await assert.rejects(toHost(x), (error: Error) => {
    assert.equal(error.name, "ShaderError");
    assert.match(error.message, /^Cannot compile broken \{\}: /);
    assert.match(error.message, /^ +\d+ let y = nothing;$/m);
    return true;
  });
});

Deno.test("a validation error, which the platform only announces, stops the next readback", async () => {
  await testGpu();
  using gpu = await openGpu();
  const [small, large] = [empty(gpu, [4]), empty(gpu, [4096])];
  gpu.queue.copy(large.range, small.range);
  await assert.rejects(async () => {
    await toHost(small);
    await toHost(small);
  }, GpuFaultError);
});

Deno.test("a lost device and a disposed one are errors, not silence", async () => {
  await testGpu();
  using lost = await openGpu();
  const x = empty(lost, [4]);
  lost.device.destroy();
  await lost.device.lost;
  await assert.rejects(toHost(x), /Cannot go on: the GPU device was lost/);
  const disposed = await openGpu();
  disposed[Symbol.dispose]();
  assert.throws(() => disposed.check(), /expected an open device, found a disposed one/);
});
