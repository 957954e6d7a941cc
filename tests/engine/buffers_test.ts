import assert from "node:assert/strict";
import {
  bucketBytes,
  BufferPool,
  MEMORY_CATEGORIES,
  MemoryBudgetError,
  type MemoryCategory,
} from "../../engine/buffers.ts";
import { Scope } from "../../engine/scope.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { empty, release, scope, type Tensor } from "../../engine/tensor.ts";
import { ShapeError } from "../../engine/shape.ts";
import { gpuTest, readAll, testGpu } from "../gpu.ts";

const KIB = 1024;

Deno.test("bucketBytes: quarters of a power of two, at least 256, wasting less than a quarter", () => {
  const cases = [
    [0, 256],
    [1, 256],
    [256, 256],
    [257, 512],
    [1024, 1024],
    [1025, 1280],
    [4096, 4096],
    [4097, 5120],
    [5120, 5120],
    [5121, 6144],
    [7169, 8192],
    [8193, 10240],
  ];
  for (const [size, bucket] of cases) assert.equal(bucketBytes(size), bucket, `${size}`);
  for (let size = 1; size < 2 ** 40; size = Math.ceil(size * 1.37)) {
    const bucket = bucketBytes(size);
    assert.ok(bucket >= size && (bucket - size < size / 4 || bucket - size < 256), `${size}: ${bucket}`);
    assert.equal(bucket % 256, 0);
    assert.equal(bucketBytes(bucket), bucket, `${size}: the bucket is its own`);
  }
});

poolTest("a released buffer is handed out again for a near size", (pool) => {
  const first = pool.acquire(4097, "first");
  const stats = () => {
    const { categories: _, ...all } = pool.stats;
    return all;
  };
  assert.deepEqual(stats(), { created: 1, totalBytes: 5120, usedBytes: 5120, peakBytes: 5120 });
  first.release();
  assert.equal(pool.stats.usedBytes, 0);
  const second = pool.acquire(5000, "second");
  assert.equal(second, first);
  const third = pool.acquire(5000, "third");
  assert.notEqual(third.buffer, second.buffer);
  assert.deepEqual(stats(), { created: 2, totalBytes: 10240, usedBytes: 10240, peakBytes: 10240 });
  second.release();
  third.release();
});

poolTest(
  "a buffer lives until its last holder releases it; once more throws, and so does retaining it",
  (pool) => {
    const allocation = pool.acquire(256, "shared");
    assert.equal(allocation.isShared, false);
    allocation.retain();
    assert.equal(allocation.isShared, true);
    allocation.release();
    assert.equal(pool.stats.usedBytes, 256);
    allocation.release();
    assert.equal(pool.stats.usedBytes, 0);
    assert.throws(() => allocation.release(), /Cannot release buffer 0: it was already released/);
    assert.throws(() => allocation.retain(), /Cannot retain buffer 0: it was already released/);
    assert.equal(pool.stats.usedBytes, 0);
  },
);

poolTest(
  "past the budget free buffers are destroyed first, then it is an error before any allocation",
  (pool, seen) => {
    const kept = pool.acquire(32 * KIB, "kept");
    pool.acquire(16 * KIB, "free").release();
    const more = pool.acquire(20 * KIB, "more");
    assert.equal(seen.trims, 1);
    const { categories, ...all } = pool.stats;
    const bytes = { totalBytes: 52 * KIB, usedBytes: 52 * KIB, peakBytes: 52 * KIB };
    assert.deepEqual(all, { created: 3, ...bytes });
    assert.deepEqual(categories.activations, bytes);
    const before = structuredClone(pool.stats);
    assert.throws(
      () => pool.acquire(16 * KIB, "activations"),
      new MemoryBudgetError(
        `Cannot allocate activations: expected at most ${
          64 * KIB
        } bytes of GPU memory in all (the budget), ` +
          `found ${52 * KIB} in use and ${16 * KIB} more wanted`,
      ),
    );
    assert.throws(() => pool.createFixed(16 * KIB, GPUBufferUsage.COPY_DST, "staging"), MemoryBudgetError);
    assert.deepEqual(pool.stats, before);
    kept.release();
    more.release();
  },
);

poolTest(
  "bytes are kept by category: buffers never change theirs, and the parts of the peak add up",
  (pool) => {
    const weight = pool.acquire(8 * KIB, "weight", "parameters");
    pool.acquire(4 * KIB, "activation").release();
    const moments = pool.acquire(4 * KIB, "moments", "optimizer");
    assert.equal(pool.stats.created, 3, "a free buffer of another category stays there");
    const other = pool.acquire(4 * KIB, "other", "activations");
    pool.createFixed(2 * KIB, GPUBufferUsage.COPY_DST, "staging");
    pool.reserveTexture(KIB, "texels");
    const part = (category: MemoryCategory) => {
      const { totalBytes, usedBytes, peakBytes } = pool.stats.categories[category];
      return [totalBytes / KIB, usedBytes / KIB, peakBytes / KIB];
    };
    assert.deepEqual(MEMORY_CATEGORIES.map(part), [[8, 8, 8], [0, 0, 0], [4, 4, 4], [4, 4, 4], [3, 0, 3]]);
    assert.equal(pool.stats.peakBytes, 19 * KIB);
    weight.release();
    moments.release();
    pool.trim();
    assert.deepEqual(part("parameters"), [0, 0, 8], "of the peak, which was before");
    pool.acquire(48 * KIB, "largest", "gradients").release();
    assert.deepEqual(MEMORY_CATEGORIES.map((name) => part(name)[2]), [0, 48, 0, 4, 3]);
    other.release();
  },
);

poolTest("a buffer larger than one binding is refused, naming it", (pool) => {
  assert.throws(
    () => pool.acquire(48 * KIB + 1, "logits"),
    new RangeError(
      `Cannot allocate logits: expected at most ${48 * KIB} bytes in one binding on this adapter, found ${
        48 * KIB + 1
      }`,
    ),
  );
  // Its bucket would be larger than a binding: the buffer is not.
  const largest = pool.acquire(48 * KIB - 4, "largest");
  assert.equal(largest.sizeBytes, 48 * KIB);
  largest.release();
});

poolTest("a Scope releases what it owns, except what was disowned or released early", (pool) => {
  const [a, b, c] = ["a", "b", "c"].map((label) => pool.acquire(256, label));
  const owner = new Scope();
  for (const allocation of [a, b, c]) owner.own(allocation);
  owner.releaseEarly(a);
  owner.releaseEarly(a);
  assert.equal(pool.stats.usedBytes, 512);
  assert.equal(owner.disown(b), true);
  assert.equal(owner.disown(b), false);
  owner.end();
  assert.equal(pool.stats.usedBytes, 256);
  b.release();
});

gpuTest("scope gives back all but its results, to the scope around it", (gpu) => {
  const used = () => gpu.stats().memory.usedBytes;
  const start = used();
  const [x, y] = scope(gpu, () => {
    const inner = scope(gpu, () => {
      empty(gpu, [1000]);
      return [empty(gpu, [64]), empty(gpu, [64])];
    });
    assert.equal(used() - start, 512);
    empty(gpu, [2000]);
    return inner;
  });
  assert.equal(used() - start, 512);
  release(x);
  release(y);
  assert.throws(
    () =>
      scope(gpu, () => {
        empty(gpu, [64]);
        throw new Error("a body that fails");
      }),
    /a body that fails/,
  );
  assert.equal(used(), start);
});

gpuTest("an allocation that is refused leaves the counters as they were", (gpu) => {
  const before = gpu.stats().memory;
  assert.throws(() => empty(gpu, [2 ** 40]), RangeError);
  assert.throws(() => empty(gpu, [2, -1]), ShapeError);
  assert.throws(() => empty(gpu, [1.5]), ShapeError);
  assert.deepEqual(gpu.stats().memory, before);
});

gpuTest("the test device hands buffers out full of NaN, new ones and used ones", async (gpu) => {
  for (let turn = 0; turn < 2; turn++) {
    const tensor: Tensor = empty(gpu, [65], { owner: "caller" });
    const [values] = await readAll(gpu, [tensor]);
    assert.ok(values.every(Number.isNaN));
    gpu.queue.clear(tensor.range);
    assert.deepEqual(await readAll(gpu, [tensor]), [new Float32Array(65)]);
    release(tensor);
  }
});

/** Registers a test of a pool with a budget of 64 KiB and bindings of at most 48 KiB. */
function poolTest(name: string, run: (pool: BufferPool, seen: { trims: number }) => void): void {
  Deno.test(`BufferPool: ${name}`, async () => {
    const { device }: Gpu = await testGpu();
    const seen = { trims: 0 };
    const pool = new BufferPool(device, {
      budgetBytes: 64 * KIB,
      maxBufferBytes: 48 * KIB,
      onTrim: () => seen.trims++,
    });
    run(pool, seen);
    pool.destroy();
    assert.equal(pool.stats.usedBytes, 0);
  });
}
