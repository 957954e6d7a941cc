/**
 * What this adapter can do at most, measured: the roof that kernels are held against.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { empty, release, slice, type Tensor, toHost } from "../../engine/tensor.ts";
import { benchMatmul, type MatmulCase, planMatmul, PRODUCT_KINDS } from "../bench/matmul.ts";
import { summarize } from "../bench/measure.ts";

/** The two roofs. */
export interface Ceilings {
  /** Of the best of the three kinds of product, M = N = K = {@link matmulSize}. */
  readonly gflops: number;
  readonly matmulSize: number;
  /** Read and written, by a copy from buffer to buffer. */
  readonly gbPerSecond: number;
  readonly copyBytes: number;
}

/** Large enough to fill the adapter, small enough to be measured in seconds. */
const SIZES = {
  cpu: { matmulSize: 512, copyBytes: 2 ** 26 },
  gpu: { matmulSize: 4096, copyBytes: 2 ** 29 },
};

/** More copies would only lengthen the sample. */
const MAX_COPIES = 1024;

/**
 * Measures both; takes the best of a few samples, as a roof is what is possible.
 *
 * @param gpu the device
 * @param options.sampleMs a sample repeats until it takes at least so long
 * @param options.sizes smaller ones, for tests
 */
export async function measureCeilings(
  gpu: Gpu,
  options: { samples: number; sampleMs: number; sizes?: { matmulSize: number; copyBytes: number } },
): Promise<Ceilings> {
  const { matmulSize, copyBytes } = options.sizes ?? SIZES[gpu.adapter.isCpu ? "cpu" : "gpu"];
  const products = await benchMatmul(gpu, casesOf(matmulSize), options);
  return {
    gflops: Math.max(...products.map((product) => product.gflops.max)),
    matmulSize,
    gbPerSecond: await measureCopy(gpu, { ...options, copyBytes }),
    copyBytes,
  };
}

/**
 * Takes the memory of {@link measureCeilings} on a planning device, and gives it back.
 *
 * @param gpu a planning device
 */
export async function planCeilings(gpu: Gpu): Promise<void> {
  const { matmulSize, copyBytes } = SIZES[gpu.adapter.isCpu ? "cpu" : "gpu"];
  await planMatmul(gpu, casesOf(matmulSize));
  copyTensors(gpu, copyBytes).forEach(release);
}

function casesOf(size: number): MatmulCase[] {
  return PRODUCT_KINDS.map((kind) => ({ kind, size }));
}

function copyTensors(gpu: Gpu, copyBytes: number): Tensor[] {
  const elements = Math.min(copyBytes, gpu.maxBindingBytes) / 4;
  return [0, 1].map(() => empty(gpu, [elements], { owner: "caller" }));
}

/** Copies between two buffers, one wait; each byte is read and written. */
async function measureCopy(
  gpu: Gpu,
  { samples, sampleMs, copyBytes }: { samples: number; sampleMs: number; copyBytes: number },
): Promise<number> {
  const [source, target] = copyTensors(gpu, copyBytes);
  const { sizeBytes: size } = source.range;
  gpu.queue.clear(source.range);
  const time = async (count: number) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) gpu.queue.copy(source.range, target.range);
    await toHost(slice(target, { shape: [4], offset: 0 }));
    return performance.now() - start;
  };
  try {
    let count = 1;
    while (count < MAX_COPIES && await time(count) < sampleMs) count *= 2;
    const rates: number[] = [];
    for (let sample = 0; sample < samples; sample++) rates.push(2 * size * count / await time(count) / 1e6);
    return summarize(rates).max;
  } finally {
    release(source);
    release(target);
  }
}
