/**
 * The SiLU activation.
 * @module
 */
import { siluBackward, siluForward } from "../../shaders/elementwise.ts";
import { sizeOf } from "../shape.ts";
import { record } from "../tape.ts";
import { emptyLike, type Tensor } from "../tensor.ts";
import { elementwiseWorkgroups } from "./dispatch.ts";

/**
 * y = x sigmoid(x).
 *
 * @param x any shape
 * @returns the same shape
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const [zero, one] = await toHost(silu(fromHost(gpu, Float32Array.of(0, 1), { shape: [2] })));
 * assert.equal(zero, 0);
 * assert(Math.abs(one - 1 / (1 + Math.exp(-1))) < 1e-6);
 * ```
 */
export function silu(x: Tensor): Tensor {
  const y = emptyLike(x);
  const { elements, workgroups } = elementwiseWorkgroups(sizeOf(x.shape));
  x.gpu.dispatch(siluForward, {
    constants: {},
    bindings: { x: x.range, y: y.range },
    params: { elements },
    workgroups,
  });
  return record(x.gpu, {
    name: "silu",
    inputs: [x],
    output: y,
    // y = x s, s = sigmoid(x): dX = dY s (1 + x (1 - s))
    backward: (dY, sink) => {
      const dX = sink.into(x);
      if (!dX) return;
      x.gpu.dispatch(siluBackward, {
        constants: {},
        bindings: { x: x.range, d_y: dY.range, d_x: dX.tensor.range },
        params: { elements, accumulate: dX.accumulate ? 1 : 0 },
        workgroups,
      });
    },
  });
}
