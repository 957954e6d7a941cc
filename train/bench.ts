/**
 * Measures this machine's adapter: matrix products and whole training steps. Wall time up to a readback, nothing
 * subtracted; every measurement is warmed up, repeated and given with its spread.
 * @module
 */
import { type Gpu, openGpu } from "../engine/gpu.ts";
import { type Conditions, readConditions } from "./bench/conditions.ts";
import { benchMatmul, type MatmulResult, PRODUCT_KINDS, TILE_VARIANTS } from "./bench/matmul.ts";
import {
  BENCH_SHAPE,
  benchTraining,
  countParameters,
  STEP_KINDS,
  type StepKind,
  type TrainingResult,
  type TrainingShape,
} from "./bench/training.ts";
import { tileFits } from "../engine/ops/dispatch.ts";
import { ensureAdapter } from "./software_driver.ts";
import { tuneFolder, tuneFromCache } from "./tune_cache.ts";

export { formatBench } from "./bench/format.ts";

/** What to measure; everything has a default. */
export interface BenchOptions {
  /** An open device; by default one is opened and closed. */
  readonly gpu?: Gpu;
  /** Tune a device opened here, as training does; off by default. */
  readonly tune?: "auto" | "off";
  /** Compare tilings of the product, too. */
  readonly tiles?: boolean;
  /** Extent of the products that compare them. */
  readonly tileSize?: number;
  /** Extents of the square products. */
  readonly sizes?: readonly number[];
  /** Which steps; none leaves training out. */
  readonly steps?: readonly StepKind[];
  /** Sizes of the model and its batches. */
  readonly shape?: TrainingShape;
  /** Repetitions of each measurement. */
  readonly samples?: number;
  /** Least duration of one repetition of a product. */
  readonly sampleMs?: number;
  /** Steps between two waits for the device. */
  readonly stepsPerSample?: number;
  /** Told what is measured next. */
  readonly log?: (line: string) => void;
}

/** Everything that was measured. */
export interface BenchReport {
  readonly conditions: Conditions;
  readonly matmul: readonly MatmulResult[];
  /** {@link TILE_VARIANTS}; empty unless asked for. */
  readonly tiles: readonly MatmulResult[];
  readonly training: readonly TrainingResult[];
  readonly shape: TrainingShape;
  /** Of the model of that shape. */
  readonly parameters: number;
}

/** Waits between steps as in training by default, fewer on a software adapter, where a wait is a small part. */
const STEPS_PER_SAMPLE = { cpu: 5, gpu: 10 };

/**
 * Runs the benchmark.
 *
 * @param options what to measure
 * @returns all measurements; `formatBench` makes tables of them
 * @throws {AdapterUnavailableError} or {GpuUnavailableError} where no adapter opens
 */
export async function runBench(options: BenchOptions = {}): Promise<BenchReport> {
  if (options.gpu) return await measure(options.gpu, options);
  await ensureAdapter({ log: options.log });
  using gpu = await openGpu();
  if (options.tune === "auto") await tuneFromCache(gpu, { folder: tuneFolder(), log: options.log });
  return await measure(gpu, options);
}

async function measure(gpu: Gpu, options: BenchOptions): Promise<BenchReport> {
  const { sizes = [256, 512, 1024], shape = BENCH_SHAPE, log = () => {} } = options;
  const { samples = 7, sampleMs = 250 } = options;
  const stepsPerSample = options.stepsPerSample ?? STEPS_PER_SAMPLE[gpu.adapter.isCpu ? "cpu" : "gpu"];
  const conditions = readConditions(gpu);
  const matmul: MatmulResult[] = [];
  for (const size of sizes) {
    log(`matmul ${PRODUCT_KINDS.join(", ")} ${size}`);
    const cases = PRODUCT_KINDS.map((kind) => ({ kind, size }));
    matmul.push(...await benchMatmul(gpu, cases, { samples, sampleMs }));
  }
  const tiles: MatmulResult[] = [];
  for (const kind of options.tiles ? PRODUCT_KINDS : []) {
    const variants = TILE_VARIANTS.filter((tile) => tileFits(gpu, tile));
    log(`matmul ${kind}, ${variants.length} tilings`);
    const cases = variants.map((tile) => ({ kind, tile, size: options.tileSize ?? 512 }));
    tiles.push(...await benchMatmul(gpu, cases, { samples, sampleMs }));
  }
  const training: TrainingResult[] = [];
  for (const kind of options.steps ?? Object.keys(STEP_KINDS) as StepKind[]) {
    log(`training step: ${kind}`);
    training.push(await benchTraining(gpu, kind, { shape, samples, stepsPerSample }));
  }
  return { conditions, matmul, tiles, training, shape, parameters: countParameters(shape) };
}
