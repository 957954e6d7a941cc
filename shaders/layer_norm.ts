/**
 * Layer normalization (arXiv 1607.06450) and its gradients.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { vectorType } from "./lib.ts";
import { type OperandConstants, operands } from "./operand.ts";
import { type RowConstants, rowFrame } from "./rows.ts";
import { storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Rows summed by one workgroup of {@link layerNormGainPartial}. */
export const ROWS_PER_GAIN_PARTIAL = 64;

/** y = (x - mean) rstd weight + bias. */
export const layerNormForward: Kernel<RowConstants> = {
  name: "layer_norm_forward",
  doc: `y[n, c] = (x[n, c] - mean[n]) rstd[n] weight[c] + bias[c], mean[n] = mean over c of x,
    rstd[n] = 1 / sqrt(mean over c of (x - mean)^2 + eps). x, y [N, C]; weight, bias [C]; mean, rstd [N] are saved. The
    variance takes a second pass: the mean of the squares less the square of the mean cancels. One row per invocation or
    per workgroup.`,
  build(constants) {
    const { lanes, width } = constants;
    const { type, rows, setup, frame } = rowFrame(constants);
    return {
      bindings: {
        x: rows.input,
        weight: input(type),
        bias: input(type),
        mean: output("f32"),
        rstd: output("f32"),
        y: rows.output,
      },
      params: { rows: "u32", columns: "u32", eps: "f32" },
      ...frame,
      body: wgsl`
${setup}
let count = p.columns / ${width}u;
let base = min(row, p.rows - 1u) * count;
var sums = ${type}();
for (var c = lane; c < count; c += ${lanes}u) { sums += ${rows.load("x", "base + c")}; }
let m = row_sum(sum_of(sums), lane) / f32(p.columns);
var squares = ${type}();
for (var c = lane; c < count; c += ${lanes}u) {
  let v = ${rows.load("x", "base + c")} - m;
  squares += v * v;
}
let r = inverseSqrt(row_sum(sum_of(squares), lane) / f32(p.columns) + p.eps);
if (row >= p.rows) { return; }
if (lane == 0u) {
  mean[row] = m;
  rstd[row] = r;
}
for (var c = lane; c < count; c += ${lanes}u) {
  ${rows.store("y", "base + c", `(${rows.load("x", "base + c")} - m) * r * weight[c] + bias[c]`)}
}`,
    };
  },
};

/** dX (+)= rstd (g - mean(g) - z mean(g z)), g = dY weight, z = (x - mean) rstd. */
export const layerNormBackward: Kernel<RowConstants> = {
  name: "layer_norm_backward",
  doc: `y = z w + b, z = (x - mean) rstd: with g = dy w,
    d_x[n, c] (+)= rstd (g[c] - mean over c of g - z[c] mean over c of (g z)).
    x, d_y, d_x [N, C]; weight [C]; mean, rstd [N] from the forward. One row per invocation or per workgroup.`,
  build(constants) {
    const { lanes, width } = constants;
    const { type, rows, setup, frame } = rowFrame(constants);
    return {
      bindings: {
        x: rows.input,
        weight: input(type),
        mean: input("f32"),
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
let m = mean[min(row, p.rows - 1u)];
let r = rstd[min(row, p.rows - 1u)];
var gradients = ${type}();
var products = ${type}();
for (var c = lane; c < count; c += ${lanes}u) {
  let g = ${rows.load("d_y", "base + c")} * weight[c];
  gradients += g;
  products += g * (${rows.load("x", "base + c")} - m);
}
let mean_gradient = row_sum(sum_of(gradients), lane) / f32(p.columns);
let mean_product = row_sum(sum_of(products), lane) / f32(p.columns);
if (row >= p.rows) { return; }
for (var c = lane; c < count; c += ${lanes}u) {
  let g = ${rows.load("d_y", "base + c")} * weight[c];
  var value = r * (g - mean_gradient - (${rows.load("x", "base + c")} - m) * (r * r * mean_product));
  if (p.accumulate != 0u) { value += ${rows.stored("d_x", "base + c")}; }
  ${rows.store("d_x", "base + c", "value")}
}`,
    };
  },
};

/** First half of dWeight and dBias: sums over blocks of rows, in order. */
export const layerNormGainPartial: Kernel<OperandConstants> = {
  name: "layer_norm_gain_partial",
  doc: `y = z w + b, z = (x - mean) rstd: over the ${ROWS_PER_GAIN_PARTIAL} rows n of block b,
    partial_weight[b, c] = sum of d_y[n, c] z[n, c], partial_bias[b, c] = sum of d_y[n, c].
    x, d_y [N, C]; mean, rstd [N]; partials [ceil(N / ${ROWS_PER_GAIN_PARTIAL}), C]. An invocation owns a column of a
    block.`,
  build(constants) {
    const { width, storage } = constants;
    const type = vectorType(width);
    const rows = operands(constants);
    return {
      bindings: {
        x: rows.input,
        mean: input("f32"),
        rstd: input("f32"),
        d_y: rows.input,
        partial_weight: output(type),
        partial_bias: output(type),
      },
      params: { rows: "u32", columns: "u32" },
      workgroupSize: [32, 1],
      declarations: storageFunctions(storage),
      body: wgsl`
let count = p.columns / ${width}u;
let c = workgroup_id.x * 32u + local_id.x;
if (c >= count) { return; }
let first = workgroup_id.y * ${ROWS_PER_GAIN_PARTIAL}u;
var of_weight = ${type}();
var of_bias = ${type}();
for (var n = first; n < min(first + ${ROWS_PER_GAIN_PARTIAL}u, p.rows); n++) {
  let d = ${rows.load("d_y", "n * count + c")};
  of_weight += d * (${rows.load("x", "n * count + c")} - mean[n]) * rstd[n];
  of_bias += d;
}
partial_weight[workgroup_id.y * count + c] = of_weight;
partial_bias[workgroup_id.y * count + c] = of_bias;`,
    };
  },
};
