/**
 * Rotary position embedding.
 * @module
 */
import { vectorWidth } from "../../shaders/lib.ts";
import { ROPE_WORKGROUP, ropeForward } from "../../shaders/rope.ts";
import type { Gpu } from "../gpu.ts";
import { expectShape, ShapeError, sizeOf } from "../shape.ts";
import { type GradientTarget, record } from "../tape.ts";
import { emptyLike, fromHost, type Tensor } from "../tensor.ts";

/**
 * Cosines and sines of every position, computed in f64: WGSL's pow and sin are too poor for long contexts.
 *
 * @param gpu the device
 * @param options.positions P, how many positions
 * @param options.headDim D, even
 * @param options.theta the base of the geometric frequencies, theta^(-2i/D)
 * @returns `[P, D]`: D/2 cosines, then D/2 sines; the caller releases it
 * @throws {ShapeError} when D is odd
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const table = ropeTable(gpu, { positions: 2, headDim: 2, theta: 10000 });
 * assert.deepEqual([...await toHost(table)], [1, 0, Math.fround(Math.cos(1)), Math.fround(Math.sin(1))]);
 * ```
 */
export function ropeTable(gpu: Gpu, options: { positions: number; headDim: number; theta: number }): Tensor {
  const { positions, headDim, theta } = options;
  if (headDim % 2 !== 0) {
    throw new ShapeError(`Cannot make a rope table: expected an even head_dim, found ${headDim}`);
  }
  const half = headDim / 2;
  const values = new Float32Array(positions * headDim);
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = position * theta ** (-i / half);
      values[position * headDim + i] = Math.cos(angle);
      values[position * headDim + half + i] = Math.sin(angle);
    }
  }
  return fromHost(gpu, values, { shape: [positions, headDim] });
}

/**
 * Rotates each head's pairs (i, i + D/2) by its token's position (arXiv 2104.09864, rotate-half order).
 *
 * @param x `[N, H * D]`
 * @param positions `[N]`, each below the table's P
 * @param table `[P, D]` from {@link ropeTable}
 * @returns `[N, H * D]`
 * @throws {ShapeError} when the width of x is no multiple of D, or positions are not `[N]`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, upload } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const table = ropeTable(gpu, { positions: 8, headDim: 2, theta: 10000 });
 * const x = fromHost(gpu, Float32Array.of(1, 0), { shape: [1, 2] });
 * const [a, b] = await toHost(rope(x, upload(gpu, Uint32Array.of(3)), table));
 * assert(Math.abs(Math.atan2(b, a) - 3) < 1e-6); // position 3 turns by 3 radians
 * ```
 */
export function rope(x: Tensor, positions: Tensor, table: Tensor): Tensor {
  const [rows, width] = x.shape;
  const headDim = table.shape[1];
  if (width % headDim !== 0) {
    throw new ShapeError(
      `Cannot run rope: expected a multiple of head_dim ${headDim} columns, found ${width}`,
    );
  }
  expectShape("rope", "positions", positions.shape, [rows]);
  const y = emptyLike(x);
  rotate(x, { tensor: y, accumulate: false }, { positions, table, sign: 1 });
  return record(x.gpu, {
    name: "rope",
    inputs: [x],
    output: y,
    // y = R(angle) x: dX = R(-angle) dY
    backward: (dY, sink) => {
      const dX = sink.into(x);
      if (dX) rotate(dY, dX, { positions, table, sign: -1 });
    },
  });
}

function rotate(
  x: Tensor,
  target: GradientTarget,
  options: { positions: Tensor; table: Tensor; sign: 1 | -1 },
): void {
  const { positions, table, sign } = options;
  const half = table.shape[1] / 2;
  const width = vectorWidth(half);
  const pairs = sizeOf(x.shape) / 2 / width;
  x.gpu.dispatch(ropeForward, {
    constants: { width },
    bindings: { x: x.range, positions: positions.range, table: table.range, y: target.tensor.range },
    params: {
      pairs,
      heads: x.shape[1] / table.shape[1],
      half,
      sign,
      accumulate: target.accumulate ? 1 : 0,
    },
    workgroups: Math.ceil(pairs / ROPE_WORKGROUP),
  });
}
