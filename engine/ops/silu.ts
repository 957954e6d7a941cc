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
