/**
 * How the cost of a training step grows with each extent.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import type { TrainingShape } from "./training_shapes.ts";
import { benchTraining } from "./training.ts";

/** One extent, measured at 1, 2 and 4 times its start while all others stay. */
export interface GrowthResult {
  readonly axis: string;
  /** Values of the extent. */
  readonly extents: readonly number[];
  /** Least wall time of a step at each. */
  readonly stepMs: readonly number[];
  /** GPU memory that the device came to hold at each: nothing is given back between steps, so it is the peak. */
  readonly memoryBytes: readonly number[];
}

/** How to measure. */
export interface GrowthOptions {
  readonly samples: number;
  readonly stepsPerSample: number;
  /** Where every axis starts. */
  readonly shape?: TrainingShape;
}

const START: Record<"cpu" | "gpu", TrainingShape> = {
  cpu: { layers: 2, hidden: 64, heads: 2, mlp: 176, vocabulary: 4096, batch: 4, tokens: 64 },
  gpu: { layers: 4, hidden: 512, heads: 8, mlp: 1408, vocabulary: 32_768, batch: 8, tokens: 512 },
};

/** Heads keep their size, and the MLP its ratio, as the width grows. */
const AXES: Readonly<Record<string, (shape: TrainingShape, times: number) => TrainingShape>> = {
  "tokens, by pairs": (shape, times) => ({ ...shape, batch: shape.batch * times }),
  "tokens, by length": (shape, times) => ({ ...shape, tokens: shape.tokens * times }),
  layers: (shape, times) => ({ ...shape, layers: shape.layers * times }),
  vocabulary: (shape, times) => ({ ...shape, vocabulary: shape.vocabulary * times }),
  width: (shape, times) => ({
    ...shape,
    hidden: shape.hidden * times,
    heads: shape.heads * times,
    mlp: shape.mlp * times,
  }),
};

const TIMES = [1, 2, 4];

/** Which steps are measured. */
export const GROWTH_STEP = "dpo, cached reference";

function startOf(gpu: Gpu, { shape }: Pick<GrowthOptions, "shape">): TrainingShape {
  return shape ?? START[gpu.adapter.isCpu ? "cpu" : "gpu"];
}

/**
 * Every shape that {@link benchGrowth} measures.
 *
 * @param gpu the device
 * @param options where to start
 */
export function growthShapes(gpu: Gpu, options: Pick<GrowthOptions, "shape">): TrainingShape[] {
  const start = startOf(gpu, options);
  return Object.values(AXES).flatMap((grow) => TIMES.map((times) => grow(start, times)));
}

/**
 * Measures DPO steps with cached reference log-probs.
 *
 * @param gpu the device; free buffers of its pool are given up
 * @param options repetitions, and where to start
 * @param log told what is measured next
 * @returns one result an axis
 */
export async function benchGrowth(
  gpu: Gpu,
  options: GrowthOptions,
  log: (line: string) => void = () => {},
): Promise<GrowthResult[]> {
  const start = startOf(gpu, options);
  const measure = async (shape: TrainingShape) => {
    gpu.buffers.trim();
    const { stepMs, memoryBytes } = await benchTraining(gpu, GROWTH_STEP, { ...options, shape });
    return { ms: stepMs.min, bytes: memoryBytes };
  };
  log("growth: warming up");
  await measure(start);
  const results: GrowthResult[] = [];
  for (const [axis, grow] of Object.entries(AXES)) {
    log(`growth: ${axis}`);
    const points: { ms: number; bytes: number }[] = [];
    // The start anew for each axis: what is compared was measured one after the other.
    for (const times of TIMES) points.push(await measure(grow(start, times)));
    results.push({
      axis,
      extents: TIMES.map((times) => extentOf(axis, grow(start, times))),
      stepMs: points.map(({ ms }) => ms),
      memoryBytes: points.map(({ bytes }) => bytes),
    });
  }
  return results;
}

function extentOf(axis: string, shape: TrainingShape): number {
  if (axis.startsWith("tokens")) return 2 * shape.batch * shape.tokens;
  return axis === "layers" ? shape.layers : axis === "width" ? shape.hidden : shape.vocabulary;
}

/**
 * How a quantity grows past its constant part: of values at 1, 2 and 4, the slope of the second stretch over that of the
 * first. 1 is linear, however large the constant part; of a square it is 2.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(slopeRatio([7, 9, 13]), 1); // 5 + 2 n
 * assert.equal(slopeRatio([1, 4, 16]), 2); // n^2
 * ```
 */
export function slopeRatio([one, two, four]: readonly number[]): number {
  return (four - two) / 2 / (two - one);
}
