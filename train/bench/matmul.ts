/**
 * The rate of matrix products.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { productTile } from "../../engine/ops/dispatch.ts";
import { multiply } from "../../engine/ops/matmul.ts";
import { empty, fromHost, release, slice, type Tensor, toHost } from "../../engine/tensor.ts";
import {
  CPU_TILE,
  GPU_TILE,
  LARGE_TILE,
  type ProductKind,
  SMALL_TILE,
  TEXEL_TILE,
  type Tile,
} from "../../shaders/tile.ts";
import { createRandom, fillNormal } from "../random.ts";
import { summarize, type Summary } from "./measure.ts";

/** Every kind of product: NN, and those of a linear layer's forward (NT) and weight gradient (TN). */
export const PRODUCT_KINDS: readonly ProductKind[] = ["NN", "NT", "TN"];

/** Tilings worth comparing: either adapter's choice, and what it was chosen over. */
export const TILE_VARIANTS: readonly Tile[] = [
  TEXEL_TILE,
  CPU_TILE,
  GPU_TILE,
  LARGE_TILE,
  SMALL_TILE,
];

/** One square product, measured. */
export interface MatmulResult {
  readonly kind: ProductKind;
  /** M = N = K. */
  readonly size: number;
  readonly tile: Tile;
  /** Products between two waits for the device. */
  readonly productsPerSample: number;
  /** Wall time of one product, the wait's share included. */
  readonly productMs: Summary;
  /** 2 M N K operations over that time, in 10^9 a second. */
  readonly gflops: Summary;
}

/** One product to measure. */
export interface MatmulCase {
  readonly kind: ProductKind;
  readonly size: number;
  /** The adapter's own choice where absent. */
  readonly tile?: Tile;
}

/** How to measure. */
export interface MatmulBenchOptions {
  readonly samples: number;
  /** A sample repeats the product until it takes at least so long. */
  readonly sampleMs: number;
}

/** More products a sample would only fill the uniform arena. */
const MAX_PRODUCTS = 8192;

/**
 * Measures C = op(A) op(B) of random square matrices: products recorded one after the other, one submit, one readback.
 * A sample of each case is taken in turn, so that a machine that slows down does so for all. Each case's first product
 * is checked before anything is timed.
 *
 * @param gpu the device
 * @param cases what to measure
 * @param options repetitions
 * @returns one result a case
 * @throws {Error} when a product is wrong: the rate of a wrong result says nothing
 */
export async function benchMatmul(
  gpu: Gpu,
  cases: readonly MatmulCase[],
  options: MatmulBenchOptions,
): Promise<MatmulResult[]> {
  using open = new DisposableStack();
  const runs: { run: MatmulRun; count: number; times: number[] }[] = [];
  for (const one of cases) {
    const run = open.use(createRun(gpu, one));
    await run.check();
    runs.push({ run, count: await calibrate(run, options.sampleMs), times: [] });
  }
  for (let sample = 0; sample < options.samples; sample++) {
    for (const { run, count, times } of runs) times.push(await run.time(count) / count);
  }
  return cases.map(({ kind, size, tile = productTile(gpu) }, index) => {
    const { count, times } = runs[index];
    const gflops = summarize(times.map((ms) => 2 * size ** 3 / ms / 1e6));
    return { kind, size, tile, productsPerSample: count, productMs: summarize(times), gflops };
  });
}

/**
 * Takes the memory of {@link benchMatmul} on a planning device, and gives it back.
 *
 * @param gpu a planning device
 * @param cases what would be measured
 */
export async function planMatmul(gpu: Gpu, cases: readonly MatmulCase[]): Promise<void> {
  using open = new DisposableStack();
  for (const one of cases) {
    const run = open.use(createRun(gpu, one));
    await run.check();
    await run.time(1);
  }
}

/** A case with its matrices on the device. */
interface MatmulRun extends Disposable {
  /** Milliseconds that so many products and one wait take. */
  time(count: number): Promise<number>;
  /** @throws {Error} when the product is wrong */
  check(): Promise<void>;
}

function createRun(gpu: Gpu, { kind, size, tile }: MatmulCase): MatmulRun {
  const random = createRandom(size);
  const values = () => {
    const target = new Float32Array(size * size);
    return gpu.isPlanning ? target : fillNormal(random, { target });
  };
  const [hostA, hostB] = [values(), values()];
  const [a, b] = [hostA, hostB].map((host) => fromHost(gpu, host, { shape: [size, size] }));
  const c = empty(gpu, [size, size], { owner: "caller" });
  const multiplyOnce = () =>
    multiply(kind, a, b, { tensor: c, accumulate: false }, {
      plan: tile && { tile, splitTo: 0 },
    });
  return {
    async time(count) {
      const start = performance.now();
      for (let i = 0; i < count; i++) multiplyOnce();
      await waitFor(c);
      return performance.now() - start;
    },
    async check() {
      multiplyOnce();
      const product = await toHost(c);
      if (!gpu.isPlanning) checkProduct({ kind, size, a: hostA, b: hostB, c: product });
    },
    [Symbol.dispose]() {
      for (const tensor of [a, b, c]) release(tensor);
    },
  };
}

/** Reads four elements back: everything recorded before is then done. */
async function waitFor(tensor: Tensor): Promise<void> {
  await toHost(slice(tensor, { shape: [4], offset: 0 }));
}

/** Doubles the number of products until a sample is long enough; this is the warm-up too. */
async function calibrate(run: MatmulRun, sampleMs: number): Promise<number> {
  let count = 1;
  while (count < MAX_PRODUCTS && await run.time(count) < sampleMs) count *= 2;
  return count;
}

/**
 * Compares a scatter of elements with sums in f64.
 *
 * @throws {Error} naming the first that is not what it must be
 */
export function checkProduct(
  { kind, size, a, b, c }: {
    kind: ProductKind;
    size: number;
    a: Float32Array;
    b: Float32Array;
    c: Float32Array;
  },
): void {
  for (let sample = 0; sample < 64; sample++) {
    const [row, column] = [sample * 7919 % size, sample * 104729 % size];
    let sum = 0;
    for (let k = 0; k < size; k++) {
      sum += (kind === "TN" ? a[k * size + row] : a[row * size + k]) *
        (kind === "NT" ? b[column * size + k] : b[k * size + column]);
    }
    const found = c[row * size + column];
    // Sums of size products of unit normals: their rounding grows as the root of their number, at most as size.
    if (!(Math.abs(found - sum) <= 1e-6 * size)) {
      throw new Error(
        `Cannot measure matmul ${kind} ${size}: expected ${sum} at [${row}, ${column}], found ${found}`,
      );
    }
  }
}
