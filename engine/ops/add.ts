/**
 * The residual addition.
 * @module
 */
import { addForward } from "../../shaders/elementwise.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { record } from "../tape.ts";
import { emptyLike, type Tensor } from "../tensor.ts";
import { elementwiseWorkgroups } from "./dispatch.ts";

/**
 * y = a + b.
 *
 * @param a any shape
 * @param b the same shape
 * @returns the same shape
 * @throws {ShapeError} when the shapes differ
 * @example
 * ```ts
 * import { ensureAdapter } from "../../train/software_driver.ts";
 * import { openGpu } from "../gpu.ts";
 * import { fromHost, toHost } from "../tensor.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, new Float32Array([1, 2]), { shape: [2] });
 * const y = await toHost(add(x, x));
 * if (y.join() !== "2,4") throw new Error("1 + 1 and 2 + 2");
 * ```
 */
export function add(a: Tensor, b: Tensor): Tensor {
  expectShape("add", "b", b.shape, a.shape);
  const y = emptyLike(a);
  const { elements, workgroups } = elementwiseWorkgroups(sizeOf(a.shape));
  a.gpu.dispatch(addForward, {
    constants: {},
    bindings: { a: a.range, b: b.range, y: y.range },
    params: { elements },
    workgroups,
  });
  return record(a.gpu, {
    name: "add",
    inputs: [a, b],
    output: y,
    // y = a + b: dA = dY, dB = dY
    backward: (dY, sink) => {
      sink.pass(a, dY);
      sink.pass(b, dY);
    },
  });
}
