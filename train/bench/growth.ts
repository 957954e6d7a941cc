/**
 * How the cost of a training step grows with each extent.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import type { TrainingShape } from "./shapes.ts";
import { benchTraining } from "./training.ts";

/** One extent, measured at 1, 2 and 3 times its start while all others stay. */
export interface GrowthResult {
  readonly axis: string;
  /** Values of the extent. */
  readonly extents: readonly number[];
  /** Least wall time of a step at each. */
  readonly stepMs: readonly number[];
  /** GPU memory that the step came to hold at each: nothing is given back between steps, so it is the peak. */
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
  cpu: { layers: 2, hidden: 64, heads: 2, mlp: 176, vocabulary: 1024, batch: 2, tokens: 64 },
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

const TIMES = [1, 2, 3];

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
  const start = options.shape ?? START[gpu.adapter.isCpu ? "cpu" : "gpu"];
  const measure = async (shape: TrainingShape) => {
    gpu.buffers.trim();
    const before = gpu.stats().memory.totalBytes;
    const result = await benchTraining(gpu, "dpo, cached reference", { ...options, shape });
    return { ms: result.stepMs.min, bytes: result.memoryBytes - before };
  };
  log("growth: the start");
  const first = await measure(start);
  const results: GrowthResult[] = [];
  for (const [axis, grow] of Object.entries(AXES)) {
    log(`growth: ${axis}`);
    const points = [first];
    for (const times of TIMES.slice(1)) points.push(await measure(grow(start, times)));
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
 * How a quantity grows past its constant part: of values at 1, 2 and 3, the second increment over the first. 1 is
 * linear, however large the constant part; of a square it is 5/3.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(incrementRatio([7, 9, 11]), 1); // 5 + 2 n
 * assert.equal(incrementRatio([1, 4, 9]), 5 / 3); // n^2
 * ```
 */
export function incrementRatio([one, two, three]: readonly number[]): number {
  return (three - two) / (two - one);
}
