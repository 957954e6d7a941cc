/**
 * Picking rows: only positions whose label counts go on to the language-model head.
 * @module
 */
import { GATHER_WORKGROUP, gatherRowsBackward, gatherRowsForward } from "../../shaders/embedding.ts";
import { vectorWidth } from "../../shaders/lib.ts";
import type { Gpu } from "../gpu.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, expectQuads, storageOf, type Tensor, upload } from "../tensor.ts";
import { CPU_LOOP_LIMIT } from "./dispatch.ts";

/** Rows to pick and where each went, on the host. */
export interface HostRowIndex {
  /** `[row capacity]`: the R rows, then zeros. */
  readonly rows: Uint32Array;
  /** `[token capacity + 1]`: places[offsets[n] .. offsets[n + 1]) are where row n went. */
  readonly offsets: Uint32Array;
  /** `[row capacity]`: the R places, those of a row ascending, then zeros. */
  readonly places: Uint32Array;
  /** N and R. */
  readonly tokens: number;
  /** R. */
  readonly count: number;
  /** Times that the row that comes most often comes. */
  readonly most: number;
}

/** Rows to pick, on the GPU. */
export interface RowIndex {
  /** `[R]` */
  readonly rows: Tensor;
  /** `[N + 1]` */
  readonly offsets: Tensor;
  /** `[R]` */
  readonly places: Tensor;
  /** Times that the row that comes most often comes. */
  readonly most: number;
}

/** The tensor that rows are picked from, and what to reserve. */
export interface RowIndexOptions {
  /** N: rows of the tensor. */
  readonly tokens: number;
  /** Rows of the tensor, and rows to pick, of the largest batch; this one's by default. */
  readonly capacity?: { readonly tokens: number; readonly rows: number };
}

/**
 * Inverts a list of rows, so that the gradient of each row is a sum in a fixed order.
 *
 * @param rows `[R]`, each below N; a row may come more than once
 * @param options N, and what to reserve
 * @returns the index, for {@link rowIndex} or buffers that are refilled
 * @throws {RangeError} when a row is not below N
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { offsets, places } = hostRowIndex(Uint32Array.of(2, 0, 2), { tokens: 3 });
 * assert.deepEqual([...places.subarray(offsets[2], offsets[3])], [0, 2]); // row 2 went to 0 and 2
 * ```
 */
export function hostRowIndex(rows: Uint32Array, options: RowIndexOptions): HostRowIndex {
  const { tokens } = options;
  const capacity = {
    tokens: Math.max(options.capacity?.tokens ?? tokens, tokens),
    rows: Math.max(options.capacity?.rows ?? rows.length, rows.length),
  };
  const offsets = new Uint32Array(capacity.tokens + 1);
  rows.forEach((row, place) => {
    if (row >= tokens) {
      throw new RangeError(
        `Cannot pick rows: expected rows below ${tokens}, found ${row} at position ${place}`,
      );
    }
    offsets[row + 1]++;
  });
  const most = offsets.reduce((largest, times) => Math.max(largest, times), 0);
  for (let n = 0; n < capacity.tokens; n++) offsets[n + 1] += offsets[n];
  const places = new Uint32Array(capacity.rows);
  const next = offsets.slice();
  rows.forEach((row, place) => places[next[row]++] = place);
  const padded = new Uint32Array(capacity.rows);
  padded.set(rows);
  return { rows: padded, offsets, places, tokens, count: rows.length, most };
}

/**
 * Uploads a list of rows with its inverse.
 *
 * @param gpu the device
 * @param rows `[R]`, each below N; a row may come more than once
 * @param options N, and what to reserve
 * @returns the index, for the next submit only
 * @throws {RangeError} when a row is not below N
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const index = rowIndex(gpu, Uint32Array.of(2, 0, 2), { tokens: 3 });
 * assert.deepEqual([...await toHost(index.rows)], [2, 0, 2]);
 * ```
 */
export function rowIndex(gpu: Gpu, rows: Uint32Array, options: RowIndexOptions): RowIndex {
  const host = hostRowIndex(rows, options);
  const place = (values: Uint32Array, length: number) =>
    upload(gpu, values, { shape: [length], capacity: values.length });
  return {
    rows: place(host.rows, host.count),
    offsets: place(host.offsets, host.tokens + 1),
    places: place(host.places, host.count),
    most: host.most,
  };
}

/**
 * y[r] = x[rows[r]].
 *
 * @param x `[N, C]`, f32 or f16
 * @param index R rows below N, from {@link rowIndex}
 * @returns `[R, C]`, stored as x
 * @throws {ShapeError} when the index is of another number of rows, or 16-bit columns do not divide by four
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(0, 1, 10, 11, 20, 21), { shape: [3, 2] });
 * const index = rowIndex(gpu, Uint32Array.of(1, 1), { tokens: 3 });
 * assert.deepEqual([...await toHost(gatherRows(x, index))], [10, 11, 10, 11]);
 * ```
 */
export function gatherRows(x: Tensor, index: RowIndex): Tensor {
  expectShape("gather_rows", "x", x.shape, [-1, -1]);
  const { gpu, shape: [tokens, columns] } = x;
  expectShape("gather_rows", "the row index's offsets", index.offsets.shape, [tokens + 1]);
  const constants = { width: vectorWidth(columns), storage: storageOf(x) };
  expectQuads("gather_rows", columns, [constants.storage]);
  const { capacity, shape: [count] } = index.rows;
  const y = empty(gpu, [count, columns], { capacity, type: x.type });
  const elements = sizeOf(y.shape) / constants.width;
  gpu.dispatch(gatherRowsForward, {
    constants,
    bindings: { x: x.range, rows: index.rows.range, y: y.range },
    params: { elements, columns },
    workgroups: Math.ceil(elements / GATHER_WORKGROUP),
  });
  return record(gpu, {
    name: "gather_rows",
    inputs: [x],
    output: y,
    // y[r] = x[rows[r]]: dX[n] = sum over r with rows[r] = n of dY[r]
    backward: (dY, sink) => {
      const dX = sink.into(x);
      if (!dX) return;
      refuseLongLoops(gpu, index);
      const work = sizeOf(x.shape) / constants.width;
      gpu.dispatch(gatherRowsBackward, {
        constants,
        bindings: {
          offsets: index.offsets.range,
          places: index.places.range,
          d_y: dY.range,
          d_x: dX.tensor.range,
        },
        params: { elements: work, columns, accumulate: dX.accumulate ? 1 : 0 },
        workgroups: Math.ceil(work / GATHER_WORKGROUP),
      });
    },
  });
}

/** One invocation walks all places of a row. */
function refuseLongLoops(gpu: Gpu, { most }: RowIndex): void {
  if (gpu.adapter.isCpu && most > CPU_LOOP_LIMIT) {
    throw new RangeError(
      `Cannot run gather_rows' backward: expected a row at most ${CPU_LOOP_LIMIT} times on this software adapter, ` +
        `found one ${most} times`,
    );
  }
}
