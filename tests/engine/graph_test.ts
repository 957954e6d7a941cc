import assert from "node:assert/strict";
import { BufferArena } from "../../engine/buffers.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { GraphCache, recordGraph } from "../../engine/graph.ts";
import { createInputs } from "../../engine/inputs.ts";
import { add } from "../../engine/ops/add.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { scaledSum } from "../../engine/ops/scaled_sum.ts";
import { activation } from "../../engine/ops/activation.ts";
import { ShapeError } from "../../engine/shape.ts";
import { Tape } from "../../engine/tape.ts";
import {
  empty,
  fromHost,
  release,
  scope,
  type Tensor,
  toHost,
  upload,
  writeHost,
} from "../../engine/tensor.ts";
import { gpuTest, readAll } from "../gpu.ts";

const silu = (x: Tensor) => activation(x, { kind: "silu" });

const vector = (gpu: Gpu, ...values: number[]) =>
  fromHost(gpu, Float32Array.from(values), { shape: [values.length] });

gpuTest("a replay reads inputs and scalars as they are then, and makes nothing", async (gpu) => {
  using inputs = createInputs(gpu, { x: new Float32Array(8) });
  const { x } = inputs.write({ x: Float32Array.of(1, 2, 3) });
  let scale = 0;
  using graph = recordGraph(gpu, () => scaledSum(add(x, x), { scale: () => scale }));
  const run = async (values: number[]) => {
    inputs.write({ x: Float32Array.from(values) });
    graph.replay();
    return (await toHost(graph.result))[0];
  };
  scale = 1;
  assert.equal(await run([1, 2, 3]), 12);
  const before = gpu.stats();
  for (scale of [2, 3]) assert.equal(await run([scale, 1, 0]), 2 * scale * (scale + 1));
  const after = gpu.stats();
  assert.equal(after.memory.created, before.memory.created);
  assert.equal(after.bindGroups, before.bindGroups);
});

gpuTest("two replays with different scalars before one submit each see their own", async (gpu) => {
  const total = vector(gpu, 0, 0);
  const x = vector(gpu, 1);
  let [scale, index] = [1, 0];
  const metric = { metrics: total, index: () => index, accumulate: () => index === 1 };
  using graph = recordGraph(gpu, () => void scaledSum(x, { scale: () => scale, metric }));
  graph.replay();
  [scale, index] = [10, 1];
  graph.replay();
  graph.replay();
  assert.deepEqual([...await toHost(total)], [1, 20]);
  [x, total].forEach(release);
});

gpuTest("copies and clears are replayed in order with the dispatches", async (gpu) => {
  const [a, b] = [vector(gpu, 1, 2), vector(gpu, 0, 0)];
  using graph = recordGraph(gpu, () => {
    gpu.queue.copy(a.range, b.range);
    gpu.queue.clear({ ...a.range, sizeBytes: 4 });
    return add(a, b);
  });
  graph.replay();
  assert.deepEqual(await readAll(gpu, [graph.result, b]), [Float32Array.of(1, 4), Float32Array.of(1, 2)]);
  writeHost(a, Float32Array.of(5, 6));
  graph.replay();
  assert.deepEqual(await readAll(gpu, [graph.result, b]), [Float32Array.of(5, 12), Float32Array.of(5, 6)]);
  [a, b].forEach(release);
});

gpuTest("buffers are shared by lifetime within a recording, and between graphs of an arena", (gpu) => {
  const x = fromHost(gpu, new Float32Array(1024), { shape: [1024] });
  const used = () => gpu.stats().memory.usedBytes;
  const start = used();
  {
    using arena = new BufferArena(gpu.buffers);
    // Each scope ends before the next allocation: one buffer serves all of them.
    const body = () => {
      for (let turn = 0; turn < 5; turn++) scope(gpu, () => void silu(x));
      return silu(x);
    };
    using _first = recordGraph(gpu, body, { arena });
    assert.equal(used() - start, 4096);
    using _second = recordGraph(gpu, body, { arena });
    // Its result must not be the first's: both stay readable.
    assert.equal(used() - start, 2 * 4096);
    release(x);
  }
  assert.equal(used(), start - 4096);
});

gpuTest("what a graph names is handed to nobody else, whatever is released and trimmed", async (gpu) => {
  const x = vector(gpu, 1, 2, 3);
  using graph = recordGraph(gpu, () => {
    const y = scope(gpu, () => add(x, x));
    return add(y, y);
  });
  release(x);
  gpu.buffers.trim();
  gpu.queue.submit();
  const others = Array.from({ length: 8 }, () => vector(gpu, 9, 9, 9));
  graph.replay();
  assert.deepEqual([...await toHost(graph.result)], [4, 8, 12]);
  for (const values of await readAll(gpu, others)) assert.deepEqual([...values], [9, 9, 9]);
  others.forEach(release);
  graph[Symbol.dispose]();
  assert.throws(() => graph.replay(), /Cannot replay a graph: expected an open one/);
});

gpuTest("a tensor of an arena outlives it", async (gpu) => {
  const arena = new BufferArena(gpu.buffers);
  const x = vector(gpu, 1);
  using first = recordGraph(gpu, () => add(x, x), { arena });
  using second = recordGraph(gpu, () => add(first.result, x));
  first.replay();
  first[Symbol.dispose]();
  arena[Symbol.dispose]();
  second.replay();
  assert.deepEqual([...await toHost(second.result)], [3]);
  release(x);
});

gpuTest("a graph that reads through textures follows when they are replaced by larger ones", async (gpu) => {
  const matrix = (rows: number, value: number) =>
    fromHost(gpu, new Float32Array(rows * rows).fill(value), { shape: [rows, rows] });
  const small = matrix(8, 1);
  using graph = recordGraph(gpu, () => matmul(small, small));
  graph.replay();
  // Larger than any product of the tests so far, so that the textures grow.
  const side = 64 * Math.ceil(1 + Math.sqrt(gpu.stats().memory.peakBytes / 4 / 64) / 64);
  const large = matrix(Math.min(side, 1024), 0);
  const { texelGeneration } = gpu.queue;
  scope(gpu, () => void matmul(large, large));
  gpu.queue.submit();
  assert.ok(gpu.queue.texelGeneration > texelGeneration || gpu.adapter.subgroupSize !== 8);
  graph.replay();
  assert.deepEqual([...await toHost(graph.result)], new Array(64).fill(8));
  [small, large].forEach(release);
}, { layouts: ["cpu"] });

gpuTest("gradients of a recorded tape are those of an unrecorded one, bit for bit", async (gpu) => {
  const grad = vector(gpu, 0, 0, 0);
  const x: Tensor = { ...vector(gpu, 0.5, -1, 2), requiresGrad: true, grad };
  const one = vector(gpu, 1);
  const work = () => {
    using tape = new Tape(gpu);
    tape.backward([{ tensor: scaledSum(add(silu(x), silu(silu(x))), { scale: 3 }), gradient: one }]);
  };
  work();
  const expected = await toHost(grad);
  using graph = recordGraph(gpu, work);
  for (let turn = 0; turn < 2; turn++) {
    gpu.queue.clear(grad.range);
    const { tapeNodes } = gpu.stats();
    graph.replay();
    assert.equal(gpu.stats().tapeNodes, tapeNodes);
    assert.deepEqual(await toHost(grad), expected);
  }
  [x, one, grad].forEach(release);
});

gpuTest("what cannot be replayed is refused, and leaves nothing behind", (gpu) => {
  const x = vector(gpu, 1);
  const early = upload(gpu, Float32Array.of(1));
  const refuse = (body: () => void, message: RegExp) => assert.throws(() => recordGraph(gpu, body), message);
  refuse(
    () => void upload(gpu, Float32Array.of(1)),
    /^Error: Cannot upload: expected commands that can be replayed/,
  );
  refuse(() => writeHost(x, Float32Array.of(1)), /Cannot upload/);
  refuse(() => gpu.queue.submit(), /Cannot submit/);
  refuse(() => void add(early, x), /Cannot record add_forward.*expected buffers that last/);
  refuse(() => void recordGraph(gpu, () => {}), /expected no other graph or tape/);
  refuse(() => void empty(gpu, [2 ** 40]), /Cannot allocate/);
  {
    using _tape = new Tape(gpu);
    refuse(() => {}, /expected no other graph or tape/);
  }
  assert.equal(gpu.queue.recorder, null);
  release(x);
});

gpuTest("a cache keeps the graphs that were used last", async (gpu) => {
  using inputs = createInputs(gpu, { x: new Float32Array(4) });
  const total = vector(gpu, 0);
  using graphs = new GraphCache(gpu, { maxGraphs: 2 });
  const run = (length: number) => {
    const { x } = inputs.write({ x: new Float32Array(length).fill(1) });
    const metric = { metrics: total, index: 0, accumulate: true };
    graphs.run(`${length}`, () => void scaledSum(add(x, x), { scale: 1, metric }));
  };
  [1, 2, 1, 3, 1].forEach(run);
  assert.equal(graphs.recorded, 3);
  run(2); // went for 3
  assert.equal(graphs.recorded, 4);
  run(1);
  assert.equal(graphs.recorded, 4);
  assert.deepEqual([...await toHost(total)], [2 * (1 + 2 + 1 + 3 + 1 + 2 + 1)]);
  release(total);
});

gpuTest("inputs refuse names and lengths that they have no room for", (gpu) => {
  using inputs = createInputs(gpu, { group: { ids: new Uint32Array(2) } });
  assert.throws(
    () => inputs.write({ group: { ids: new Uint32Array(3) } }),
    new ShapeError("Cannot write input group.ids: expected at most 2 elements, found 3"),
  );
  assert.throws(() => inputs.write({ other: new Uint32Array(1) }), ShapeError);
});
