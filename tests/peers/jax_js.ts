/**
 * Keel beside jax-js on this machine, for developers: products of 512 x 512 matrices, the two in turn, so that a
 * machine whose speed drifts slows both. Not a test; jax-js is fetched for this run alone:
 *
 *     deno run -R -W -E -S --allow-ffi --allow-run --allow-net --no-lock tests/peers/jax_js.ts
 *
 * @module
 */
import { openGpu } from "../../engine/gpu.ts";
import { benchMatmul } from "../../train/bench/matmul.ts";
import { summarize } from "../../train/bench/measure.ts";
import { ensureAdapter } from "../../train/software_driver.ts";
import { formatMarkdownTable } from "../../train/table.ts";

const PEER = "npm:@jax-js/jax@0.1.25";
const SIZE = 512;
const ROUNDS = 7;
/** Keel repeats the product until a sample takes so long: about as many products as the peer gets between two waits. */
const SAMPLE_MS = 100;
/** Products of the peer between two waits. */
const PRODUCTS = 8;

interface JaxArray {
  readonly ref: JaxArray;
  blockUntilReady(): Promise<JaxArray>;
  dispose(): void;
}

interface Jax {
  init(...devices: string[]): Promise<string[]>;
  defaultDevice(device: string): void;
  jit(body: (a: JaxArray, b: JaxArray) => JaxArray): (a: JaxArray, b: JaxArray) => JaxArray;
  readonly numpy: {
    array(values: Float32Array, options: { shape: number[] }): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
  };
}

await ensureAdapter({ log: console.error });
using gpu = await openGpu();
// The name is not a literal, so that the type check of the project does not need the package.
const jax: Jax = await import(PEER);
await jax.init("webgpu", "wasm");

/** One sample of a jax-js backend, in GFLOP/s. */
function jaxContestant(device: string): () => Promise<number> {
  jax.defaultDevice(device);
  const values = Float32Array.from({ length: SIZE * SIZE }, (_, index) => ((index * 7919) % 101 - 50) / 50);
  const [a, b] = [0, 1].map(() => jax.numpy.array(values, { shape: [SIZE, SIZE] }));
  const product = jax.jit((x, y) => jax.numpy.matmul(x, y));
  return async () => {
    jax.defaultDevice(device);
    const start = performance.now();
    const results = Array.from({ length: PRODUCTS }, () => product(a.ref, b.ref));
    for (const result of results) await result.blockUntilReady();
    const elapsedMs = performance.now() - start;
    results.forEach((result) => result.dispose());
    return 2 * SIZE ** 3 * PRODUCTS / elapsedMs / 1e6;
  };
}

const contestants: Record<string, () => Promise<number>> = {
  "Keel, WebGPU": async () =>
    (await benchMatmul(gpu, { kind: "NN", size: SIZE, samples: 1, sampleMs: SAMPLE_MS })).gflops.median,
  "jax-js, WebGPU": jaxContestant("webgpu"),
  "jax-js, WebAssembly": jaxContestant("wasm"),
};

const samples = new Map(Object.keys(contestants).map((name) => [name, [] as number[]]));
for (let round = -1; round < ROUNDS; round++) {
  for (const [name, run] of Object.entries(contestants)) {
    const gflops = await run();
    if (round >= 0) samples.get(name)!.push(gflops); // the first round warms up
  }
}

const keel = samples.get("Keel, WebGPU")!;
const rows = [...samples].map(([name, values]) => {
  const { median, min, max } = summarize(values);
  const ratio = summarize(values.map((value, round) => keel[round] / value));
  return [name, median.toFixed(1), min.toFixed(1), max.toFixed(1), ratio.median.toFixed(2)];
});
console.log(
  `${gpu.adapter.name}, ${navigator.hardwareConcurrency} cores; ${SIZE}^3, f32, GFLOP/s, ${ROUNDS} rounds in turn`,
);
console.log(formatMarkdownTable(["", "median", "min", "max", "Keel / this"], rows));
