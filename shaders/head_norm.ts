/**
 * RMSNorm of the query and key heads of packed queries, keys and values, and its gradients.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { vectorType } from "./lib.ts";
import { type OperandConstants, operands } from "./operand.ts";
import { type RowConstants, rowFrame } from "./rows.ts";
import { storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Heads summed by one workgroup of {@link headNormGainPartial}. */
export const HEADS_PER_PARTIAL = 256;

/** What both directions do first: which head a row is, and where its elements are. */
const HEAD = (width: number) => `
let count = p.head_dim / ${width}u;
let last = min(row, p.rows - 1u);
let base = last * count;
let head = last % (p.heads + 2u * p.kv_heads);
let is_query = head < p.heads;
let is_value = head >= p.heads + p.kv_heads;`;

/** y = x rstd gain of the heads of queries and of keys, y = x of the heads of values. */
export const headNormForward: Kernel<RowConstants> = {
  name: "head_norm_forward",
  doc:
    `For head h of token n, r = 1 / sqrt(mean over d of x^2 + eps): y = x r q[d] where h < H, y = x r k[d] where
    h < H + K, y = x of the other K heads. x, y [N, (H + 2 K) D]; q, k [D]; r [N, H + 2 K] is saved. One head per
    invocation or per workgroup.`,
  build(constants) {
    const { lanes, width } = constants;
    const { type, rows, setup, frame } = rowFrame(constants);
    return {
      bindings: { x: rows.input, q: input(type), k: input(type), rstd: output("f32"), y: rows.output },
      params: { rows: "u32", heads: "u32", kv_heads: "u32", head_dim: "u32", eps: "f32" },
      ...frame,
      body: wgsl`
${setup}
${HEAD(width)}
var squares = ${type}();
for (var d = lane; d < count; d += ${lanes}u) {
  let v = ${rows.load("x", "base + d")};
  squares += v * v;
}
let r = inverseSqrt(row_sum(sum_of(squares), lane) / f32(p.head_dim) + p.eps);
if (row >= p.rows) { return; }
if (lane == 0u) { rstd[row] = r; }
for (var d = lane; d < count; d += ${lanes}u) {
  var value = ${rows.load("x", "base + d")};
  if (!is_value) { value = value * r * select(k[d], q[d], is_query); }
  ${rows.store("y", "base + d", "value")}
}`,
    };
  },
};

/** dX (+)= rstd (g - x rstd^2 mean(g x)), g = dY gain, of queries and keys; (+)= dY of values. */
export const headNormBackward: Kernel<RowConstants> = {
  name: "head_norm_backward",
  doc: `y = x r w of the heads of queries (w = q) and keys (w = k): with g = dy w,
    d_x (+)= r (g - x r^2 mean over d of (g x)); of values d_x (+)= dy. x, d_y, d_x [N, (H + 2 K) D]; q, k [D];
    r [N, H + 2 K] from the forward. One head per invocation or per workgroup.`,
  build(constants) {
    const { lanes, width } = constants;
    const { type, rows, setup, frame } = rowFrame(constants);
    return {
      bindings: {
        x: rows.input,
        q: input(type),
        k: input(type),
        rstd: input("f32"),
        d_y: rows.input,
        d_x: rows.output,
      },
      params: { rows: "u32", heads: "u32", kv_heads: "u32", head_dim: "u32", accumulate: "u32" },
      ...frame,
      body: wgsl`
${setup}
${HEAD(width)}
var products = ${type}();
for (var d = lane; d < count; d += ${lanes}u) {
  let g = ${rows.load("d_y", "base + d")} * select(k[d], q[d], is_query);
  products += g * ${rows.load("x", "base + d")};
}
let r = rstd[last];
let mean = row_sum(sum_of(products), lane) / f32(p.head_dim);
if (row >= p.rows) { return; }
for (var d = lane; d < count; d += ${lanes}u) {
  var value = ${rows.load("d_y", "base + d")};
  if (!is_value) {
    value = r * (value * select(k[d], q[d], is_query) - ${rows.load("x", "base + d")} * (r * r * mean));
  }
  if (p.accumulate != 0u) { value += ${rows.stored("d_x", "base + d")}; }
  ${rows.store("d_x", "base + d", "value")}
}`,
    };
  },
};

/** First half of a gain's gradient: sums over blocks of heads, in order. */
export const headNormGainPartial: Kernel<OperandConstants> = {
  name: "head_norm_gain_partial",
  doc:
    `y = x r w: partial[b, d] = sum over the ${HEADS_PER_PARTIAL} heads of block b of d_y[d] x[d] r. The heads are
    numbers first .. first + heads - 1 of each token, token after token. x, d_y [N, total D]; r [N, total];
    partial [ceil(N heads / ${HEADS_PER_PARTIAL}), D]. An invocation owns an element of a block.`,
  build(constants) {
    const { width, storage } = constants;
    const type = vectorType(width);
    const rows = operands(constants);
    return {
      bindings: { x: rows.input, rstd: input("f32"), d_y: rows.input, partial: output(type) },
      params: { rows: "u32", first: "u32", heads: "u32", total: "u32", head_dim: "u32" },
      workgroupSize: [32, 1],
      declarations: storageFunctions(storage),
      body: wgsl`
let count = p.head_dim / ${width}u;
let d = workgroup_id.x * 32u + local_id.x;
if (d >= count) { return; }
let start = workgroup_id.y * ${HEADS_PER_PARTIAL}u;
var sum = ${type}();
for (var i = start; i < min(start + ${HEADS_PER_PARTIAL}u, p.rows * p.heads); i++) {
  let head = i / p.heads * p.total + p.first + i % p.heads;
  sum += ${rows.load("d_y", "head * count + d")} * ${rows.load("x", "head * count + d")} * rstd[head];
}
partial[workgroup_id.y * count + d] = sum;`,
    };
  },
};
