import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { benchMatmul, PRODUCT_KINDS, TILE_VARIANTS } from "../../train/bench/matmul.ts";
import { describeTile, formatBench, formatNumber } from "../../train/bench/format.ts";
import { formatProbe, probeAdapter } from "../../train/bench/probe.ts";
import { summarize } from "../../train/bench/measure.ts";
import { countParameters } from "../../train/bench/shapes.ts";
import { TRAINING_SHAPES } from "../../train/bench/training_shapes.ts";
import { STEP_KINDS } from "../../train/bench/training.ts";
import { type BenchOptions, type BenchReport, runBench } from "../../train/bench.ts";
import { tileFits } from "../../engine/ops/dispatch.ts";
import { gpuTest } from "../gpu.ts";

const SHAPE = { layers: 1, hidden: 16, heads: 2, mlp: 20, vocabulary: 24, batch: 3, tokens: 10 };
const QUICK: BenchOptions = {
  sizes: [20],
  shape: SHAPE,
  samples: 3,
  sampleMs: 0,
  stepsPerSample: 2,
  tileSize: 36,
};

Deno.test("summarize: median of odd and even numbers of samples, extremes, order kept", () => {
  const samples = [5, -1, 100];
  assert.deepEqual(summarize(samples), { median: 5, min: -1, max: 100, samples: [5, -1, 100] });
  assert.equal(summarize([4, 1, 2, 100]).median, 3);
  assert.equal(summarize([7]).median, 7);
});

Deno.test("summarize refuses no samples and samples that are no numbers", () => {
  const message = (found: string) => ({
    name: "RangeError",
    message: `Cannot summarize measurements: expected finite numbers, found ${found}`,
  });
  assert.throws(() => summarize([]), message("none"));
  assert.throws(() => summarize([1, NaN]), message("1, NaN"));
});

Deno.test("the benchmark's model has the stated number of parameters", () => {
  assert.equal(countParameters(TRAINING_SHAPES.bench), 941_184);
});

Deno.test("PyTorch's side of the benchmark has the same shapes", () => {
  const script = readFileSync(new URL("../peers/torch_bench.py", import.meta.url), "utf8");
  const shapes = [...script.matchAll(/^ {4}"([\w-]+)": \(([\d, ]+)\),$/gm)]
    .map(([, name, numbers]) => [name, numbers.split(", ").map(Number)]);
  const ours = Object.entries(TRAINING_SHAPES).map(([name, shape]) => {
    const { layers, hidden, heads, mlp, vocabulary, batch, tokens } = shape;
    return [name, [layers, hidden, heads, mlp, vocabulary, batch, tokens]];
  });
  assert.deepEqual(shapes, ours);
});

Deno.test("numbers are printed with three significant digits, without an exponent", () => {
  const printed = [0, 0.01234, 1.2345, 12.345, 123.45, 12345.6, 1024].map(formatNumber);
  assert.deepEqual(printed, ["0", "0.0123", "1.23", "12.3", "123", "12346", "1024"]);
});

gpuTest("every product, tiling and step is measured, and the device left as it was", async (gpu) => {
  const lines: string[] = [];
  const report = await runBench(gpu, { ...QUICK, tiles: true, log: (line) => lines.push(line) });
  assert.deepEqual(report.matmul.map(({ kind, size }) => `${kind} ${size}`), ["NN 20", "NT 20", "TN 20"]);
  const variants = TILE_VARIANTS.filter((tile) => tileFits(gpu, tile));
  assert.equal(report.tiles.length, 3 * variants.length);
  assert.equal(new Set(report.tiles.map(({ tile }) => describeTile(tile))).size, variants.length);
  assert.equal(lines.length, 1 + PRODUCT_KINDS.length + 3);
  for (const { size, productMs, gflops } of [...report.matmul, ...report.tiles]) {
    assert.equal(gflops.samples.length, 3);
    gflops.samples.forEach((rate, index) => {
      assert.ok(Math.abs(rate * productMs.samples[index] * 1e6 / (2 * size ** 3) - 1) < 1e-9);
    });
  }
  checkSteps(report);
  assert.deepEqual(JSON.parse(JSON.stringify(report)), report);
});

function checkSteps({ training }: BenchReport): void {
  assert.deepEqual(training.map(({ kind }) => kind), Object.keys(STEP_KINDS));
  const [sft, dpo, cached] = training;
  assert.deepEqual([sft.sequences, dpo.sequences, cached.sequences], [3, 6, 6]);
  assert.deepEqual([sft.tokens, dpo.tokens, cached.tokens], [30, 60, 60]);
  for (const result of training) {
    const { stepMs, tokensPerSecond, tokens, awaitsPerStep, submitsPerStep, dispatchesPerStep } = result;
    assert.equal(stepMs.samples.length, 3);
    stepMs.samples.forEach((ms, index) => {
      assert.ok(Math.abs(tokensPerSecond.samples[index] * ms / 1000 / tokens - 1) < 1e-9);
    });
    // Two steps to a wait, whose copy is a submit of its own.
    assert.deepEqual([awaitsPerStep, submitsPerStep], [0.5, 1.5]);
    assert.ok(Number.isInteger(dispatchesPerStep));
  }
  assert.ok(dpo.dispatchesPerStep > cached.dispatchesPerStep, "the reference runs in every step");
}

gpuTest("growth is measured along every extent, and only there", async (gpu) => {
  const report = await runBench(gpu, { sizes: [], steps: [], growth: SHAPE });
  assert.deepEqual(report.growth.map(({ axis, extents }) => [axis, ...extents]), [
    ["tokens, by pairs", 60, 120, 240],
    ["tokens, by length", 60, 120, 240],
    ["layers", 1, 2, 4],
    ["vocabulary", 24, 48, 96],
    ["width", 16, 32, 64],
  ]);
  for (const { axis, stepMs, memoryBytes } of report.growth) {
    assert.ok(stepMs.every((ms) => ms > 0), axis);
    assert.ok(memoryBytes[2] > memoryBytes[0], `${axis}: ${memoryBytes}`);
  }
  assert.match(formatBench(report), /^layers +1, 2, 4 +[0-9.]+, [0-9.]+, [0-9.]+ +-?[0-9.]+ +[0-9.]+, /m);
});

gpuTest("a probe says what is granted, beside what is listed", async (gpu) => {
  const adapter = await navigator.gpu.requestAdapter();
  const report = await probeAdapter(adapter!);
  const granted = new Map(report.features.map(({ name, isGranted }) => [name, isGranted]));
  for (const feature of gpu.adapter.features) assert.equal(granted.get(feature), true, feature);
  assert.ok(report.limits.maxBufferSize >= gpu.maxBindingBytes);
  const text = formatProbe(report, { markdown: true });
  assert.match(text, /^\| timestamp-query +\| (yes|no) +\| (yes|no) +\|$/m);
  assert.match(text, /^\| maxComputeWorkgroupStorageSize +\| +[0-9]+ \|$/m);
});

gpuTest("a wrong product is not timed", async (gpu) => {
  // Ten columns are not whole vec4s: of a workgroup's 80 columns, the last 16 are never written.
  const tile = { ...TILE_VARIANTS[0], cols: 10 };
  await assert.rejects(
    benchMatmul(gpu, [{ kind: "NN", size: 68, tile }], { samples: 1, sampleMs: 0 }),
    /^Error: Cannot measure matmul NN 68: expected -?[0-9.]+ at \[[0-9]+, (64|65|66|67)\], found /,
  );
});

gpuTest("a report becomes tables, for a terminal and for a document", async (gpu) => {
  const report = await runBench(gpu, { ...QUICK, steps: ["dpo"] });
  const text = formatBench(report);
  assert.ok(text.includes(gpu.adapter.name) && text.includes("Llama of 1 layers, C = 16"), text);
  assert.match(text, /^NT +20 +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +1$/m);
  assert.match(text, /^dpo +([0-9.]+ +){4}[0-9]+ +1\.50 +0\.500$/m);
  assert.doesNotMatch(text, /Tilings|cached|\|/);
  assert.match(formatBench(report, { markdown: true }), /^\| dpo +\|( +[0-9.]+ \|){7}$/m);
});

Deno.test("a measurement on a busy machine says so", () => {
  const conditions = {
    adapter: "x",
    isCpu: true,
    features: [],
    keel: "1",
    deno: "2",
    system: "s",
    cpu: "c",
    cores: 4,
    date: "d",
  };
  const print = (load: number) =>
    formatBench({
      conditions: { ...conditions, load },
      matmul: [],
      tiles: [],
      training: [],
      growth: [],
      shape: SHAPE,
    });
  assert.match(print(1.1), /load average 1.10 at the start: THE MACHINE WAS NOT QUIET/);
  assert.doesNotMatch(print(0.9), /NOT QUIET/);
});
