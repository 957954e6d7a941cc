/**
 * Sums over the rows of a matrix in two stages: the gradient of a bias, or of a norm's weight.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP, vectorType, type VectorWidth } from "./lib.ts";
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

/** Second half of a column sum: sums[c] (+)= sum over b of partial[b, c], b ascending. */
export const columnSum: Kernel<{ width: VectorWidth }> = {
  name: "column_sum",
  doc: "sums[c] (+)= sum over b of partial[b, c]; partial [rows, C], sums [C]. An invocation owns a column.",
  build({ width }) {
    const type = vectorType(width);
    return {
      bindings: { partial: input(type), sums: output(type) },
      params: { rows: "u32", columns: "u32", accumulate: "u32" },
      workgroupSize: [32, 1],
      body: wgsl`
let count = p.columns / ${width}u;
let c = (${LINEAR_WORKGROUP}) * 32u + local_id.x;
if (c >= count) { return; }
var total = ${type}();
for (var b = 0u; b < p.rows; b++) { total += partial[b * count + c]; }
if (p.accumulate != 0u) { total += sums[c]; }
sums[c] = total;`,
    };
  },
};
