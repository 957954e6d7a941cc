/**
 * KTO and the unpaired APO: answers that are good or bad each by itself, from one summed log-prob an answer to the loss,
 * every metric and dL/dlogp, in one workgroup.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LOG_F32, LOG_SIGMOID, rowSum } from "./lib.ts";
import { METRICS_STRIDE } from "./pair_metrics.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** What the kernel is specialised on. */
export interface KtoLossConstants {
  /** Whether rewards are measured from the batch's KL estimate (KTO) or from 0 (unpaired APO zero). */
  readonly kl: boolean;
}

/** Lanes of the one workgroup; each takes every 64th answer. */
const LANES = 64;

/** Each a sum of what one answer adds to it, already divided by what it is a mean over. */
const SUMMED = [
  "loss",
  "rewards/chosen",
  "rewards/rejected",
  "rewards/margins",
  "logps/chosen",
  "logps/rejected",
  "displacement/chosen_delta",
  "displacement/rejected_delta",
  "displacement/fraction",
  "examples/chosen",
  "examples/rejected",
] as const;

/**
 * Names of the numbers that the kernel writes at the start of a metrics row, in order. Those of a label are means over
 * the answers of that label, 0 where a batch has none; `examples/...` counts them.
 */
export const KTO_METRICS: readonly string[] = [...SUMMED, "kl"];

/** Loss, metrics and gradients of a batch of labelled answers. */
export const ktoLoss: Kernel<KtoLossConstants> = {
  name: "kto_loss",
  doc:
    `x = logps - reference; z0 = max(0, mean(kl_logps - kl_reference)) with KL sequences, else 0, constant in the backward;
    loss = mean of w_D (1 - sigmoid(beta (x - z0))) over the desirable and w_U (1 - sigmoid(beta (z0 - x))) over the
    others (Eq. 8, arXiv 2402.01306; without KL arXiv 2408.06266), divided by the count of both.
    logps, reference, desirable (1 or 0), d_logps [N]; kl_logps, kl_reference [N]; loss [1]. d_logps = d loss / d logps.
    One workgroup owns the batch.`,
  build({ kl }) {
    return {
      bindings: {
        logps: input("f32"),
        reference: input("f32"),
        desirable: input("f32"),
        ...(kl ? { kl_logps: input("f32"), kl_reference: input("f32") } : {}),
        loss: output("f32"),
        d_logps: output("f32"),
        metrics: output("f32"),
      },
      params: {
        count: "u32",
        inverse_count: "f32",
        inverse_chosen: "f32",
        inverse_rejected: "f32",
        beta: "f32",
        desirable_weight: "f32",
        undesirable_weight: "f32",
        metrics_row: "u32",
        is_first: "u32",
      },
      workgroupSize: [LANES, 1],
      workgroupBytes: LANES * SUMMED.length * 4 + LANES * 4,
      declarations: declarations(),
      body: body(kl),
    };
  },
};

function declarations(): string {
  return `${LOG_F32}${LOG_SIGMOID}${rowSum(LANES)}
const LANES = ${LANES}u;
struct Answer { d: f32, numbers: array<f32, ${SUMMED.length}> }
var<workgroup> lane_sums: array<array<f32, ${SUMMED.length}>, ${LANES}>;
fn evaluate(i: u32, z0: f32) -> Answer {
  let is_good = desirable[i] != 0.0;
  let delta = logps[i] - reference[i];
  // 1 - sigmoid(t) = sigmoid(-t), which keeps its digits where sigmoid(t) is nearly 1.
  let t = select(-1.0, 1.0, is_good) * p.beta * (delta - z0);
  let rest = sigmoid(-t);
  let weight = select(p.undesirable_weight, p.desirable_weight, is_good) * p.inverse_count;
  let slope = weight * p.beta * rest * sigmoid(t);
  let good = select(0.0, p.inverse_chosen, is_good);
  let bad = select(p.inverse_rejected, 0.0, is_good);
  let reward = p.beta * delta;
  return Answer(select(slope, -slope, is_good), array<f32, ${SUMMED.length}>(
    weight * rest,
    good * reward,
    bad * reward,
    (good - bad) * reward,
    good * logps[i],
    bad * logps[i],
    good * delta,
    bad * delta,
    select(0.0, good, delta < 0.0),
    select(0.0, 1.0, is_good),
    select(1.0, 0.0, is_good)
  ));
}`;
}

function body(kl: boolean): string {
  return wgsl`
let lane = local_id.x;
let row = p.metrics_row * ${METRICS_STRIDE}u;
#if ${kl}
var kl_sum = 0.0;
for (var i = lane; i < p.count; i += LANES) { kl_sum += kl_logps[i] - kl_reference[i]; }
let z0 = max(0.0, row_sum(kl_sum, lane) / f32(p.count));
#else
let z0 = 0.0;
#endif
var sums = array<f32, ${SUMMED.length}>();
for (var i = lane; i < p.count; i += LANES) {
  let it = evaluate(i, z0);
  d_logps[i] = it.d;
  ${unroll(SUMMED.length, (n) => `sums[${n}] += it.numbers[${n}];`)}
}
${unroll(SUMMED.length, (n) => `lane_sums[lane][${n}] = sums[${n}];`)}
workgroupBarrier();
if (lane < ${SUMMED.length}u) {
  var total = 0.0;
  for (var other = 0u; other < LANES; other++) { total += lane_sums[other][lane]; }
  if (lane == 0u) { loss[0] = total; }
  if (p.is_first == 0u) { total += metrics[row + lane]; }
  metrics[row + lane] = total;
}
if (lane == ${SUMMED.length}u) { metrics[row + lane] = z0; }`;
}
