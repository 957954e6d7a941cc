/**
 * Rotary position embedding.
 * @module
 */
import type { OperandConstants } from "../../shaders/operand.ts";
import { ROPE_WORKGROUP, ropeInPlace } from "../../shaders/rope.ts";
import type { Gpu } from "../gpu.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { overwrite, record } from "../tape.ts";
import { fromHost, scope, type Tensor } from "../tensor.ts";
import { rowOperands } from "./dispatch.ts";

/**
 * Cosines and sines of every position, computed in f64: WGSL's pow and sin are too poor for long contexts.
 *
 * @param gpu the device
 * @param options.positions P, how many positions
 * @param options.headDim D, even
 * @param options.theta the base of the geometric frequencies, theta^(-2i/D)
 * @param options.scale what becomes of each frequency where a model was made to see further than it was trained to; the
 *   same by default
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
export function ropeTable(
  gpu: Gpu,
  options: {
    positions: number;
    headDim: number;
    theta: number;
    scale?: (frequency: number) => number;
  },
): Tensor {
  const { positions, headDim, theta, scale = (frequency) => frequency } = options;
  if (headDim % 2 !== 0) {
    throw new ShapeError(`Cannot make a rope table: expected an even head_dim, found ${headDim}`);
  }
  const half = headDim / 2;
  const frequencies = Array.from({ length: half }, (_, i) => scale(theta ** (-i / half)));
  const values = new Float32Array(positions * headDim);
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = position * frequencies[i];
      values[position * headDim + i] = Math.cos(angle);
      values[position * headDim + half + i] = Math.sin(angle);
    }
  }
  return fromHost(gpu, values, { shape: [positions, headDim] });
}

/**
 * Rotates the pairs (i, i + D/2) of each row's first heads by its token's position, in place (arXiv 2104.09864,
 * rotate-half order): packed query, key and value heads become rotated ones without a copy of the values. `x` is
 * spent: nothing else may read it, before or after (see `overwrite` of the tape).
 *
 * @param x `[N, columns]`, f32 or f16 (D divides by eight then)
 * @param positions `[N]`, each below the table's P
 * @param table `[P, D]` from {@link ropeTable}
 * @param options.heads how many heads of D columns to rotate, from the first; all by default
 * @returns `[N, columns]` in the storage of x
 * @throws {ShapeError} when the row has fewer heads or no whole number of them, or positions are not `[N]`
 * @throws {Error} when x is a parameter, or a recorded op reads it
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, upload } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const table = ropeTable(gpu, { positions: 8, headDim: 2, theta: 10000 });
 * const x = fromHost(gpu, Float32Array.of(1, 0, 5, 7), { shape: [1, 4] });
 * const [a, b, ...rest] = await toHost(rope(x, upload(gpu, Uint32Array.of(3)), table, { heads: 1 }));
 * assert(Math.abs(Math.atan2(b, a) - 3) < 1e-6); // position 3 turns by 3 radians
 * assert.deepEqual(rest, [5, 7]); // the second head is left alone
 * ```
 */
export function rope(x: Tensor, positions: Tensor, table: Tensor, options: { heads?: number } = {}): Tensor {
  const [rows, columns] = x.shape;
  const headDim = table.shape[1];
  const { heads = columns / headDim } = options;
  if (columns % headDim !== 0 || heads * headDim > columns) {
    throw new ShapeError(
      `Cannot run rope: expected ${options.heads ?? "whole"} heads of head_dim ${headDim} in a row, found ` +
        `${columns} columns`,
    );
  }
  expectShape("rope", "positions", positions.shape, [rows]);
  const rotation = { positions, table, heads, constants: rowOperands("rope", x, headDim / 2) };
  overwrite("rope", x);
  rotate(x, { ...rotation, sign: 1 });
  return record(x.gpu, {
    name: "rope",
    inputs: [x],
    output: { ...x, requiresGrad: false },
    isInPlace: true,
    isOutputFree: true,
    // y = R(angle) x: dX = R(-angle) dY
    backward: (dY, sink) =>
      scope(x.gpu, () => {
        const dX = sink.own(dY);
        rotate(dX, { ...rotation, sign: -1 });
        sink.pass(x, dX);
      }),
  });
}

function rotate(
  x: Tensor,
  options: {
    positions: Tensor;
    table: Tensor;
    heads: number;
    constants: OperandConstants;
    sign: 1 | -1;
  },
): void {
  const { positions, table, heads, constants, sign } = options;
  const [rows, columns] = x.shape;
  const half = table.shape[1] / 2;
  // On CPU adapters loads of the table are dear; elsewhere lanes are many.
  const headsEach = x.gpu.adapter.isCpu ? heads : 1;
  const invocations = rows * (heads / headsEach) * (half / constants.width);
  x.gpu.dispatch(ropeInPlace, {
    constants,
    bindings: { positions: positions.range, table: table.range, before: x.range, x: x.range },
    params: { rows, columns, heads, heads_each: headsEach, half, sign },
    workgroups: Math.ceil(invocations / ROPE_WORKGROUP),
  });
}
