/**
 * The gated activation of an MLP, on what one product of the gate's and up's weights leaves.
 * @module
 */
import { SWIGLU_WORKGROUP, swigluBackward, swigluForward } from "../../shaders/swiglu.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { type GradientTarget, record } from "../tape.ts";
import { emptyLike, type Tensor } from "../tensor.ts";
import { rowOperands } from "./dispatch.ts";

/**
 * y = silu(gate) up (arXiv 2002.05202), gate and up side by side.
 *
 * @param gateUp `[N, 2 F]`, f32 or f16: a row's gate, then its up
 * @returns `[N, F]`, the same type
 * @throws {ShapeError} when the rows do not have two halves, or sixteen-bit halves do not divide by four
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const gateUp = fromHost(gpu, Float32Array.of(0, 1, 5, 2), { shape: [1, 4] });
 * const [zero, one] = await toHost(swiglu(gateUp));
 * assert.equal(zero, 0);
 * assert(Math.abs(one - 2 / (1 + Math.exp(-1))) < 1e-6);
 * ```
 */
export function swiglu(gateUp: Tensor): Tensor {
  expectShape("swiglu", "gateUp", gateUp.shape, [-1, -1]);
  const { gpu, shape: [rows, width] } = gateUp;
  if (width % 2 !== 0) {
    throw new ShapeError(
      `Cannot run swiglu: expected as many columns for the gate as for up, found [${rows}, ${width}]`,
    );
  }
  const columns = width / 2;
  const constants = rowOperands("swiglu", gateUp, columns);
  const y = emptyLike(gateUp, [rows, columns], { type: gateUp.type });
  gpu.dispatch(swigluForward, {
    constants,
    bindings: { gate_up: gateUp.range, y: y.range },
    params: { rows, columns },
    workgroups: workgroupsOf(y, constants.width),
  });
  return record(gpu, {
    name: "swiglu",
    inputs: [gateUp],
    output: y,
    isOutputFree: true,
    backward: (dY, sink) => {
      const dGateUp = sink.into(gateUp);
      if (dGateUp) gateUpGradient(gateUp, dY, dGateUp);
    },
  });
}

/**
 * y = g s u, s = sigmoid(g): dG = dY u s (1 + g (1 - s)), dU = dY g s.
 *
 * @param gateUp `[N, 2 F]`
 * @param dY `[N, F]`, stored as gateUp is
 * @param target of gateUp's gradient
 */
export function gateUpGradient(gateUp: Tensor, dY: Tensor, target: GradientTarget): void {
  const [rows, columns] = dY.shape;
  const constants = rowOperands("swiglu", gateUp, columns);
  gateUp.gpu.dispatch(swigluBackward, {
    constants,
    bindings: { gate_up: gateUp.range, d_y: dY.range, d_gate_up: target.tensor.range },
    params: { rows, columns, accumulate: target.accumulate ? 1 : 0 },
    workgroups: workgroupsOf(dY, constants.width),
  });
}

function workgroupsOf({ shape: [rows, columns] }: Tensor, width: number): number {
  return Math.ceil(rows * columns / width / SWIGLU_WORKGROUP);
}
