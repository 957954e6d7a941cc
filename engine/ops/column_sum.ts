/**
 * Sums over the rows of a matrix, in two stages with a fixed order.
 * @module
 */
import { columnSum, columnSumPartial, ROWS_PER_COLUMN_PARTIAL } from "../../shaders/column_sum.ts";
import { vectorWidth } from "../../shaders/lib.ts";
import { expectShape, sizeOf } from "../shape.ts";
import type { GradientTarget } from "../tape.ts";
import { empty, scope, storageOf, type Tensor } from "../tensor.ts";

/**
 * Writes or adds sum over n of x[n, c] to a target, without recording: the gradient of a bias.
 *
 * @param x `[N, C]`
 * @param target `[C]`, f32, and whether to add to it
 * @throws {ShapeError} when the target is not `[C]`
 */
export function sumColumns(x: Tensor, target: GradientTarget): void {
  const { gpu, shape: [rows, columns] } = x;
  expectShape("column_sum", "the sums", target.tensor.shape, [columns]);
  const width = vectorWidth(columns);
  const blocks = Math.ceil(rows / ROWS_PER_COLUMN_PARTIAL);
  scope(gpu, () => {
    const partial = empty(gpu, [blocks, columns], {
      capacity: Math.ceil(x.capacity / ROWS_PER_COLUMN_PARTIAL),
    });
    gpu.dispatch(columnSumPartial, {
      constants: { width, storage: storageOf(x) },
      bindings: { x: x.range, partial: partial.range },
      params: { rows, columns },
      workgroups: [Math.ceil(columns / width / 32), blocks],
    });
    sumPartials(partial, target);
  });
}

/**
 * Second stage: writes or adds sum over b of partial[b], b ascending, to a target, without recording.
 *
 * @param partial `[B, ...]`, f32
 * @param target as many elements as one part, f32, and whether to add to it
 */
export function sumPartials(partial: Tensor, target: GradientTarget): void {
  const [rows, ...part] = partial.shape;
  const columns = sizeOf(part);
  const width = vectorWidth(columns);
  partial.gpu.dispatch(columnSum, {
    constants: { width },
    bindings: { partial: partial.range, sums: target.tensor.range },
    params: { rows, columns, accumulate: target.accumulate ? 1 : 0 },
    workgroups: Math.ceil(columns / width / 32),
  });
}
