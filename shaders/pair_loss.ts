/**
 * Preference losses on pairs, and Stable Preference Optimization around them: from two summed log-probs a pair to the
 * loss, every metric and dL/dlogp, in one workgroup. A loss is a head: a WGSL fragment over the same inputs.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LOG_F32, LOG_SIGMOID } from "./lib.ts";
import { PENALTIES, type PenaltyName, vStarUpdate } from "./spo_fragments.ts";
import { unroll, wgsl } from "./wgsl.ts";

export { type PenaltyName, V_STAR_DECAY } from "./spo_fragments.ts";

/** The losses that have a head here. */
export type PairLossName = "dpo" | "hinge" | "ipo" | "simpo";

/** What a pair-loss pipeline is specialised on. */
export interface PairLossConstants {
  readonly loss: PairLossName;
  readonly penalty: PenaltyName;
}

/**
 * Numbers that the kernel reports, each a mean over pairs; the metrics buffer holds rows of {@link METRICS_STRIDE}.
 * Names are TRL's, and SPO.md's displacement panel's.
 */
export const PAIR_METRICS = [
  "loss",
  "preference_loss",
  "rewards/chosen",
  "rewards/rejected",
  "rewards/accuracies",
  "rewards/margins",
  "logps/chosen",
  "logps/rejected",
  "displacement/chosen_delta",
  "displacement/rejected_delta",
  "displacement/fraction",
  "spo/lower_level",
  "spo/improvement",
  "spo/gap",
  "spo/lambda",
] as const;

/** Floats per row of the metrics buffer. */
export const METRICS_STRIDE = 32;

/** Where the gradient norm goes in a metrics row. */
export const GRAD_NORM_METRIC = METRICS_STRIDE - 1;

/** Index in a metrics row of the loss scale of f16 training; the count of skipped steps follows it. */
export const LOSS_SCALE_METRIC = METRICS_STRIDE - 3;

/** Numbers that SPO carries from step to step on the GPU. */
export const SPO_STATE = { vStar: 0, steps: 1, lambda: 2, lowerLevel: 3, size: 4 } as const;

/** Lanes of the one workgroup; each takes every 64th pair. */
const LANES = 64;

/** Metrics that are sums over pairs (the others are known only after the reduction). */
const SUMMED = 13;

/**
 * Heads. Each sees s_w, s_l, ref_w, ref_l (summed log-probs), n_w, n_l (lengths), p.beta, p.option, and sets
 * `value`, `d_w` = dL/ds_w, `d_l` = dL/ds_l, and rewards `reward_w`, `reward_l`.
 */
const HEADS: Record<PairLossName, string> = {
  // Eq. 7, arXiv 2305.18290; label smoothing e = p.option: cDPO.
  dpo: `
let z = p.beta * ((s_w - ref_w) - (s_l - ref_l));
let e = p.option;
value = -(1.0 - e) * log_sigmoid(z) - e * log_sigmoid(-z);
// sigmoid(z) - (1 - e), without cancellation for large z.
d_w = p.beta * (e - sigmoid(-z));
d_l = -d_w;`,
  // arXiv 2305.10425 (SLiC), 2309.06657 (RSO).
  hinge: `
let margin = 1.0 - p.beta * ((s_w - ref_w) - (s_l - ref_l));
value = max(0.0, margin);
d_w = select(0.0, -p.beta, margin > 0.0);
d_l = -d_w;`,
  // Eq. 17, arXiv 2310.12036; p.option = 1: log-ratios averaged over tokens, as TRL does.
  ipo: `
let a_w = select(1.0, 1.0 / n_w, p.option != 0.0);
let a_l = select(1.0, 1.0 / n_l, p.option != 0.0);
let m = (s_w - ref_w) * a_w - (s_l - ref_l) * a_l - 0.5 / p.beta;
value = m * m;
d_w = 2.0 * m * a_w;
d_l = -2.0 * m * a_l;`,
  // Eq. 6, arXiv 2405.14734; p.option = gamma. Reference-free: rewards are length-averaged log-probs.
  simpo: `
let z = p.beta * (s_w / n_w - s_l / n_l) - p.option;
value = -log_sigmoid(z);
let d = -p.beta * sigmoid(-z);
d_w = d / n_w;
d_l = -d / n_l;
reward_w = p.beta * s_w / n_w;
reward_l = p.beta * s_l / n_l;`,
};

/** Loss, metrics and gradients of one micro-batch of pairs. */
export const pairLoss: Kernel<PairLossConstants> = {
  name: "pair_loss",
  doc: `F = sum over pairs (l_pref + rho max(0, ref_w - s_w + margin) / n_w) / pairs_in_batch;
    G = sum over pairs (-s_w / n_w) / pairs_in_batch; loss = F + lambda phi(G - v*) (arXiv 2507.07723, as written in
    the documentation of SPO). d_logps = d loss / d logps.
    logps, reference, lengths, d_logps [2P]: the chosen, then the rejected; loss [1]; state: see SPO_STATE.
    A batch may come in several micro-batches: F and G add up, phi is applied with the last.`,
  build({ loss, penalty }) {
    return {
      bindings: {
        logps: input("f32"),
        reference: input("f32"),
        lengths: input("f32"),
        loss: output("f32"),
        d_logps: output("f32"),
        metrics: output("f32"),
        state: output("f32"),
      },
      params: {
        pairs: "u32",
        inverse_pairs: "f32",
        beta: "f32",
        option: "f32",
        rho: "f32",
        margin: "f32",
        epsilon: "f32",
        lambda: "f32",
        dual_rate: "f32",
        v_star: "f32",
        v_star_steps: "f32",
        metrics_row: "u32",
        is_first: "u32",
        is_last: "u32",
      },
      workgroupSize: [LANES, 1],
      workgroupBytes: LANES * SUMMED * 4 + 4,
      declarations: `${LOG_F32}${LOG_SIGMOID}
struct Pair { d_w: f32, d_l: f32, n_w: f32, numbers: array<f32, ${SUMMED}> }
var<workgroup> lane_sums: array<array<f32, ${SUMMED}>, ${LANES}>;
var<workgroup> lower_weight: f32;
fn evaluate(pair: u32) -> Pair {
  let s_w = logps[pair];
  let s_l = logps[p.pairs + pair];
  let ref_w = reference[pair];
  let ref_l = reference[p.pairs + pair];
  let n_w = lengths[pair];
  let n_l = lengths[p.pairs + pair];
  var value = 0.0;
  var d_w = 0.0;
  var d_l = 0.0;
  var reward_w = p.beta * (s_w - ref_w);
  var reward_l = p.beta * (s_l - ref_l);
  {${HEADS[loss]}
  }
  let shortfall = ref_w - s_w + p.margin;
  let improvement = max(0.0, shortfall) / n_w;
  d_w -= select(0.0, p.rho / n_w, shortfall > 0.0);
  let chosen_delta = s_w - ref_w;
  return Pair(d_w, d_l, n_w, array<f32, ${SUMMED}>(
    value + p.rho * improvement,
    value,
    reward_w,
    reward_l,
    select(0.0, 1.0, reward_w > reward_l),
    reward_w - reward_l,
    s_w,
    s_l,
    chosen_delta,
    s_l - ref_l,
    select(0.0, 1.0, chosen_delta < 0.0),
    -s_w / n_w,
    improvement,
  ));
}`,
      body: body(penalty),
    };
  },
};

function body(penalty: PenaltyName): string {
  const metric = (name: typeof PAIR_METRICS[number]) => `row + ${PAIR_METRICS.indexOf(name)}u`;
  return wgsl`
let lane = local_id.x;
let row = p.metrics_row * ${METRICS_STRIDE}u;
var sums = array<f32, ${SUMMED}>();
for (var pair = lane; pair < p.pairs; pair += ${LANES}u) {
  let numbers = evaluate(pair).numbers;
  ${unroll(SUMMED, (n) => `sums[${n}] += numbers[${n}];`)}
}
${unroll(SUMMED, (n) => `lane_sums[lane][${n}] = sums[${n}];`)}
workgroupBarrier();
if (lane < ${SUMMED}u) {
  var total = 0.0;
  for (var other = 0u; other < ${LANES}u; other++) { total += lane_sums[other][lane]; }
  total *= p.inverse_pairs;
  lane_sums[0][lane] = total;
  if (p.is_first == 0u) { total += metrics[row + lane]; }
  metrics[row + lane] = total;
}
workgroupBarrier();
if (lane == 0u) {
  var lower_level = lane_sums[0][${PAIR_METRICS.indexOf("spo/lower_level")}];
  if (p.is_first == 0u) { lower_level += state[${SPO_STATE.lowerLevel}]; }
  state[${SPO_STATE.lowerLevel}] = lower_level;
  // lambda >= 0 is a schedule's; a negative one means the dual variable in the state.
  let lambda = select(p.lambda, state[${SPO_STATE.lambda}], p.lambda < 0.0);
  var phi = 0.0;
  var d_phi = 0.0;
  var gap = 0.0;
  if (p.is_last != 0u) {
    ${vStarUpdate(SPO_STATE)}
  }
  ${PENALTIES[penalty]}
  lower_weight = lambda * d_phi;
  var total = lane_sums[0][0];
  if (p.is_last != 0u) {
    total += lambda * phi;
    metrics[${metric("loss")}] += lambda * phi;
    metrics[${metric("spo/gap")}] = gap;
    metrics[${metric("spo/lambda")}] = lambda;
    if (p.dual_rate > 0.0) { state[${SPO_STATE.lambda}] = max(0.0, lambda + p.dual_rate * (gap - p.epsilon)); }
  }
  loss[0] = total;
}
workgroupBarrier();
for (var pair = lane; pair < p.pairs; pair += ${LANES}u) {
  let it = evaluate(pair);
  d_logps[pair] = (it.d_w - lower_weight / it.n_w) * p.inverse_pairs;
  d_logps[p.pairs + pair] = it.d_l * p.inverse_pairs;
}`;
}
