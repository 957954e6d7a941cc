/**
 * Moves parameters towards others: a reference that follows the policy.
 * @module
 */
import { mix as mixKernel, MIX_WORKGROUP } from "../../shaders/mix.ts";
import type { Scalar } from "../queue.ts";
import { derive } from "../queue.ts";
import { expectShape, sizeOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

/**
 * y = alpha x + (1 - alpha) y in place, without gradient.
 *
 * @param x `[elements]` f32
 * @param y `[elements]` f32, overwritten
 * @param options.alpha share of x
 * @param options.copy `[elements]` f16: receives the result too
 * @throws {ShapeError} when the two differ in size
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const fill = (value: number) => fromHost(gpu, new Float32Array(4).fill(value), { shape: [4] });
 * const y = fill(4);
 * mix(fill(8), y, { alpha: 0.25 });
 * assert.deepEqual([...await toHost(y)], [5, 5, 5, 5]);
 * ```
 */
export function mix(x: Tensor, y: Tensor, options: { alpha: Scalar; copy?: Tensor }): void {
  const { alpha, copy } = options;
  expectShape("mix", "y", y.shape, x.shape);
  const quads = Math.ceil(sizeOf(x.shape) / 4);
  x.gpu.dispatch(mixKernel, {
    constants: { copy: copy !== undefined },
    bindings: { x: x.range, y: y.range, ...(copy ? { copy: copy.range } : {}) },
    params: { quads, alpha, rest: derive([alpha], (share) => 1 - share) },
    workgroups: Math.ceil(quads / MIX_WORKGROUP),
  });
}
