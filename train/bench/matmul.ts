/**
 * The rate of matrix products.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { productTile } from "../../engine/ops/dispatch.ts";
import { multiply } from "../../engine/ops/matmul.ts";
import { empty, fromHost, release, slice, type Tensor, toHost } from "../../engine/tensor.ts";
import { CPU_TILE, GPU_TILE, type ProductKind, type Tile } from "../../shaders/tile.ts";
import { createRandom, fillNormal } from "../random.ts";
import { summarize, type Summary } from "./measure.ts";

/** Every kind of product: NN, and those of a linear layer's forward (NT) and weight gradient (TN). */
export const PRODUCT_KINDS: readonly ProductKind[] = ["NN", "NT", "TN"];

/** Tilings worth comparing: either adapter's choice, and what it was chosen over. */
export const TILE_VARIANTS: readonly Tile[] = [
  CPU_TILE,
  { ...CPU_TILE, rows: 8 },
  { ...CPU_TILE, lanesX: 4, lanesY: 2 },
  { ...CPU_TILE, rows: 8, lanesY: 8 },
  GPU_TILE,
  { ...GPU_TILE, rows: 4, cols: 4, lanesX: 16, lanesY: 16 },
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

/** What to measure, and how. */
export interface MatmulBenchOptions {
  readonly kind: ProductKind;
  readonly size: number;
  /** The adapter's own choice where absent. */
  readonly tile?: Tile;
  readonly samples: number;
  /** A sample repeats the product until it takes at least so long. */
  readonly sampleMs: number;
}

/** More products a sample would only fill the uniform arena. */
const MAX_PRODUCTS = 8192;

/**
 * Measures C = op(A) op(B) of random square matrices: products recorded one after the other, one submit, one readback.
 * The first product's result is checked before anything is timed.
 *
 * @param gpu the device
 * @param options what to measure
 * @throws {Error} when the product is wrong: the rate of a wrong result says nothing
 */
export async function benchMatmul(gpu: Gpu, options: MatmulBenchOptions): Promise<MatmulResult> {
  const { kind, size, tile = productTile(gpu) } = options;
  const random = createRandom(size);
  const hostA = fillNormal(random, { target: new Float32Array(size * size) });
  const hostB = fillNormal(random, { target: new Float32Array(size * size) });
  const a = fromHost(gpu, hostA, { shape: [size, size] });
  const b = fromHost(gpu, hostB, { shape: [size, size] });
  const c = empty(gpu, [size, size], { owner: "caller" });
  const run = async (count: number) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) multiply(kind, a, b, { tensor: c, accumulate: false }, tile);
    await waitFor(c);
    return performance.now() - start;
  };
  try {
    await run(1);
    checkProduct({ kind, size, a: hostA, b: hostB, c: await toHost(c) });
    const productsPerSample = await calibrate(run, options.sampleMs);
    const times: number[] = [];
    for (let i = 0; i < options.samples; i++) times.push(await run(productsPerSample) / productsPerSample);
    const gflops = summarize(times.map((ms) => 2 * size ** 3 / ms / 1e6));
    return { kind, size, tile, productsPerSample, productMs: summarize(times), gflops };
  } finally {
    for (const tensor of [a, b, c]) release(tensor);
  }
}

/** Reads four elements back: everything recorded before is then done. */
async function waitFor(tensor: Tensor): Promise<void> {
  await toHost(slice(tensor, { shape: [4], offset: 0 }));
}

/** Doubles the number of products until a sample is long enough; this is the warm-up too. */
async function calibrate(run: (count: number) => Promise<number>, sampleMs: number): Promise<number> {
  let count = 1;
  while (count < MAX_PRODUCTS && await run(count) < sampleMs) count *= 2;
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
