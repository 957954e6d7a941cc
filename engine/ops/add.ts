/**
 * The residual addition.
 * @module
 */
import { addForward } from "../../shaders/elementwise.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { record } from "../tape.ts";
import { emptyLike, expectType, type Tensor } from "../tensor.ts";
import { activationStorage, elementwiseWorkgroups, inputMemory } from "./dispatch.ts";

/**
 * y = a + b.
 *
 * @param a any shape, f32 or f16
 * @param b the same shape and type
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
 * const a = fromHost(gpu, Float32Array.of(1, 2), { shape: [2] });
 * const b = fromHost(gpu, Float32Array.of(10, 20), { shape: [2] });
 * assert.deepEqual([...await toHost(add(a, b))], [11, 22]);
 * ```
 */
export function add(a: Tensor, b: Tensor): Tensor {
  expectShape("add", "b", b.shape, a.shape);
  expectType("add", "b", b, a.type);
  const y = emptyLike(a, a.shape, { type: a.type });
  const { elements, workgroups } = elementwiseWorkgroups(sizeOf(a.shape));
  a.gpu.dispatch(addForward, {
    constants: { storage: activationStorage("add", a), memory: inputMemory(a.gpu) },
    bindings: { a: a.range, b: b.range, y: y.range },
    params: { elements },
    workgroups,
  });
  return record(a.gpu, {
    name: "add",
    inputs: [a, b],
    output: y,
    isOutputFree: true,
    // y = a + b: dA = dY, dB = dY
    backward: (dY, sink) => {
      sink.pass(a, dY);
      sink.pass(b, dY);
    },
  });
}
