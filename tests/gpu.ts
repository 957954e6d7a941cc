/**
 * The one device that all GPU tests of a process share, and how a test that uses it is registered.
 *
 * @module
 */
import assert from "node:assert/strict";
import { ensureAdapter } from "../train/software_driver.ts";
import { Gpu, openGpu } from "../engine/gpu.ts";
import { widen } from "../engine/dtype.ts";
import { byteLength, empty, release, type Tensor, toHost } from "../engine/tensor.ts";

/** How ops lay work over the device: `cpu` as on a software adapter, `gpu` as on hardware. Both run on both. */
export type Layout = "cpu" | "gpu";

/** Both layouts: for ops whose kernels depend on the adapter. */
export const LAYOUTS: readonly Layout[] = ["cpu", "gpu"];

let shared: Promise<Record<Layout, Gpu> & { own: Gpu }> | null = null;

/**
 * The shared device, opened on first use, with buffers poisoned so that an element nobody wrote shows as NaN.
 *
 * @param layout Pretends to be such an adapter; by default the adapter's own layout.
 * @returns The device; it stays open until the process ends or a test fails.
 * @throws {GpuUnavailableError} When there is no adapter: GPU tests fail then, they are never skipped.
 */
export async function testGpu(layout: Layout | "own" = "own"): Promise<Gpu> {
  shared ??= openShared();
  return (await shared)[layout];
}

async function openShared(): Promise<Record<Layout, Gpu> & { own: Gpu }> {
  await ensureAdapter();
  const own = await openGpu({ poison: true });
  const { adapter, device } = own;
  const other = new Gpu(device, { ...adapter, isCpu: !adapter.isCpu }, { poison: true });
  return adapter.isCpu ? { own, cpu: own, gpu: other } : { own, cpu: other, gpu: own };
}

/** After a failure the device may hold a fault, a tape or lost buffers: the next test opens another. */
async function discardShared(): Promise<void> {
  const opened = shared;
  shared = null;
  if (!opened) return;
  // Opening may be what failed; its own test has reported that.
  const gpus = await opened.catch(() => null);
  gpus?.cpu[Symbol.dispose]();
  gpus?.gpu[Symbol.dispose]();
}

/**
 * Registers a test that gets the shared device. It fails on any GPU error, and on buffers or a tape left behind.
 *
 * @param name Name of the test; the layout is added where there are several.
 * @param run The test; it releases what it allocates.
 * @param options.layouts Registers the test once for each; by default once, with the adapter's own layout.
 * @param options.ignore Whether it cannot run here, which is reported.
 */
export function gpuTest(
  name: string,
  run: (gpu: Gpu) => void | Promise<void>,
  options: { layouts?: readonly Layout[]; ignore?: boolean } = {},
): void {
  const { layouts, ignore = false } = options;
  if (layouts) {
    for (const layout of layouts) register(`${name} (${layout} layout)`, { run, layout, ignore });
  } else register(name, { run, layout: "own", ignore });
}

function register(
  name: string,
  { run, layout, ignore }: {
    run: (gpu: Gpu) => void | Promise<void>;
    layout: Layout | "own";
    ignore: boolean;
  },
): void {
  Deno.test({ name, ignore }, async () => {
    try {
      const gpu = await testGpu(layout);
      const before = gpu.stats().memory.usedBytes;
      await run(gpu);
      await surfaceErrors(gpu);
      assert.equal(gpu.tape, null, "the test left a tape recording");
      assert.equal(gpu.stats().memory.usedBytes, before, "the test left buffers in use");
    } catch (error) {
      await discardShared();
      throw error;
    }
  });
}

/** GPU errors are events: a readback waits for the work, a turn of the event loop for its errors. */
async function surfaceErrors(gpu: Gpu): Promise<void> {
  const probe = empty(gpu, [4], { owner: "caller" });
  gpu.queue.clear(probe.range);
  await toHost(probe);
  release(probe);
  await new Promise((resolve) => setTimeout(resolve, 0));
  gpu.check();
}

/**
 * Reads tensors back with one wait for the device, which costs 12 ms however little is read.
 *
 * @param gpu The device.
 * @param tensors Tensors of any type.
 * @returns The values of each; 32-bit elements as the bits say (u32 tensors are not converted), f16 widened.
 */
export async function readAll(gpu: Gpu, tensors: readonly Tensor[]): Promise<Float32Array<ArrayBuffer>[]> {
  const sizes = tensors.map((tensor) => Math.ceil(byteLength(tensor) / 4) * 4);
  const sizeBytes = sizes.reduce((total, size) => total + size, 0);
  const together = empty(gpu, [sizeBytes / 4], { owner: "caller" });
  let offset = 0;
  tensors.forEach(({ range }, index) => {
    const offsetBytes = together.range.offsetBytes + offset;
    gpu.queue.copy({ ...range, sizeBytes: sizes[index] }, {
      ...together.range,
      offsetBytes,
      sizeBytes: sizes[index],
    });
    offset += sizes[index];
  });
  const bytes = await gpu.queue.read({ ...together.range, sizeBytes });
  release(together);
  offset = 0;
  return tensors.map((tensor, index) => {
    const part = new Uint8Array(bytes.slice(offset, offset + byteLength(tensor)));
    offset += sizes[index];
    return widen(part, tensor.type === "f16" ? "f16" : "f32") as Float32Array<ArrayBuffer>;
  });
}
