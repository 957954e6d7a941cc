/**
 * From the statistics of rows of logits to numbers of sequences: metrics of a step, and the weights of WPO.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { REDUCE_LANES, SEGMENT_WORKGROUP } from "./reduce.ts";
import { wgsl } from "./wgsl.ts";

/** `lane_total(value, lane)`: the sum of a vector over the workgroup's lanes, known to the first of them. */
const LANE_TOTAL = wgsl`
var<workgroup> lane_values: array<vec4f, ${REDUCE_LANES}>;
fn lane_total(value: vec4f, lane: u32) -> vec4f {
  lane_values[lane] = value;
  workgroupBarrier();
  for (var stride = ${REDUCE_LANES / 2}u; stride > 0u; stride >>= 1u) {
    if (lane < stride) { lane_values[lane] += lane_values[lane + stride]; }
    workgroupBarrier();
  }
  return lane_values[0];
}`;

/** Sums of a sequence's rows. */
export const sequenceStatistics: Kernel<Record<string, never>> = {
  name: "sequence_statistics",
  doc:
    `sums[s] = sum over r in [offsets[s], offsets[s+1]) of (entropy, mean logit, hit, logp - log sum of p^2) of row r;
    logps [R], statistics [R, 4] as token_logps_combine has them, offsets [S + 1], sums [S, 4]. A workgroup owns a
    sequence.`,
  build: () => ({
    bindings: {
      logps: input("f32"),
      statistics: input("vec4f"),
      offsets: input("u32"),
      sums: output("vec4f"),
    },
    params: { segments: "u32" },
    workgroupSize: [REDUCE_LANES, 1],
    workgroupBytes: REDUCE_LANES * 16,
    declarations: LANE_TOTAL,
    body: wgsl`
let s = ${LINEAR_WORKGROUP};
let own = min(s, p.segments - 1u);
var share = vec4f();
for (var r = offsets[own] + local_id.x; r < offsets[own + 1u]; r += ${REDUCE_LANES}u) {
  let row = statistics[r];
  share += vec4f(row.xyz, logps[r] - row.w);
}
let total = lane_total(share, local_id.x);
if (local_id.x == 0u && s < p.segments) { sums[s] = total; }`,
  }),
};

/** A metric of the tokens' statistics, by TRL's name. */
export type StatisticsMetric = "entropy" | "logits/chosen" | "logits/rejected" | "mean_token_accuracy";

/** The component of the kernel's sum that each is. */
const COMPONENTS: Readonly<Record<StatisticsMetric, string>> = {
  entropy: "x",
  "logits/chosen": "y",
  "logits/rejected": "z",
  mean_token_accuracy: "w",
};

/** What a run on pairs, on labelled answers and on completions reports. */
export const STATISTICS_METRICS = {
  pairs: ["entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected"],
  answers: ["entropy", "logits/chosen", "logits/rejected"],
  completions: ["entropy", "mean_token_accuracy"],
} as const satisfies Record<string, readonly StatisticsMetric[]>;

/** What the reduction's pipelines are specialised on. */
export interface StatisticsMetricsConstants {
  /** Which, in the order of a metrics row. */
  readonly metrics: readonly StatisticsMetric[];
  /** Whether a sequence is chosen by a label of its own; by its place among the first otherwise. */
  readonly labelled: boolean;
}

/** Means over a step's tokens, of which this may be a part. */
export const statisticsMetrics: Kernel<StatisticsMetricsConstants> = {
  name: "statistics_metrics",
  doc: `Means over tokens, of the sums of sequence_statistics: entropy over all sequences, logits/chosen and
    mean_token_accuracy over the chosen, logits/rejected over the others; the counts are the whole step's.
    sums [S, 4]; desirable [S], 1 where a sequence is chosen, or the first \`chosen\` are. metrics[metric + i] (+)= the i-th.
    One workgroup; the order is fixed.`,
  build: ({ metrics, labelled }) => ({
    bindings: {
      sums: input("vec4f"),
      ...(labelled ? { desirable: input("f32") } : {}),
      metrics: output("f32"),
    },
    params: {
      segments: "u32",
      chosen: "u32",
      inverse_tokens: "f32",
      inverse_chosen: "f32",
      inverse_rejected: "f32",
      metric: "u32",
      accumulate: "u32",
    },
    workgroupSize: [REDUCE_LANES, 1],
    workgroupBytes: REDUCE_LANES * 16,
    declarations: LANE_TOTAL,
    body: wgsl`
var share = vec4f();
for (var s = local_id.x; s < p.segments; s += ${REDUCE_LANES}u) {
  let own = sums[s];
#if ${labelled}
  let is_chosen = desirable[s] != 0.0;
#else
  let is_chosen = s < p.chosen;
#endif
  share += select(vec4f(own.x, 0.0, own.y, 0.0), vec4f(own.xy, 0.0, own.z), is_chosen);
}
let total = lane_total(share, local_id.x) *
  vec4f(p.inverse_tokens, p.inverse_chosen, p.inverse_rejected, p.inverse_chosen);
if (local_id.x == 0u) {
  ${
      metrics.map((name, index) => {
        const at = `metrics[p.metric + ${index}u]`;
        return `${at} = select(0.0, ${at}, p.accumulate != 0u) + total.${COMPONENTS[name]};`;
      }).join("\n  ")
    }
}`,
  }),
};

/** WPO's weights: how likely the policy itself would have written both answers. */
export const pairWeights: Kernel<Record<string, never>> = {
  name: "pair_weights",
  doc:
    `weights[pair] = w_w w_l, w = exp(mean over the answer's tokens of (logp - log sum of p^2)) (arXiv 2406.11827);
    sums [2P, 4] of sequence_statistics, the chosen first; offsets [2P + 1]; weights [P]. An invocation owns a pair.`,
  build: () => ({
    bindings: { sums: input("vec4f"), offsets: input("u32"), weights: output("f32") },
    params: { pairs: "u32" },
    workgroupSize: [SEGMENT_WORKGROUP, 1],
    declarations: `
fn mean_of(s: u32) -> f32 { return sums[s].w / f32(offsets[s + 1u] - offsets[s]); }`,
    body: wgsl`
let pair = (${LINEAR_WORKGROUP}) * ${SEGMENT_WORKGROUP}u + local_id.x;
if (pair >= p.pairs) { return; }
weights[pair] = exp(mean_of(pair) + mean_of(p.pairs + pair));`,
  }),
};
