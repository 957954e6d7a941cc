/**
 * Fragments shared by kernels: index folding, vector width, workgroup reductions, and the functions whose
 * built-in precision is too poor (WGSL's log near 1 is off by 1.4e-2 relative on one adapter).
 * @module
 */
import { wgsl } from "./wgsl.ts";

/** Elements handled as one: vec4 where the row length divides by four, else scalars. */
export type VectorWidth = 1 | 4;

/** Finite stand-in for minus infinity: differences of infinities fold to nonsense. */
export const MASKED = "-1e30";

/** The widest vector that divides every given length. */
export function vectorWidth(...lengths: number[]): VectorWidth {
  return lengths.every((length) => length % 4 === 0) ? 4 : 1;
}

/** The element type of a vector width. */
export function vectorType(width: VectorWidth): "f32" | "vec4f" {
  return width === 4 ? "vec4f" : "f32";
}

/** `sum_of(v)`: the sum over a vector's components. */
export function sumOf(width: VectorWidth): string {
  return width === 4
    ? "fn sum_of(v: vec4f) -> f32 { return (v.x + v.y) + (v.z + v.w); }"
    : "fn sum_of(v: f32) -> f32 { return v; }";
}

/** The index of a workgroup in a one-dimensional grid that may be folded into y (65,535 per dimension). */
export const LINEAR_WORKGROUP = "workgroup_id.y * num_workgroups.x + workgroup_id.x";

/**
 * `row_sum(value, lane)`: the sum of `value` over the workgroup's lanes, known to all of them. With one lane per
 * row (CPU adapters, where barriers are dear) it is the value itself. `subgroup`: invocations of a subgroup, a divisor of
 * `lanes`, where subgroup operations may be used: they need two barriers instead of a tree's.
 */
export function rowSum(lanes: number, subgroup = 0): string {
  if (lanes === 1) return "fn row_sum(value: f32, lane: u32) -> f32 { return value; }";
  if (subgroup > 0) {
    const parts = Array.from({ length: lanes / subgroup }, (_, part) => `row_sum_scratch[${part}]`);
    return wgsl`
var<workgroup> row_sum_scratch: array<f32, ${parts.length}>;
fn row_sum(value: f32, lane: u32) -> f32 {
  let part = subgroupAdd(value);
  if (lane % ${subgroup}u == 0u) { row_sum_scratch[lane / ${subgroup}u] = part; }
  workgroupBarrier();
  let total = ${parts.join(" + ")};
  workgroupBarrier();
  return total;
}`;
  }
  return wgsl`
var<workgroup> row_sum_scratch: array<f32, ${lanes}>;
fn row_sum(value: f32, lane: u32) -> f32 {
  row_sum_scratch[lane] = value;
  workgroupBarrier();
  for (var stride = ${lanes / 2}u; stride > 0u; stride >>= 1u) {
    if (lane < stride) { row_sum_scratch[lane] += row_sum_scratch[lane + stride]; }
    workgroupBarrier();
  }
  let total = row_sum_scratch[0];
  workgroupBarrier();
  return total;
}`;
}

/**
 * `log_f32(x)`, x > 0 and normal: x = 2^e m with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m-1)/(m+1)) by its
 * series to s^13, exact to f32 rounding.
 */
export const LOG_F32 = `
fn log_f32(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  var exponent = i32(bits >> 23u) - 127;
  var m = bitcast<f32>((bits & 0x007fffffu) | 0x3f800000u);
  if (m > 1.41421356) { m = m * 0.5; exponent += 1; }
  let s = (m - 1.0) / (m + 1.0);
  let s2 = s * s;
  let series = 1.0 + s2 * (0.33333333 + s2 * (0.2 + s2 * (0.14285714 + s2 * (0.11111111 + s2 * (0.09090909 + s2 * 0.07692308)))));
  return f32(exponent) * 0.693147181 + 2.0 * s * series;
}`;

/** `log1p_exp(x)` = log(1 + e^x) and `log_sigmoid(x)` = -log(1 + e^-x), stable in both tails. Needs {@link LOG_F32}. */
export const LOG_SIGMOID = `
fn log1p_small(y: f32) -> f32 {
  // 0 <= y <= 1: log(1 + y) = 2 atanh(y / (2 + y)), without forming 1 + y.
  let s = y / (2.0 + y);
  let s2 = s * s;
  let series = 1.0 + s2 * (0.33333333 + s2 * (0.2 + s2 * (0.14285714 + s2 * (0.11111111 + s2 * (0.09090909 + s2 * 0.07692308)))));
  return 2.0 * s * series;
}
fn log1p_exp(x: f32) -> f32 { return max(x, 0.0) + log1p_small(exp(-abs(x))); }
fn log_sigmoid(x: f32) -> f32 { return -log1p_exp(-x); }
fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}`;

/**
 * `expm1_f32(x)` = e^x - 1 without cancellation, and `log1mexp(x, least)` = log(1 - e^x) for x <= 0, with 1 - e^x at
 * least `least`. Needs {@link LOG_F32} and {@link LOG_SIGMOID}.
 */
export const LOG1M_EXP = `
fn expm1_f32(x: f32) -> f32 {
  let series = x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0)))))));
  return select(exp(x) - 1.0, series, abs(x) < 0.5);
}
fn log1mexp(x: f32, least: f32) -> f32 {
  // Which of both forms keeps its digits changes at 1/2.
  if (x < -0.693147181) { return log1p_small(-exp(x)); }
  return log_f32(max(-expm1_f32(x), least));
}`;

/** `is_finite(x)`: by bits, because comparisons with NaN are folded away by some compilers. */
export const IS_FINITE = `
fn is_finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }`;

/** Rows that a workgroup of one-lane rows covers: one SIMD group of the CPU adapter. */
const ROWS_PER_WORKGROUP = 8;

/**
 * How a row kernel lies over workgroups. `setup` declares `row` and `lane`; `row` may pass the last row, so loads
 * clamp it and stores test it (no return before a barrier).
 */
export function rowGrid(lanes: number): { workgroupSize: readonly [number, number]; setup: string } {
  return lanes === 1
    ? {
      workgroupSize: [ROWS_PER_WORKGROUP, 1],
      setup: `let row = (${LINEAR_WORKGROUP}) * ${ROWS_PER_WORKGROUP}u + local_id.x;\nlet lane = 0u;`,
    }
    : { workgroupSize: [lanes, 1], setup: `let row = ${LINEAR_WORKGROUP};\nlet lane = local_id.x;` };
}

/** Workgroups that cover `rows` rows under {@link rowGrid}. */
export function rowWorkgroups(lanes: number, rows: number): number {
  return lanes === 1 ? Math.ceil(rows / ROWS_PER_WORKGROUP) : rows;
}
