/**
 * Measures this machine's adapter: matrix products and whole training steps. Wall time up to a readback, nothing
 * subtracted; every measurement is warmed up, repeated and given with its spread.
 * @module
 */
import type { Gpu } from "../engine/gpu.ts";
import { type Conditions, readConditions } from "./bench/conditions.ts";
import { benchGrowth, type GrowthOptions, type GrowthResult } from "./bench/growth.ts";
import { benchMatmul, type MatmulResult, PRODUCT_KINDS, TILE_VARIANTS } from "./bench/matmul.ts";
import { TRAINING_SHAPES, type TrainingShape } from "./bench/shapes.ts";
import { benchTraining, STEP_KINDS, type StepKind, type TrainingResult } from "./bench/training.ts";

export { formatBench } from "./bench/format.ts";

/** What to measure; everything has a default. */
export interface BenchOptions {
  /** Compare tilings of the product, too. */
  readonly tiles?: boolean;
  /** Extent of the products that compare them. */
  readonly tileSize?: number;
  /** Extents of the square products. */
  readonly sizes?: readonly number[];
  /** Those above it are left out. */
  readonly maxSize?: number;
  /** Which steps; none leaves training out. */
  readonly steps?: readonly StepKind[];
  /** Sizes of the model and its batches. */
  readonly shape?: TrainingShape;
  /** Measure how a step's cost grows, too; from where, if not from sizes that suit the adapter. */
  readonly growth?: boolean | TrainingShape;
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
  /** Empty unless asked for. */
  readonly growth: readonly GrowthResult[];
}

/** Waits between steps as in training by default, fewer on a software adapter, where a wait is a small part. */
const STEPS_PER_SAMPLE = { cpu: 5, gpu: 10 };

/** A software adapter takes minutes for what fills a GPU. */
const SIZES = { cpu: [256, 512, 1024], gpu: [512, 1024, 2048, 4096] };

/** Growth has many cases, and compares least times: few repetitions do. */
const GROWTH: Record<"cpu" | "gpu", GrowthOptions> = {
  cpu: { samples: 3, stepsPerSample: 2 },
  gpu: { samples: 3, stepsPerSample: 5 },
};

/**
 * Runs the benchmark.
 *
 * @param gpu the device
 * @param options what to measure
 * @returns all measurements; `formatBench` makes tables of them
 */
export async function runBench(gpu: Gpu, options: BenchOptions = {}): Promise<BenchReport> {
  const kind = gpu.adapter.isCpu ? "cpu" : "gpu";
  const { sizes = SIZES[kind], shape = TRAINING_SHAPES.bench, log = () => {} } = options;
  const { samples = 7, sampleMs = 250, maxSize = Infinity, stepsPerSample = STEPS_PER_SAMPLE[kind] } =
    options;
  const conditions = readConditions(gpu);
  const matmul: MatmulResult[] = [];
  for (const size of sizes.filter((one) => one <= maxSize)) {
    log(`matmul ${PRODUCT_KINDS.join(", ")} ${size}`);
    const cases = PRODUCT_KINDS.map((kind) => ({ kind, size }));
    matmul.push(...await benchMatmul(gpu, cases, { samples, sampleMs }));
  }
  const tiles: MatmulResult[] = [];
  for (const kind of options.tiles ? PRODUCT_KINDS : []) {
    log(`matmul ${kind}, ${TILE_VARIANTS.length} tilings`);
    const cases = TILE_VARIANTS.map((tile) => ({ kind, tile, size: options.tileSize ?? 512 }));
    tiles.push(...await benchMatmul(gpu, cases, { samples, sampleMs }));
  }
  const training: TrainingResult[] = [];
  for (const kind of options.steps ?? Object.keys(STEP_KINDS) as StepKind[]) {
    log(`training step: ${kind}`);
    training.push(await benchTraining(gpu, kind, { shape, samples, stepsPerSample }));
  }
  const from = typeof options.growth === "object" ? { shape: options.growth } : {};
  const growth = options.growth ? await benchGrowth(gpu, { ...GROWTH[kind], ...from }, log) : [];
  return { conditions, matmul, tiles, training, shape, growth };
}
