/**
 * Matrices of the same rows side by side in one.
 * @module
 */
import { GATHER_WORKGROUP } from "../../shaders/embedding.ts";
import { moveColumns } from "../../shaders/pack_columns.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { record } from "../tape.ts";
import { emptyLike, type Tensor } from "../tensor.ts";

/**
 * y = [part 0 | part 1 | ...], row by row.
 *
 * @param parts `[N, C_p]` each
 * @returns `[N, C_0 + C_1 + ...]`
 * @throws {ShapeError} when their rows differ
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const a = fromHost(gpu, Float32Array.of(1, 2), { shape: [2, 1] });
 * const b = fromHost(gpu, Float32Array.of(10, 11, 20, 21), { shape: [2, 2] });
 * assert.deepEqual([...await toHost(packColumns([a, b]))], [1, 10, 11, 2, 20, 21]);
 * ```
 */
export function packColumns(parts: readonly Tensor[]): Tensor {
  const { gpu, shape: [rows] } = parts[0];
  for (const part of parts) expectShape("pack_columns", "a part", part.shape, [rows, -1]);
  const columns = parts.reduce((total, { shape }) => total + shape[1], 0);
  const y = emptyLike(parts[0], [rows, columns]);
  const eachPart = (
    visit: (part: Tensor, dispatch: { params: Record<string, number>; workgroups: number }) => void,
  ) => {
    let first = 0;
    for (const part of parts) {
      const elements = sizeOf(part.shape);
      const params = { elements, part_columns: part.shape[1], columns, first };
      visit(part, { params, workgroups: Math.ceil(elements / GATHER_WORKGROUP) });
      first += part.shape[1];
    }
  };
  eachPart((part, { params, workgroups }) =>
    gpu.dispatch(moveColumns, {
      constants: { into: "packed" },
      bindings: { source: part.range, target_: y.range },
      params: { ...params, accumulate: 0 },
      workgroups,
    })
  );
  return record(gpu, {
    name: "pack_columns",
    inputs: parts,
    output: y,
    // y's columns of a part are the part: its gradient is those columns of dY
    backward: (dY, sink) =>
      eachPart((part, { params, workgroups }) => {
        const dPart = sink.into(part);
        if (!dPart) return;
        gpu.dispatch(moveColumns, {
          constants: { into: "part" },
          bindings: { source: dY.range, target_: dPart.tensor.range },
          params: { ...params, accumulate: dPart.accumulate ? 1 : 0 },
          workgroups,
        });
      }),
  });
}
