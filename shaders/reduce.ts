/**
 * Sums and maxima over rows: sequence log-probs, the mean negative log-likelihood, greedy choice, gradient norm.
 * @module
 */
import { input, type Kernel, output, type ParameterType, type StorageBinding } from "./kernel.ts";
import { IS_FINITE, LINEAR_WORKGROUP, rowSum } from "./lib.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup where one invocation owns a sequence or a row. */
export const SEGMENT_WORKGROUP = 64;

/** What a pipeline of segment sums is specialised on. */
export interface SegmentSumConstants {
  /** Whether the values after each segment's head have a weight. */
  readonly tails: boolean;
}

/** What the two kernels of segment sums read where there are tails. */
function tailInputs({ tails }: SegmentSumConstants): {
  bindings: Record<string, StorageBinding>;
  params: Record<string, ParameterType>;
} {
  return tails
    ? { bindings: { head_ends: input("u32") }, params: { tail_weight: "f32" } }
    : { bindings: {}, params: {} };
}

/** sums[s] = sum of values[offsets[s] .. offsets[s + 1]), those after its head weighted. */
export const segmentSum: Kernel<SegmentSumConstants> = {
  name: "segment_sum",
  doc:
    `sums[s] = sum over r in [offsets[s], offsets[s+1]) of values[r]; values [R], offsets [S + 1], sums [S].
    With tails values[r] counts tail_weight from r = head_ends[s] on; head_ends [S].`,
  build({ tails }) {
    const { bindings, params } = tailInputs({ tails });
    return {
      bindings: { values: input("f32"), offsets: input("u32"), ...bindings, sums: output("f32") },
      params: { segments: "u32", ...params },
      workgroupSize: [SEGMENT_WORKGROUP, 1],
      body: wgsl`
let s = (${LINEAR_WORKGROUP}) * ${SEGMENT_WORKGROUP}u + local_id.x;
if (s >= p.segments) { return; }
var total = 0.0;
#if ${tails}
let head_end = head_ends[s];
for (var r = offsets[s]; r < offsets[s + 1u]; r++) {
  total += select(p.tail_weight, 1.0, r < head_end) * values[r];
}
#else
for (var r = offsets[s]; r < offsets[s + 1u]; r++) { total += values[r]; }
#endif
sums[s] = total;`,
    };
  },
};

/** dValues (+)= dSums of the value's segment, times the value's weight. */
export const segmentSumBackward: Kernel<SegmentSumConstants> = {
  name: "segment_sum_backward",
  doc:
    `sums[s] = sum of the segment: d_values[r] (+)= d_sums[segments[r]], or zero where that is no segment; with
    tails times tail_weight from r = head_ends[s] on.
    segments, d_values [R], d_sums, head_ends [S]. An invocation owns a row.`,
  build({ tails }) {
    const { bindings, params } = tailInputs({ tails });
    return {
      bindings: { d_sums: input("f32"), segments: input("u32"), ...bindings, d_values: output("f32") },
      params: { rows: "u32", count: "u32", accumulate: "u32", ...params },
      workgroupSize: [SEGMENT_WORKGROUP, 1],
      body: wgsl`
let r = (${LINEAR_WORKGROUP}) * ${SEGMENT_WORKGROUP}u + local_id.x;
if (r >= p.rows) { return; }
let s = segments[r];
var value = 0.0;
#if ${tails}
if (s < p.count) { value = select(p.tail_weight, 1.0, r < head_ends[s]) * d_sums[s]; }
#else
if (s < p.count) { value = d_sums[s]; }
#endif
if (p.accumulate != 0u) { value += d_values[r]; }
d_values[r] = value;`,
    };
  },
};

/** Lanes of the kernels that reduce over one workgroup. */
export const REDUCE_LANES = 64;

/** y = scale times the sum of x, or of weights times x. */
export const scaledSum: Kernel<{ weighted: boolean }> = {
  name: "scaled_sum",
  doc: `y[0] = scale sum over r of weights[r] x[r] (1 where there are none); metrics[metric] (+)= the same.
    x, weights [R]. One workgroup; the order is fixed.`,
  build({ weighted }) {
    const weights: Record<string, StorageBinding> = weighted ? { weights: input("f32") } : {};
    return {
      bindings: { x: input("f32"), ...weights, y: output("f32"), metrics: output("f32") },
      params: { rows: "u32", scale: "f32", metric: "u32", accumulate: "u32" },
      workgroupSize: [REDUCE_LANES, 1],
      workgroupBytes: REDUCE_LANES * 4,
      declarations: rowSum(REDUCE_LANES),
      body: wgsl`
var partial = 0.0;
for (var r = local_id.x; r < p.rows; r += ${REDUCE_LANES}u) { partial += ${
        weighted ? "weights[r] * x[r]" : "x[r]"
      }; }
let total = row_sum(partial, local_id.x) * p.scale;
if (local_id.x == 0u) {
  y[0] = total;
  if (p.accumulate != 0u) { metrics[p.metric] += total; } else { metrics[p.metric] = total; }
}`,
    };
  },
};

/** dX (+)= dY times what the forward knows: a constant, or a saved gradient. */
export const scaleByScalar: Kernel<{ saved: boolean }> = {
  name: "scale_by_scalar",
  doc: "d_x[i] (+)= d_y[0] scale factor[i] (1 where nothing was saved). d_y [1]; factor, d_x [R].",
  build({ saved }) {
    const factor: Record<string, StorageBinding> = saved ? { factor: input("f32") } : {};
    return {
      bindings: { d_y: input("f32"), ...factor, d_x: output("f32") },
      params: { rows: "u32", scale: "f32", accumulate: "u32" },
      workgroupSize: [SEGMENT_WORKGROUP, 1],
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${SEGMENT_WORKGROUP}u + local_id.x;
if (i >= p.rows) { return; }
var value = d_y[0] * p.scale;
#if ${saved}
value *= factor[i];
#endif
if (p.accumulate != 0u) { value += d_x[i]; }
d_x[i] = value;`,
    };
  },
};

/** ids[r] = the first position of row r's largest value. */
export const argmaxRows: Kernel<Record<string, never>> = {
  name: "argmax_rows",
  doc: "ids[r] = min { v : x[r, v] = max over v' of x[r, v'] }; x [R, V], ids [R]. A workgroup owns a row.",
  build: () => ({
    bindings: { x: input("f32"), ids: output("u32") },
    params: { rows: "u32", columns: "u32" },
    workgroupSize: [REDUCE_LANES, 1],
    workgroupBytes: REDUCE_LANES * 8,
    declarations: `
var<workgroup> lane_best: array<f32, ${REDUCE_LANES}>;
var<workgroup> lane_id: array<u32, ${REDUCE_LANES}>;`,
    body: wgsl`
let r = ${LINEAR_WORKGROUP};
let base = min(r, p.rows - 1u) * p.columns;
var best = -3.4e38;
var best_id = 0xffffffffu;
for (var v = local_id.x; v < p.columns; v += ${REDUCE_LANES}u) {
  let value = x[base + v];
  if (value > best || best_id == 0xffffffffu) { best = value; best_id = v; }
}
lane_best[local_id.x] = best;
lane_id[local_id.x] = best_id;
workgroupBarrier();
if (local_id.x == 0u && r < p.rows) {
  for (var lane = 1u; lane < ${REDUCE_LANES}u; lane++) {
    let value = lane_best[lane];
    let id = lane_id[lane];
    if (id != 0xffffffffu && (value > best || (value == best && id < best_id))) { best = value; best_id = id; }
  }
  ids[r] = best_id;
}`,
  }),
};

/** Workgroups of {@link squareSumPartial}: each writes one partial sum. */
export const SQUARE_SUM_WORKGROUPS = 128;

/** partial[first + w] = sum of squares of workgroup w's share. */
export const squareSumPartial: Kernel<{ lanes: number }> = {
  name: "square_sum_partial",
  doc:
    `partial[first + w] = sum of x[i]^2 over workgroup w's contiguous share; x in quads. The order is fixed.`,
  build({ lanes }) {
    return {
      bindings: { x: input("vec4f"), partial: output("f32") },
      params: { quads: "u32", first: "u32" },
      workgroupSize: [lanes, 1],
      workgroupBytes: lanes * 4,
      declarations: rowSum(lanes),
      body: wgsl`
let share = (p.quads + ${SQUARE_SUM_WORKGROUPS - 1}u) / ${SQUARE_SUM_WORKGROUPS}u;
let first = workgroup_id.x * share;
var squares = vec4f();
for (var i = first + local_id.x; i < min(first + share, p.quads); i += ${lanes}u) { squares += x[i] * x[i]; }
let total = row_sum((squares.x + squares.y) + (squares.z + squares.w), local_id.x);
if (local_id.x == 0u) { partial[p.first + workgroup_id.x] = total; }`,
    };
  },
};

/**
 * Index of each number in the clip state.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, gradNorm, openGpu, toHost } from "../engine/mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const vector = (...values: number[]) => fromHost(gpu, Float32Array.from(values), { shape: [4] });
 * const [gradient, state, metrics] = [vector(1, NaN, 0, 0), vector(0, 0, 0, 0), vector(0, 0, 0, 0)];
 * gradNorm([gradient], state, { maxNorm: 1, metric: { metrics, index: 0, accumulate: false } });
 * assert.equal((await toHost(state))[CLIP_STATE.isFinite], 0); // adamw will skip this step
 * ```
 */
export const CLIP_STATE = { norm: 0, coefficient: 1, isFinite: 2, skipped: 3, size: 4 } as const;

/**
 * Index of each number in the state of dynamic loss scaling: the factor of the loss, and the good steps since it last
 * changed.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, gradNorm, openGpu, toHost } from "../engine/mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const vector = (...values: number[]) => fromHost(gpu, Float32Array.from(values), { shape: [4] });
 * const [gradient, state, metrics] = [vector(1, Infinity, 0, 0), vector(0, 0, 0, 0), vector(0, 0, 0, 0)];
 * const lossScale = { state: vector(1024, 7, 0, 0), growthInterval: 2000 };
 * gradNorm([gradient], state, { maxNorm: 1, metric: { metrics, index: 0, lossScaleIndex: 1, accumulate: false }, lossScale });
 * assert.equal((await toHost(lossScale.state))[LOSS_SCALE.scale], 512);
 * assert.deepEqual([...await toHost(metrics)], [Infinity, 512, 1, 0]); // one step was skipped
 * ```
 */
export const LOSS_SCALE = { scale: 0, goodSteps: 1, size: 4 } as const;

/** Largest loss scale: beyond it an f32 sum of squared gradients may overflow. */
const MAX_LOSS_SCALE = 2 ** 24;

/** The global norm, the factor that clips it, and whether every gradient is finite. */
export const clipState: Kernel<{ scaled: boolean }> = {
  name: "clip_state",
  doc:
    `norm = sqrt(sum of partial) / scale; state = (norm, min(1, max_norm / (norm + 1e-6)) / scale, 1 if norm is finite
    else 0, skipped + 1 if it is not). max_norm <= 0 means no clipping; scale is 1 unless gradients are scaled.
    loss_scale = (scale, good): halved when norm is not finite, doubled after growth_interval good steps.
    metrics[metric] = norm; metrics[scale_metric ..] = (the new scale, skipped). One workgroup.`,
  build({ scaled }) {
    const scaling: Record<string, StorageBinding> = scaled ? { loss_scale: output("f32") } : {};
    const params: Record<string, ParameterType> = scaled
      ? { growth_interval: "f32", scale_metric: "u32" }
      : {};
    return {
      bindings: { partial: input("f32"), state: output("f32"), metrics: output("f32"), ...scaling },
      params: { count: "u32", max_norm: "f32", metric: "u32", ...params },
      workgroupSize: [REDUCE_LANES, 1],
      workgroupBytes: REDUCE_LANES * 4,
      declarations: rowSum(REDUCE_LANES) + IS_FINITE,
      body: wgsl`
var share = 0.0;
for (var i = local_id.x; i < p.count; i += ${REDUCE_LANES}u) { share += partial[i]; }
let total = row_sum(share, local_id.x);
if (local_id.x == 0u) {
  let finite = is_finite(total);
#if ${scaled}
  let scale = loss_scale[${LOSS_SCALE.scale}];
#else
  let scale = 1.0;
#endif
  let norm = sqrt(total) / scale;
  let skipped = state[${CLIP_STATE.skipped}] + select(1.0, 0.0, finite);
  state[${CLIP_STATE.norm}] = norm;
  state[${CLIP_STATE.coefficient}] = select(1.0, min(1.0, p.max_norm / (norm + 1e-6)), p.max_norm > 0.0 && finite) / scale;
  state[${CLIP_STATE.isFinite}] = select(0.0, 1.0, finite);
  state[${CLIP_STATE.skipped}] = skipped;
  metrics[p.metric] = norm;
#if ${scaled}
  let good = select(0.0, loss_scale[${LOSS_SCALE.goodSteps}] + 1.0, finite);
  let grows = good >= p.growth_interval;
  let next = select(0.5 * scale, select(scale, min(2.0 * scale, ${MAX_LOSS_SCALE}.0), grows), finite);
  loss_scale[${LOSS_SCALE.scale}] = next;
  loss_scale[${LOSS_SCALE.goodSteps}] = select(good, 0.0, grows);
  metrics[p.scale_metric] = next;
  metrics[p.scale_metric + 1u] = skipped;
#endif
}`,
    };
  },
};
