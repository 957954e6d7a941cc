/**
 * Activation functions, with the bias of the layer before.
 * @module
 */
import { activationBackward, activationForward, type ActivationKind } from "../../shaders/elementwise.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { type GradientTarget, record } from "../tape.ts";
import { emptyLike, expectType, scope, type Tensor } from "../tensor.ts";
import { sumColumns } from "./column_sum.ts";
import { activationStorage, elementwiseWorkgroups, inputMemory } from "./dispatch.ts";

/** Which function, of what sum. */
export interface ActivationOptions {
  /** `silu` (arXiv 1702.03118), or `gelu_tanh`, GPT-2's (arXiv 1606.08415). */
  readonly kind: ActivationKind;
  /** `[C]`, f32: added to every row of x. */
  readonly bias?: Tensor;
}

/**
 * y = act(x + bias).
 *
 * @param x `[N, C]`, or any shape where there is no bias; f32 or f16
 * @param options function and bias
 * @returns the same shape and type
 * @throws {ShapeError} when the bias is not `[C]` or not f32
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(-1, 0), { shape: [1, 2] });
 * const bias = fromHost(gpu, Float32Array.of(1, 1), { shape: [2] });
 * const [zero, one] = await toHost(activation(x, { kind: "silu", bias }));
 * assert.equal(zero, 0);
 * assert(Math.abs(one - 1 / (1 + Math.exp(-1))) < 1e-6);
 * ```
 */
export function activation(x: Tensor, { kind, bias }: ActivationOptions): Tensor {
  const { gpu, shape } = x;
  const columns = shape.at(-1) ?? 1;
  if (bias) {
    expectShape("activation", "x", shape, [-1, -1]);
    expectShape("activation", "the bias", bias.shape, [columns]);
    expectType("activation", "the bias", bias, "f32");
  }
  const constants = {
    kind,
    bias: !bias ? "none" as const : columns % 4 === 0 ? "quads" as const : "elements" as const,
    storage: activationStorage("activation", x),
    memory: inputMemory(gpu),
  };
  const { elements, workgroups } = elementwiseWorkgroups(sizeOf(shape));
  const like = (): Tensor => emptyLike(x, shape, { type: x.type });
  const shared = { x: x.range, ...(bias ? { bias: bias.range } : {}) };
  const y = like();
  gpu.dispatch(activationForward, {
    constants,
    bindings: { ...shared, y: y.range },
    params: { elements, columns },
    workgroups,
  });
  // y = act(v), v = x + bias: dX = dV = dY act'(v), dBias = sum over rows of dV
  const gradient = (dY: Tensor, dX: GradientTarget) =>
    gpu.dispatch(activationBackward, {
      constants,
      bindings: { ...shared, d_y: dY.range, d_x: dX.tensor.range },
      params: { elements, columns, accumulate_d_x: dX.accumulate ? 1 : 0 },
      workgroups,
    });
  return record(gpu, {
    name: "activation",
    inputs: bias ? [x, bias] : [x],
    output: y,
    backward: (dY, sink) => {
      const dBias = bias && sink.into(bias);
      if (!dBias) {
        const dX = sink.into(x);
        if (dX) gradient(dY, dX);
        return;
      }
      scope(gpu, () => {
        // By itself first: the gradient of x may hold other parts, which are none of the bias.
        const dV = like();
        gradient(dY, { tensor: dV, accumulate: false });
        sumColumns(dV, dBias);
        sink.pass(x, dV);
      });
    },
  });
}
