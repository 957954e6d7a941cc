/**
 * Measures this machine's adapter: matrix products and whole training steps. Wall time up to a readback, nothing
 * subtracted; every measurement is warmed up, repeated and given with its spread.
 * @module
 */
import type { Gpu } from "../engine/gpu.ts";
import { tileFits } from "../engine/ops/dispatch.ts";
import type { PlanningOptions } from "../engine/planning_gpu.ts";
import { type Conditions, readConditions } from "./bench/conditions.ts";
import {
  benchGrowth,
  GROWTH_STEP,
  type GrowthOptions,
  type GrowthResult,
  growthShapes,
} from "./bench/growth.ts";
import {
  benchMatmul,
  type MatmulCase,
  type MatmulResult,
  planMatmul,
  PRODUCT_KINDS,
  TILE_VARIANTS,
} from "./bench/matmul.ts";
import { TRAINING_SHAPES, type TrainingShape } from "./bench/training_shapes.ts";
import {
  benchTraining,
  planBenchTraining,
  STEP_KINDS,
  type StepKind,
  type TrainingResult,
} from "./bench/training.ts";
import { type MemoryPlan, planRun } from "./plan.ts";

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

/** What is measured, with every default in its place. */
function partsOf(gpu: Gpu, options: BenchOptions) {
  const kind = gpu.adapter.isCpu ? "cpu" : "gpu";
  const { sizes = SIZES[kind], maxSize = Infinity, tileSize = 512 } = options;
  const variants = options.tiles ? TILE_VARIANTS.filter((tile) => tileFits(gpu, tile)) : [];
  return {
    matmul: sizes.filter((size) => size <= maxSize).map((size) => ({
      label: `matmul ${PRODUCT_KINDS.join(", ")} ${size}`,
      cases: PRODUCT_KINDS.map((kind) => ({ kind, size })),
    })),
    tiles: options.tiles
      ? PRODUCT_KINDS.map((kind) => ({
        label: `matmul ${kind}, ${variants.length} tilings`,
        cases: variants.map((tile) => ({ kind, tile, size: tileSize })),
      }))
      : [],
    steps: options.steps ?? Object.keys(STEP_KINDS) as StepKind[],
    shape: options.shape ?? TRAINING_SHAPES.bench,
    stepsPerSample: options.stepsPerSample ?? STEPS_PER_SAMPLE[kind],
    growth: { ...GROWTH[kind], ...(typeof options.growth === "object" ? { shape: options.growth } : {}) },
  };
}

/**
 * Runs the benchmark.
 *
 * @param gpu the device
 * @param options what to measure
 * @returns all measurements; `formatBench` makes tables of them
 */
export async function runBench(gpu: Gpu, options: BenchOptions = {}): Promise<BenchReport> {
  const { samples = 7, sampleMs = 250, log = () => {} } = options;
  const parts = partsOf(gpu, options);
  const { shape, stepsPerSample } = parts;
  const conditions = readConditions(gpu);
  const products = async (of: readonly { label: string; cases: readonly MatmulCase[] }[]) => {
    const results: MatmulResult[] = [];
    for (const { label, cases } of of) {
      log(label);
      results.push(...await benchMatmul(gpu, cases, { samples, sampleMs }));
    }
    return results;
  };
  const matmul = await products(parts.matmul);
  const tiles = await products(parts.tiles);
  const training: TrainingResult[] = [];
  for (const kind of parts.steps) {
    log(`training step: ${kind}`);
    training.push(await benchTraining(gpu, kind, { shape, samples, stepsPerSample }));
  }
  const growth = options.growth ? await benchGrowth(gpu, parts.growth, log) : [];
  return { conditions, matmul, tiles, training, shape, growth };
}

/**
 * Plans the benchmark's memory.
 *
 * @param options whose limits, adapter and budget count
 * @param what as for {@link runBench}
 * @returns that of its largest part, with what the pool keeps of the parts before
 * @throws {PlanError} when a size is past what a kernel or the adapter can do
 */
export async function planBench(options: PlanningOptions, what: BenchOptions = {}): Promise<MemoryPlan> {
  return await planRun(options, async ({ gpu }) => {
    const { matmul, tiles, steps, shape, stepsPerSample, growth } = partsOf(gpu, what);
    for (const { cases } of [...matmul, ...tiles]) await planMatmul(gpu, cases);
    for (const kind of steps) await planBenchTraining(gpu, kind, { shape, stepsPerSample });
    for (const grown of what.growth ? growthShapes(gpu, growth) : []) {
      gpu.buffers.trim();
      await planBenchTraining(gpu, GROWTH_STEP, { ...growth, shape: grown });
    }
  });
}
