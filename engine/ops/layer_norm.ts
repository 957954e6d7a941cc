/**
 * Layer normalization.
 * @module
 */
import {
  layerNormBackward,
  layerNormForward,
  layerNormGainPartial,
  ROWS_PER_GAIN_PARTIAL,
} from "../../shaders/layer_norm.ts";
import { rowWorkgroups } from "../../shaders/lib.ts";
import { expectShape } from "../shape.ts";
import { type GradientTarget, record } from "../tape.ts";
import { empty, emptyLike, expectType, scope, type Tensor } from "../tensor.ts";
import { sumPartials } from "./column_sum.ts";
import { rowLanes, rowOperands } from "./dispatch.ts";

/** What follows the normalization, and what keeps it from dividing by zero. */
export interface LayerNormOptions {
  /** `[C]`, f32: multiplies every normalized row. */
  readonly weight: Tensor;
  /** `[C]`, f32: added to every row. */
  readonly bias: Tensor;
  /** Added to the variance. */
  readonly eps: number;
}

/**
 * y = (x - mean(x)) / sqrt(variance(x) + eps) weight + bias, over the last axis (arXiv 1607.06450); the variance divides
 * by C.
 *
 * @param x `[N, C]`, f32 or f16 (C divides by four then)
 * @param options weight, bias and eps
 * @returns `[N, C]`, stored as x
 * @throws {ShapeError} when weight or bias are not `[C]` in f32, or f16 rows do not divide by four
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(3, 5), { shape: [1, 2] });
 * const weight = fromHost(gpu, Float32Array.of(1, 2), { shape: [2] });
 * const bias = fromHost(gpu, Float32Array.of(0, 10), { shape: [2] });
 * const [a, b] = await toHost(layerNorm(x, { weight, bias, eps: 1e-6 }));
 * assert(Math.abs(a + 1) < 1e-5); // (3 - 4) / 1
 * assert(Math.abs(b - 12) < 1e-5); // (5 - 4) / 1 * 2 + 10
 * ```
 */
export function layerNorm(x: Tensor, options: LayerNormOptions): Tensor {
  const { weight, bias, eps } = options;
  expectShape("layer_norm", "x", x.shape, [-1, -1]);
  const [rows, columns] = x.shape;
  for (const [what, tensor] of [["weight", weight], ["bias", bias]] as const) {
    expectShape("layer_norm", what, tensor.shape, [columns]);
    expectType("layer_norm", what, tensor, "f32");
  }
  const { gpu } = x;
  const constants = { ...rowOperands("layer_norm", x, columns), ...rowLanes(gpu) };
  const workgroups = rowWorkgroups(constants.lanes, rows);
  const y = emptyLike(x, x.shape, { type: x.type });
  const mean = emptyLike(x, [rows]);
  const rstd = emptyLike(x, [rows]);
  const saved = { x: x.range, weight: weight.range, mean: mean.range, rstd: rstd.range };
  gpu.dispatch(layerNormForward, {
    constants,
    bindings: { ...saved, bias: bias.range, y: y.range },
    params: { rows, columns, eps },
    workgroups,
  });
  return record(gpu, {
    name: "layer_norm",
    inputs: [x, weight, bias],
    output: y,
    isOutputFree: true,
    backward: (dY, sink) => {
      const dX = sink.into(x);
      // y = z w + b, z = (x - m) r: with g = dY w, dX = r (g - mean(g) - z mean(g z))
      if (dX) {
        gpu.dispatch(layerNormBackward, {
          constants,
          bindings: { ...saved, d_y: dY.range, d_x: dX.tensor.range },
          params: { rows, columns, accumulate: dX.accumulate ? 1 : 0 },
          workgroups,
        });
      }
      const targets = { weight: sink.into(weight), bias: sink.into(bias) };
      if (targets.weight || targets.bias) gainGradients({ x, mean, rstd, dY }, targets);
    },
  });
}

/** y = z w + b: dW = sum over rows of dY z, dB = sum over rows of dY, in two stages with a fixed order. */
function gainGradients(
  { x, mean, rstd, dY }: Record<"x" | "mean" | "rstd" | "dY", Tensor>,
  targets: Record<"weight" | "bias", GradientTarget | null>,
): void {
  const { gpu, shape: [rows, columns] } = x;
  const constants = rowOperands("layer_norm", x, columns);
  const blocks = Math.ceil(rows / ROWS_PER_GAIN_PARTIAL);
  scope(gpu, () => {
    const partial = () =>
      empty(gpu, [blocks, columns], { capacity: Math.ceil(x.capacity / ROWS_PER_GAIN_PARTIAL) });
    const [ofWeight, ofBias] = [partial(), partial()];
    gpu.dispatch(layerNormGainPartial, {
      constants,
      bindings: {
        x: x.range,
        mean: mean.range,
        rstd: rstd.range,
        d_y: dY.range,
        partial_weight: ofWeight.range,
        partial_bias: ofBias.range,
      },
      params: { rows, columns },
      workgroups: [Math.ceil(columns / constants.width / 32), blocks],
    });
    if (targets.weight) sumPartials(ofWeight, targets.weight);
    if (targets.bias) sumPartials(ofBias, targets.bias);
  });
}
