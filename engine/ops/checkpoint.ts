/**
 * Activation checkpointing: memory for the inside of a part of the model is needed only while that part runs.
 * @module
 */
import { noGrad, record, Tape } from "../tape.ts";
import { scope, type Tensor } from "../tensor.ts";

/**
 * y = body(x), keeping nothing but x and y: the backward runs the body again, then its backward (arXiv 1604.06174).
 * Gradients are those of the plain body, bit for bit: the same kernels in the same order.
 *
 * Where x wants no gradient the body is recorded as if it stood here alone, so that its parameters get theirs.
 *
 * @param input x, `[N, ...]`
 * @param body made of ops on x, parameters and tensors that live as long as the tape; the same each time it runs
 * @returns what the body returned
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { activation, fromHost, openGpu, scaledSum, Tape, type Tensor, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const grad = fromHost(gpu, Float32Array.of(0), { shape: [1] });
 * const x = { ...fromHost(gpu, Float32Array.of(0), { shape: [1], requiresGrad: true }), grad };
 * const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
 * using tape = new Tape(gpu);
 * const silu = (x: Tensor) => activation(x, { kind: "silu" });
 * const y = checkpoint(x, (x) => silu(silu(x)));
 * tape.backward([{ tensor: scaledSum(y, { scale: 1 }), gradient: one }]);
 * assert.deepEqual([...await toHost(grad)], [0.25]); // 1/2 of each
 * ```
 */
export function checkpoint(input: Tensor, body: (input: Tensor) => Tensor): Tensor {
  const { gpu } = input;
  if (gpu.tape && !input.requiresGrad) return body(input);
  return record(gpu, {
    name: "checkpoint",
    inputs: [input],
    output: noGrad(gpu, () => scope(gpu, () => body(input))),
    backward(dOutput, sink) {
      using tape = new Tape(gpu, sink);
      tape.backward([{ tensor: body(input), gradient: dOutput }]);
    },
  });
}
