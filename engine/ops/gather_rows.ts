/**
 * Picking rows: only positions whose label counts go on to the language-model head.
 * @module
 */
import { embeddingForward, GATHER_WORKGROUP, gatherRowsBackward } from "../../shaders/embedding.ts";
import { vectorWidth } from "../../shaders/lib.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, expectQuads, storageOf, type Tensor, upload } from "../tensor.ts";

const NOT_PICKED = 0xffffffff;

/**
 * y[r] = x[rows[r]].
 *
 * @param x `[N, C]`
 * @param rows `[R]` on the host: distinct indices below N
 * @param options.capacity rows to reserve for, at least R
 * @returns `[R, C]`
 * @throws {RangeError} on an index that is out of range or comes twice
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(0, 1, 10, 11, 20, 21), { shape: [3, 2] });
 * assert.deepEqual([...await toHost(gatherRows(x, Uint32Array.of(1)))], [10, 11]);
 * ```
 */
export function gatherRows(x: Tensor, rows: Uint32Array, options: { capacity?: number } = {}): Tensor {
  expectShape("gather_rows", "x", x.shape, [-1, -1]);
  const { gpu, shape: [count, columns] } = x;
  const inverse = invert(rows, count);
  const capacity = Math.max(options.capacity ?? rows.length, rows.length);
  const width = vectorWidth(columns);
  expectQuads("gather_rows", columns, [storageOf(x)]);
  const y = empty(gpu, [rows.length, columns], { capacity, type: x.type });
  const elements = sizeOf(y.shape) / width;
  gpu.dispatch(embeddingForward, {
    constants: { width, table: storageOf(x), y: storageOf(x) },
    bindings: { table: x.range, ids: upload(gpu, rows, { capacity }).range, y: y.range },
    params: { elements, columns, first: 0, table_rows: count },
    workgroups: Math.ceil(elements / GATHER_WORKGROUP),
  });
  return record(gpu, {
    name: "gather_rows",
    inputs: [x],
    output: y,
    // y[r] = x[rows[r]]: dX[rows[r]] = dY[r], zero elsewhere
    backward: (dY, sink) => {
      const dX = sink.into(x);
      if (!dX) return;
      const work = sizeOf(x.shape) / width;
      gpu.dispatch(gatherRowsBackward, {
        constants: { width },
        bindings: {
          inverse: upload(gpu, inverse, { capacity: x.capacity }).range,
          d_y: dY.range,
          d_x: dX.tensor.range,
        },
        params: { elements: work, columns, accumulate: dX.accumulate ? 1 : 0 },
        workgroups: Math.ceil(work / GATHER_WORKGROUP),
      });
    },
  });
}

function invert(rows: Uint32Array, count: number): Uint32Array {
  const inverse = new Uint32Array(count).fill(NOT_PICKED);
  rows.forEach((row, index) => {
    if (row >= count || inverse[row] !== NOT_PICKED) {
      throw new RangeError(
        `Cannot run gather_rows: expected distinct rows below ${count}, found ${row} at position ${index}`,
      );
    }
    inverse[row] = index;
  });
  return inverse;
}
