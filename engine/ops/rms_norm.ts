/**
 * RMSNorm.
 * @module
 */
import { rowWorkgroups } from "../../shaders/lib.ts";
import {
  rmsNormBackward,
  rmsNormForward,
  rmsNormWeightPartial,
  ROWS_PER_PARTIAL,
} from "../../shaders/rms_norm.ts";
import { expectShape } from "../shape.ts";
import { type GradientTarget, record } from "../tape.ts";
import { empty, emptyLike, scope, type Tensor } from "../tensor.ts";
import { sumPartials } from "./column_sum.ts";
import { rowLanes, rowOperands } from "./dispatch.ts";

/**
 * y = x / sqrt(mean(x^2) + eps) weight, over the last axis (arXiv 1910.07467).
 *
 * @param x `[N, C]`, f32 or f16 (C divides by four then)
 * @param weight `[C]`, f32
 * @param options.eps added to the mean square
 * @returns `[N, C]`, stored as x
 * @throws {ShapeError} when the weight is not `[C]`, or f16 rows do not divide by four
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(3, 4), { shape: [1, 2] });
 * const weight = fromHost(gpu, Float32Array.of(1, 1), { shape: [2] });
 * const [a, b] = await toHost(rmsNorm(x, weight, { eps: 1e-6 }));
 * assert(Math.abs((a * a + b * b) / 2 - 1) < 1e-5); // the mean square is 1
 * ```
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: { eps: number }): Tensor {
  expectShape("rms_norm", "x", x.shape, [-1, -1]);
  const [rows, columns] = x.shape;
  expectShape("rms_norm", "weight", weight.shape, [columns]);
  const { gpu } = x;
  const constants = { ...rowOperands("rms_norm", x, columns), ...rowLanes(gpu) };
  const workgroups = rowWorkgroups(constants.lanes, rows);
  const y = emptyLike(x, x.shape, { type: x.type });
  const rstd = emptyLike(x, [rows]);
  gpu.dispatch(rmsNormForward, {
    constants,
    bindings: { x: x.range, weight: weight.range, rstd: rstd.range, y: y.range },
    params: { rows, columns, eps: options.eps },
    workgroups,
  });
  return record(gpu, {
    name: "rms_norm",
    inputs: [x, weight],
    output: y,
    backward: (dY, sink) => {
      const dX = sink.into(x);
      // y = x r w, r = rstd: with g = dY w, dX = r (g - x r^2 mean(g x))
      if (dX) {
        gpu.dispatch(rmsNormBackward, {
          constants,
          bindings: {
            x: x.range,
            weight: weight.range,
            rstd: rstd.range,
            d_y: dY.range,
            d_x: dX.tensor.range,
          },
          params: { rows, columns, accumulate: dX.accumulate ? 1 : 0 },
          workgroups,
        });
      }
      const dWeight = sink.into(weight);
      if (dWeight) weightGradient({ x, rstd, dY }, dWeight);
    },
  });
}

/** y = x r w: dW = sum over rows of dY x r, in two stages with a fixed order. */
function weightGradient({ x, rstd, dY }: Record<"x" | "rstd" | "dY", Tensor>, dWeight: GradientTarget): void {
  const { gpu, shape: [rows, columns] } = x;
  const constants = rowOperands("rms_norm", x, columns);
  const blocks = Math.ceil(rows / ROWS_PER_PARTIAL);
  scope(gpu, () => {
    const partial = empty(gpu, [blocks, columns], { capacity: Math.ceil(x.capacity / ROWS_PER_PARTIAL) });
    gpu.dispatch(rmsNormWeightPartial, {
      constants,
      bindings: { x: x.range, rstd: rstd.range, d_y: dY.range, partial: partial.range },
      params: { rows, columns },
      workgroups: [Math.ceil(columns / constants.width / 32), blocks],
    });
    sumPartials(partial, dWeight);
  });
}
