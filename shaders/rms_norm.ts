/**
 * RMSNorm (arXiv 1910.07467) and its gradients.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { vectorType } from "./lib.ts";
import { type OperandConstants, operands } from "./operand.ts";
import { type RowConstants, rowFrame } from "./rows.ts";
import { storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Rows of x summed by one workgroup of {@link rmsNormWeightPartial}. */
export const ROWS_PER_PARTIAL = 64;

/** y = x rstd w. */
export const rmsNormForward: Kernel<RowConstants> = {
  name: "rms_norm_forward",
  doc: `y[n, c] = x[n, c] rstd[n] weight[c], rstd[n] = 1 / sqrt(mean over c of x^2 + eps).
    x, y [N, C]; weight [C]; rstd [N] is saved. One row per invocation or per workgroup.`,
  build(constants) {
    const { lanes, width } = constants;
    const { type, rows, setup, frame } = rowFrame(constants);
    return {
      bindings: { x: rows.input, weight: input(type), rstd: output("f32"), y: rows.output },
      params: { rows: "u32", columns: "u32", eps: "f32" },
      ...frame,
      body: wgsl`
${setup}
let count = p.columns / ${width}u;
let base = min(row, p.rows - 1u) * count;
var squares = ${type}();
for (var c = lane; c < count; c += ${lanes}u) {
  let v = ${rows.load("x", "base + c")};
  squares += v * v;
}
let r = inverseSqrt(row_sum(sum_of(squares), lane) / f32(p.columns) + p.eps);
if (row >= p.rows) { return; }
if (lane == 0u) { rstd[row] = r; }
for (var c = lane; c < count; c += ${lanes}u) {
  ${rows.store("y", "base + c", `${rows.load("x", "base + c")} * r * weight[c]`)}
}`,
    };
  },
};

/** dX (+)= rstd (g - x rstd^2 mean(g x)), g = dY weight. */
export const rmsNormBackward: Kernel<RowConstants> = {
  name: "rms_norm_backward",
  doc: `y = x rstd w: with g = dy w, d_x[n, c] (+)= rstd (g[c] - x[c] rstd^2 mean over c of (g x)).
    x, d_y, d_x [N, C]; weight [C]; rstd [N] from the forward. One row per invocation or per workgroup.`,
  build(constants) {
    const { lanes, width } = constants;
    const { type, rows, setup, frame } = rowFrame(constants);
    return {
      bindings: {
        x: rows.input,
        weight: input(type),
        rstd: input("f32"),
        d_y: rows.input,
        d_x: rows.output,
      },
      params: { rows: "u32", columns: "u32", accumulate: "u32" },
      ...frame,
      body: wgsl`
${setup}
let count = p.columns / ${width}u;
let base = min(row, p.rows - 1u) * count;
var products = ${type}();
for (var c = lane; c < count; c += ${lanes}u) {
  products += ${rows.load("d_y", "base + c")} * weight[c] * ${rows.load("x", "base + c")};
}
let r = rstd[min(row, p.rows - 1u)];
let mean = row_sum(sum_of(products), lane) / f32(p.columns);
if (row >= p.rows) { return; }
for (var c = lane; c < count; c += ${lanes}u) {
  var value = r * (${rows.load("d_y", "base + c")} * weight[c] - ${
        rows.load("x", "base + c")
      } * (r * r * mean));
  if (p.accumulate != 0u) { value += ${rows.stored("d_x", "base + c")}; }
  ${rows.store("d_x", "base + c", "value")}
}`,
    };
  },
};

/** First half of dWeight: sums over blocks of rows, in order. */
export const rmsNormWeightPartial: Kernel<OperandConstants> = {
  name: "rms_norm_weight_partial",
  doc:
    `y = x rstd w: partial[b, c] = sum over the ${ROWS_PER_PARTIAL} rows n of block b of d_y[n, c] x[n, c] rstd[n].
    x, d_y [N, C]; rstd [N]; partial [ceil(N / ${ROWS_PER_PARTIAL}), C]. An invocation owns a column of a block.`,
  build(constants) {
    const { width, storage } = constants;
    const type = vectorType(width);
    const rows = operands(constants);
    return {
      bindings: { x: rows.input, rstd: input("f32"), d_y: rows.input, partial: output(type) },
      params: { rows: "u32", columns: "u32" },
      workgroupSize: [32, 1],
      declarations: storageFunctions(storage),
      body: wgsl`
let count = p.columns / ${width}u;
let c = workgroup_id.x * 32u + local_id.x;
if (c >= count) { return; }
let first = workgroup_id.y * ${ROWS_PER_PARTIAL}u;
var total = ${type}();
for (var n = first; n < min(first + ${ROWS_PER_PARTIAL}u, p.rows); n++) {
  total += ${rows.load("d_y", "n * count + c")} * ${rows.load("x", "n * count + c")} * rstd[n];
}
partial[workgroup_id.y * count + c] = total;`,
    };
  },
};
