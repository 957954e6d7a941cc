/**
 * Sums over the rows of a matrix: the gradient of a bias. The second stage is `columnSum` of `rms_norm.ts`.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import type { VectorWidth } from "./lib.ts";
import { loadQuad, quadType, type Storage, storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Rows summed by one workgroup of {@link columnSumPartial}. */
export const ROWS_PER_COLUMN_PARTIAL = 64;

/** What the first stage is specialised on. */
export interface ColumnSumConstants {
  /** Columns handled as one. */
  readonly width: VectorWidth;
  /** Of x; f32 unless the width is 4. */
  readonly storage: Storage;
}

/** First half of a column sum: sums over blocks of rows, in order. */
export const columnSumPartial: Kernel<ColumnSumConstants> = {
  name: "column_sum_partial",
  doc: `partial[b, c] = sum over the ${ROWS_PER_COLUMN_PARTIAL} rows n of block b of x[n, c], n ascending.
    x [N, C]; partial [ceil(N / ${ROWS_PER_COLUMN_PARTIAL}), C]. An invocation owns a column of a block.`,
  build({ width, storage }) {
    const type = width === 4 ? "vec4f" : "f32";
    return {
      bindings: { x: input(width === 4 ? quadType(storage) : "f32"), partial: output(type) },
      params: { rows: "u32", columns: "u32" },
      workgroupSize: [32, 1],
      declarations: storageFunctions(storage),
      body: wgsl`
let count = p.columns / ${width}u;
let c = workgroup_id.x * 32u + local_id.x;
if (c >= count) { return; }
let first = workgroup_id.y * ${ROWS_PER_COLUMN_PARTIAL}u;
var total = ${type}();
for (var n = first; n < min(first + ${ROWS_PER_COLUMN_PARTIAL}u, p.rows); n++) {
  total += ${loadQuad(storage, "x[n * count + c]")};
}
partial[workgroup_id.y * count + c] = total;`,
    };
  },
};
