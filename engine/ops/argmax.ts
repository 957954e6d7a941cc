/**
 * The greedy choice.
 * @module
 */
import { argmaxRows } from "../../shaders/reduce.ts";
import { expectShape } from "../shape.ts";
import { refuseGradient } from "../tape.ts";
import { empty, type Tensor } from "../tensor.ts";

/**
 * ids[r] = the first position of row r's largest value. Has no gradient.
 *
 * @param x `[R, V]`
 * @returns `[R]`, u32
 * @throws {ShapeError} when x is no matrix, or would be recorded on a tape
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const logits = fromHost(gpu, Float32Array.of(1, 3, 2, 5, 4, 5), { shape: [2, 3] });
 * assert.deepEqual([...await toHost(argmax(logits))], [1, 0]);
 * ```
 */
export function argmax(x: Tensor): Tensor {
  expectShape("argmax", "x", x.shape, [-1, -1]);
  refuseGradient("argmax", x);
  const [rows, columns] = x.shape;
  const ids = empty(x.gpu, [rows], { type: "u32" });
  x.gpu.dispatch(argmaxRows, {
    constants: {},
    bindings: { x: x.range, ids: ids.range },
    params: { rows, columns },
    workgroups: rows,
  });
  return ids;
}
