/**
 * Trains for many steps at a tiny size and fails when memory grows: `deno task soak`. Batches differ in length, so that
 * graphs of several shapes are recorded and replayed.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { ensureAdapter } from "../../train/software_driver.ts";
import { type Gpu, openGpu } from "../../engine/gpu.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { randomPairs, tinyModel } from "../tiny_model.ts";

/** Steps until caches are full, code is compiled and buffers are made: GPU memory is flat from here on. */
const WARM_UP_STEPS = 1000;

/** GPU memory may grow by a graph's parameters where a size comes late, and by nothing else. */
const GPU_BOUND_BYTES = 2 ** 20;

/** Resident memory over the second half of the run: it settles later, after some thousands of steps. */
const RSS_BOUND_BYTES = 16 * 2 ** 20;

interface Sample {
  readonly step: number;
  readonly elapsedMs: number;
  readonly rssBytes: number;
  readonly heapBytes: number;
  readonly gpuBytes: number;
  readonly buffers: number;
  readonly pipelines: number;
  readonly bindGroups: number;
}

function takeSample(gpu: Gpu, step: number, start: number): Sample {
  const { rss, heapUsed } = Deno.memoryUsage();
  const { memory, pipelines, bindGroups } = gpu.stats();
  return {
    ...{ step, elapsedMs: performance.now() - start, rssBytes: rss, heapBytes: heapUsed },
    ...{ gpuBytes: memory.totalBytes, buffers: memory.created, pipelines, bindGroups },
  };
}

/** Trains DPO on random pairs and samples memory. */
async function soak(steps: number, every: number): Promise<Sample[]> {
  await ensureAdapter();
  using gpu = await openGpu();
  using model = tinyModel(gpu);
  const pairs = randomPairs(64, 1);
  using objective = preferenceObjective(model, {
    ...{ pairs, reference: await referenceLogps(model, pairs), lambda: 0 },
    ...{ loss: PAIR_LOSSES.dpo.resolve({}), spoAt: () => NO_PENALTY },
  });
  const samples: Sample[] = [];
  const start = performance.now();
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-4, warmupSteps: 0, maxSteps: steps },
    ...{ batchSize: 4, seed: 1, logEvery: every },
    onLog: ({ global_step }) => {
      samples.push(takeSample(gpu, global_step as number, start));
      if (samples.length % 10 === 0) console.error(row(samples.at(-1)!));
    },
  });
  return samples;
}

/** The largest difference to the first sample from a step on. */
function growth(samples: readonly Sample[], of: "rssBytes" | "gpuBytes", from: number): number {
  const [first, ...later] = samples.filter(({ step }) => step >= from).map((sample) => sample[of]);
  return Math.max(0, ...later.map((bytes) => bytes - first));
}

const MIB = 2 ** 20;
const HEADER = [
  "|  step | seconds | resident, MiB | JS heap, MiB | GPU, MiB | buffers made | pipelines | bind groups |",
  "| ----: | ------: | ------------: | -----------: | -------: | -----------: | --------: | ----------: |",
].join("\n");

function row(sample: Sample): string {
  const cells: [string, number][] = [
    [`${sample.step}`, 5],
    [(sample.elapsedMs / 1000).toFixed(0), 7],
    [(sample.rssBytes / MIB).toFixed(1), 13],
    [(sample.heapBytes / MIB).toFixed(1), 12],
    [(sample.gpuBytes / MIB).toFixed(3), 8],
    [`${sample.buffers}`, 12],
    [`${sample.pipelines}`, 9],
    [`${sample.bindGroups}`, 11],
  ];
  return `| ${cells.map(([text, width]) => text.padStart(width)).join(" | ")} |`;
}

/** About ten lines: the first after the warm-up, the last, and some between. */
function table(samples: readonly Sample[]): string {
  const every = Math.max(1, Math.floor(samples.length / 10));
  return [HEADER, ...samples.filter((_, index) => (index + 1) % every === 0).map(row)].join("\n");
}

const { values } = parseArgs({
  options: { steps: { type: "string", default: "20000" }, every: { type: "string", default: "100" } },
});
const steps = Number(values.steps);
const samples = await soak(steps, Number(values.every));
console.log(table(samples));
const grown = {
  rss: growth(samples, "rssBytes", steps / 2),
  gpu: growth(samples, "gpuBytes", WARM_UP_STEPS),
};
const mebibytes = (bytes: number) => (bytes / MIB).toFixed(3);
console.log(
  `\nGPU memory grew by ${mebibytes(grown.gpu)} MiB after step ${WARM_UP_STEPS} (bound ${
    mebibytes(GPU_BOUND_BYTES)
  }), resident memory by at most ${mebibytes(grown.rss)} MiB after step ${steps / 2} (bound ${
    mebibytes(RSS_BOUND_BYTES)
  }).`,
);
if (grown.rss > RSS_BOUND_BYTES || grown.gpu > GPU_BOUND_BYTES) {
  console.error("Memory is not flat.");
  Deno.exit(1);
}
