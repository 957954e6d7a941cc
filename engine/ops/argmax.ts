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
 * import { ensureAdapter } from "../../train/software_driver.ts";
 * import { openGpu } from "../gpu.ts";
 * import { fromHost, toHost } from "../tensor.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, new Float32Array([1, 7, 7]), { shape: [1, 3] });
 * const [id] = await toHost(argmax(x));
 * if (id !== 1) throw new Error("the first of equal ones");
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
