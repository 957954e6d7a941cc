/**
 * Linear combinations of flat buffers, in place.
 * @module
 */
import { axpby as axpbyKernel, AXPBY_WORKGROUP } from "../../shaders/axpby.ts";
import type { Scalar } from "../queue.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { expectType, type Tensor } from "../tensor.ts";
import { CLIP_STATE } from "./adamw.ts";

/** The factors of {@link axpby}. */
export interface AxpbyOptions {
  /** Of x. */
  readonly a: Scalar;
  /** Of y; 1 by default. With 0, what y held does not matter. */
  readonly b?: Scalar;
  /** Multiplies `a` by the norm that `gradNorm` left in this state, or by its inverse, which is 0 for a norm of 0. */
  readonly norm?: { readonly state: Tensor; readonly power: 1 | -1 };
}

/**
 * y = a x + b y over flat f32 buffers; not differentiable.
 *
 * @param x read
 * @param y same shape, updated in place
 * @param options the factors
 * @throws {ShapeError} when the shapes differ, or one is not f32
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const vector = (...values: number[]) => fromHost(gpu, Float32Array.from(values), { shape: [4] });
 * const [x, y] = [vector(1, 2, 3, 4), vector(10, 10, 10, 10)];
 * axpby(x, y, { a: -2 });
 * assert.deepEqual([...await toHost(y)], [8, 6, 4, 2]);
 * ```
 */
export function axpby(x: Tensor, y: Tensor, options: AxpbyOptions): void {
  expectShape("axpby", "y", y.shape, x.shape);
  expectType("axpby", "x", x, "f32");
  expectType("axpby", "y", y, "f32");
  const { a, b = 1, norm } = options;
  if (norm) expectShape("axpby", "the state", norm.state.shape, [CLIP_STATE.size]);
  const quads = Math.ceil(sizeOf(x.shape) / 4);
  x.gpu.dispatch(axpbyKernel, {
    constants: { times: norm === undefined ? "one" : norm.power === 1 ? "norm" : "inverse norm" },
    bindings: { x: x.range, ...(norm ? { state: norm.state.range } : {}), y: y.range },
    params: { quads, a, b },
    workgroups: Math.ceil(quads / AXPBY_WORKGROUP),
  });
}
