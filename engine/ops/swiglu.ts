/**
 * The gated activation of Llama's MLP.
 * @module
 */
import { swigluBackward, swigluForward } from "../../shaders/elementwise.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { record } from "../tape.ts";
import { emptyLike, expectType, type Tensor } from "../tensor.ts";
import { activationStorage, elementwiseWorkgroups, inputMemory } from "./dispatch.ts";

/**
 * y = silu(gate) up (arXiv 2002.05202).
 *
 * @param gate `[N, F]` or any shape, f32 or f16
 * @param up the same shape and type
 * @returns the same shape and type
 * @throws {ShapeError} when the shapes or types differ
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const gate = fromHost(gpu, Float32Array.of(0, 1), { shape: [1, 2] });
 * const up = fromHost(gpu, Float32Array.of(5, 2), { shape: [1, 2] });
 * const [zero, one] = await toHost(swiglu(gate, up));
 * assert.equal(zero, 0);
 * assert(Math.abs(one - 2 / (1 + Math.exp(-1))) < 1e-6);
 * ```
 */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  expectShape("swiglu", "up", up.shape, gate.shape);
  expectType("swiglu", "up", up, gate.type);
  const constants = { storage: activationStorage("swiglu", gate), memory: inputMemory(gate.gpu) };
  const y = emptyLike(gate, gate.shape, { type: gate.type });
  const { elements, workgroups } = elementwiseWorkgroups(sizeOf(gate.shape));
  gate.gpu.dispatch(swigluForward, {
    constants,
    bindings: { gate: gate.range, up: up.range, y: y.range },
    params: { elements },
    workgroups,
  });
  return record(gate.gpu, {
    name: "swiglu",
    inputs: [gate, up],
    output: y,
    // y = g s u, s = sigmoid(g): dG = dY u s (1 + g (1 - s)), dU = dY g s
    backward: (dY, sink) => {
      // One kernel writes both; where one is not wanted it goes to a scratch tensor. So does one of the same tensor's
      // two parts: a kernel cannot add to what it is writing.
      const scratch = () => ({ tensor: emptyLike(gate, gate.shape, { type: gate.type }), accumulate: false });
      const dGate = sink.into(gate) ?? scratch();
      const dUp = (up === gate ? null : sink.into(up)) ?? scratch();
      gate.gpu.dispatch(swigluBackward, {
        constants,
        bindings: {
          gate: gate.range,
          up: up.range,
          d_y: dY.range,
          d_gate: dGate.tensor.range,
          d_up: dUp.tensor.range,
        },
        params: {
          elements,
          accumulate_d_gate: dGate.accumulate ? 1 : 0,
          accumulate_d_up: dUp.accumulate ? 1 : 0,
        },
        workgroups,
      });
      if (up === gate) sink.pass(up, dUp.tensor);
    },
  });
}
