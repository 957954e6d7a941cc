/**
 * The heads of the pairwise kernel: for each loss its equation as a WGSL fragment, and what it reads. One table, and so one
 * file, of more lines than most.
 *
 * A fragment sees s_w, s_l, ref_w, ref_l (summed log-probs of the chosen and the rejected answer), c = s_w - ref_w and
 * r = s_l - ref_l (under an f-divergence u(c) and u(r)), n_w, n_l (lengths in tokens), `pair` (its number), `offset` (the
 * pair's margin in nats of reward, 0 where the data has none), its options by name, and what its batch part has set.
 * It sets `value`, `d_w` and `d_l`, the derivatives by c and r (equally by s_w and s_l), `nll`, the weight of a negative
 * log-likelihood that the kernel adds, and where they are not beta c and beta r the rewards `reward_w` and `reward_l`.
 * @module
 */

import { LARGEST_EXPONENT } from "./divergence.ts";
import {
  ALPHADPO_LEAST_STD,
  type BatchPart,
  BETA_DPO_LEAST_BETA,
  matched,
  moving,
  ORPO_LEAST_REST,
  SMOOTHED_LOGISTIC,
  SMOOTHED_SLOPE,
  sortBatch,
} from "./pair_fragments.ts";

export type { BatchPart };

/** The losses that have a head here. */
export type PairLossName =
  | "dpo"
  | "robust"
  | "hinge"
  | "ipo"
  | "exo_pair"
  | "nca_pair"
  | "bco_pair"
  | "sppo_hard"
  | "apo_zero"
  | "apo_down"
  | "discopop"
  | "sigmoid_norm"
  | "aot"
  | "aot_unpaired"
  | "cpo"
  | "simpo"
  | "alphapo"
  | "dpop"
  | "rdpo"
  | "alphadpo"
  | "beta_dpo"
  | "cal_dpo"
  | "orpo"
  | "sft";

/** A loss on pairs as the kernel knows it: what anyone can write. */
export interface PairHead {
  /** Numbers that it reads, as the fragment names them. */
  readonly options: readonly string[];
  /** Whether the loss reads the reference's log-probs. */
  readonly readsReference: boolean;
  /** Whether it is built on a margin of c and r, so that an f-divergence may stand in, or the reference be left out. */
  readonly takesDivergence?: boolean;
  /** Whether a pair's margin is subtracted inside. */
  readonly takesMargin?: boolean;
  /** The negative log-likelihood it adds: of the chosen answers, or of prompt and chosen answer. */
  readonly nll?: "chosen" | "sequence";
  /** Whether it has rewards of its own, or c and r times beta; the metrics are those of the first term that has. */
  readonly hasRewards?: boolean;
  /**
   * The fragment: from `c`, `r` (log-ratios), `s_w`, `s_l`, `ref_w`, `ref_l`, `n_w`, `n_l` (tokens), `offset` (the pair's
   * margin) and the options it sets `value` and its slopes by c and r, `d_w` and `d_l`. `sigmoid`, `log_sigmoid` and
   * `log_f32` are exact where the built-in functions are not.
   */
  readonly wgsl: string;
}

/** A head from outside the table, under a name that none in it has. */
export interface NamedPairHead extends PairHead {
  /** As metrics and errors have it. */
  readonly name: string;
}

/** Which head: a name of the table, or a head itself. */
export type PairHeadChoice = PairLossName | NamedPairHead;

/** A head of the table, with what only those have. */
interface BuiltInHead extends PairHead {
  /** Whether it reads the reference in a detached number alone: it compares log-probs of the policy, not log-ratios. */
  readonly detachesReference?: boolean;
  /** Where pairs of a batch depend on each other. */
  readonly batch?: BatchPart;
  /** Whether `log_odds` is set, for ORPO's metrics. */
  readonly hasLogOdds?: boolean;
}

/** Every pairwise loss. */
export const HEADS: Readonly<Record<PairLossName, BuiltInHead>> = {
  // Eq. 7, arXiv 2305.18290; label smoothing: cDPO.
  dpo: {
    options: ["beta", "label_smoothing"],
    readsReference: true,
    takesDivergence: true,
    takesMargin: true,
    wgsl: `
let z = beta * (c - r) - offset;${SMOOTHED_LOGISTIC}
d_w = beta * (${SMOOTHED_SLOPE});
d_l = -d_w;`,
  },
  // arXiv 2403.00409: unbiased where labels flip with probability e.
  robust: {
    options: ["beta", "label_smoothing"],
    readsReference: true,
    takesDivergence: true,
    takesMargin: true,
    wgsl: `
let z = beta * (c - r) - offset;
let scale = 1.0 / (1.0 - 2.0 * label_smoothing);
value = (-(1.0 - label_smoothing) * log_sigmoid(z) + label_smoothing * log_sigmoid(-z)) * scale;
d_w = -beta * ((1.0 - label_smoothing) * sigmoid(-z) + label_smoothing * sigmoid(z)) * scale;
d_l = -d_w;`,
  },
  // arXiv 2305.10425 (SLiC), 2309.06657 (RSO).
  hinge: {
    options: ["beta"],
    readsReference: true,
    takesDivergence: true,
    takesMargin: true,
    wgsl: `
let margin = 1.0 - beta * (c - r) + offset;
value = max(0.0, margin);
d_w = select(0.0, -beta, margin > 0.0);
d_l = -d_w;`,
  },
  // Eq. 17, arXiv 2310.12036; length_normalize = 1: log-ratios averaged over tokens, as TRL does.
  ipo: {
    options: ["beta", "length_normalize"],
    readsReference: true,
    takesDivergence: true,
    wgsl: `
let a_w = select(1.0, 1.0 / n_w, length_normalize != 0.0);
let a_l = select(1.0, 1.0 / n_l, length_normalize != 0.0);
let m = c * a_w - r * a_l - 0.5 / beta;
value = m * m;
d_w = 2.0 * m * a_w;
d_l = -2.0 * m * a_l;`,
  },
  // Eq. 16, arXiv 2402.00856, K = 2.
  exo_pair: {
    options: ["beta", "label_smoothing"],
    readsReference: true,
    takesDivergence: true,
    wgsl: `
let z = beta * (c - r);
let log_won = log1p_small(-label_smoothing);
let log_lost = log_f32(label_smoothing);
value = sigmoid(z) * (log_sigmoid(z) - log_won) + sigmoid(-z) * (log_sigmoid(-z) - log_lost);
d_w = beta * sigmoid(z) * sigmoid(-z) * (z - (log_won - log_lost));
d_l = -d_w;`,
  },
  // arXiv 2402.05369, two answers.
  nca_pair: {
    options: ["beta"],
    readsReference: true,
    wgsl: `
value = -log_sigmoid(beta * c) - 0.5 * log_sigmoid(-beta * c) - 0.5 * log_sigmoid(-beta * r);
d_w = beta * (0.5 * sigmoid(beta * c) - sigmoid(-beta * c));
d_l = beta * 0.5 * sigmoid(beta * r);`,
  },
  // arXiv 2404.04656 without its reward shift, as TRL has it.
  bco_pair: {
    options: ["beta"],
    readsReference: true,
    wgsl: `
value = -log_sigmoid(beta * c) - log_sigmoid(-beta * r);
d_w = -beta * sigmoid(-beta * c);
d_l = beta * sigmoid(beta * r);`,
  },
  // Eq. 4.7, arXiv 2405.00675, with P = 1 for the winner.
  sppo_hard: {
    options: ["beta"],
    readsReference: true,
    wgsl: `
let e_w = c - 0.5 / beta;
let e_l = r + 0.5 / beta;
value = e_w * e_w + e_l * e_l;
d_w = 2.0 * e_w;
d_l = 2.0 * e_l;`,
  },
  // Eq. 7, arXiv 2408.06266.
  apo_zero: {
    options: ["beta"],
    readsReference: true,
    wgsl: `
value = sigmoid(-beta * c) + sigmoid(beta * r);
d_w = -beta * sigmoid(beta * c) * sigmoid(-beta * c);
d_l = beta * sigmoid(beta * r) * sigmoid(-beta * r);`,
  },
  // Eq. 8, arXiv 2408.06266.
  apo_down: {
    options: ["beta"],
    readsReference: true,
    wgsl: `
let z = beta * (c - r);
let slope = beta * sigmoid(z) * sigmoid(-z);
value = sigmoid(beta * c) + sigmoid(-z);
d_w = beta * sigmoid(beta * c) * sigmoid(-beta * c) - slope;
d_l = slope;`,
  },
  // Eq. 5, arXiv 2406.08414. e^-z sigmoid(z/t) is one exponential: for z << 0 its factors overflow and vanish.
  discopop: {
    options: ["beta", "tau"],
    readsReference: true,
    takesDivergence: true,
    wgsl: `
let z = beta * (c - r);
let m = sigmoid(z / tau);
let rest = sigmoid(-z / tau);
let blown = min(select(-z, z / tau - z, z < 0.0), ${LARGEST_EXPONENT}.0);
let exponential = exp(blown) / (1.0 + exp(-abs(z) / tau));
value = -log_sigmoid(z) * rest + exponential;
d_w = beta * (-sigmoid(-z) * rest - exponential + (exponential + log_sigmoid(z) * m) * rest / tau);
d_l = -d_w;`,
  },
  // DPO on log-ratios averaged over tokens, TRL's sigmoid_norm; arXiv 2411.15124.
  sigmoid_norm: {
    options: ["beta"],
    readsReference: true,
    takesDivergence: true,
    takesMargin: true,
    wgsl: `
let z = beta * (c / n_w - r / n_l) - offset;
value = -log_sigmoid(z);
let d = -beta * sigmoid(-z);
d_w = d / n_w;
d_l = -d / n_l;`,
  },
  // arXiv 2406.05882, paired: margins of the policy and of the reference, both sorted over the batch.
  aot: {
    options: ["beta", "label_smoothing"],
    readsReference: true,
    batch: sortBatch(["it.s_w - it.s_l", "it.ref_w - it.ref_l"]),
    wgsl: `
let z = beta * (s_w - s_l - ${matched(1, 0)});${SMOOTHED_LOGISTIC}
d_w = beta * (${SMOOTHED_SLOPE});
d_l = -d_w;`,
  },
  // arXiv 2406.05882, unpaired: log-ratios of all chosen and of all rejected, both sorted over the batch.
  aot_unpaired: {
    options: ["beta", "label_smoothing"],
    readsReference: true,
    batch: sortBatch(["it.s_w - it.ref_w", "it.s_l - it.ref_l"]),
    wgsl: `
var z = beta * (${matched(0, 1)} - r);
d_l = -beta * (${SMOOTHED_SLOPE});
z = beta * (c - ${matched(1, 0)});${SMOOTHED_LOGISTIC}
d_w = beta * (${SMOOTHED_SLOPE});`,
  },
  // arXiv 2401.08417.
  cpo: {
    options: ["beta", "label_smoothing", "cpo_alpha"],
    readsReference: false,
    takesMargin: true,
    nll: "chosen",
    wgsl: `
let z = beta * (s_w - s_l) - offset;${SMOOTHED_LOGISTIC}
d_w = beta * (${SMOOTHED_SLOPE});
d_l = -d_w;
nll = cpo_alpha;
reward_w = beta * s_w;
reward_l = beta * s_l;`,
  },
  // Eq. 6, arXiv 2405.14734. Rewards are averaged log-probs.
  simpo: {
    options: ["beta", "gamma"],
    readsReference: false,
    takesMargin: true,
    wgsl: `
let z = beta * (s_w / n_w - s_l / n_l) - gamma - offset;
value = -log_sigmoid(z);
let d = -beta * sigmoid(-z);
d_w = d / n_w;
d_l = -d / n_l;
reward_w = beta * s_w / n_w;
reward_l = beta * s_l / n_l;`,
  },
  // arXiv 2501.03884: SimPO on rewards (1 - p^-alpha) / alpha, p = exp(s / n).
  alphapo: {
    options: ["beta", "gamma", "alpha"],
    readsReference: false,
    takesMargin: true,
    wgsl: `
let power_w = exp(min(-alpha * s_w / n_w, ${LARGEST_EXPONENT}.0));
let power_l = exp(min(-alpha * s_l / n_l, ${LARGEST_EXPONENT}.0));
reward_w = beta * (1.0 - power_w) / alpha;
reward_l = beta * (1.0 - power_l) / alpha;
let z = beta * (power_l - power_w) / alpha - gamma - offset;
value = -log_sigmoid(z);
let d = -beta * sigmoid(-z);
// Where a power is cut off it has no slope.
d_w = select(0.0, d * power_w / n_w, -alpha * s_w / n_w <= ${LARGEST_EXPONENT}.0);
d_l = select(0.0, -d * power_l / n_l, -alpha * s_l / n_l <= ${LARGEST_EXPONENT}.0);`,
  },
  // arXiv 2402.13228: the penalty is inside sigmoid and beta.
  dpop: {
    options: ["beta", "lambda"],
    readsReference: true,
    takesMargin: true,
    wgsl: `
let z = beta * (c - r - lambda * max(0.0, -c)) - offset;
value = -log_sigmoid(z);
let d = -beta * sigmoid(-z);
d_w = d * (1.0 + select(0.0, lambda, c < 0.0));
d_l = -d;`,
  },
  // arXiv 2403.19159, with a plus sign: a longer chosen answer is discounted.
  rdpo: {
    options: ["beta", "alpha"],
    readsReference: true,
    takesMargin: true,
    wgsl: `
let z = beta * (c - r) + alpha * (n_w - n_l) - offset;
value = -log_sigmoid(z);
d_w = -beta * sigmoid(-z);
d_l = -d_w;`,
  },
  // arXiv 2410.10148; margins over the reference, normalised by moving mean and deviation, are detached.
  alphadpo: {
    options: ["beta", "gamma", "alpha"],
    readsReference: true,
    detachesReference: true,
    takesMargin: true,
    batch: {
      shares: ["mean", "deviation"],
      memory: 3,
      sorted: 0,
      wgsl: `
var sum = 0.0;
for (var pair = lane; pair < p.pairs; pair += LANES) { sum += normalized_margin(each(pair)); }
let batch_mean = row_sum(sum, lane) / f32(p.pairs);
sum = 0.0;
for (var pair = lane; pair < p.pairs; pair += LANES) {
  let off = normalized_margin(each(pair)) - batch_mean;
  sum += off * off;
}
let batch_deviation = sqrt(row_sum(sum, lane) / max(1.0, f32(p.pairs) - 1.0));
${moving("memory_1", "batch_mean")}
${moving("memory_2", "batch_deviation")}
memory_0 += 1.0;
mean = memory_1;
deviation = max(memory_2, ${ALPHADPO_LEAST_STD});`,
    },
    wgsl: `
let shift = ((s_w - ref_w) / n_w - (s_l - ref_l) / n_l - mean) / deviation;
let z = beta * (s_w / n_w - s_l / n_l - alpha * shift) - gamma - offset;
value = -log_sigmoid(z);
let d = -beta * sigmoid(-z);
d_w = d / n_w;
d_l = -d / n_l;
reward_w = beta * s_w / n_w;
reward_l = beta * s_l / n_l;`,
  },
  // arXiv 2407.08639: beta follows the batch's mean margin over its moving mean, detached.
  beta_dpo: {
    options: ["beta", "alpha"],
    readsReference: true,
    takesMargin: true,
    batch: {
      shares: ["batch_beta"],
      memory: 2,
      sorted: 0,
      wgsl: `
var sum = 0.0;
for (var pair = lane; pair < p.pairs; pair += LANES) {
  let it = each(pair);
  sum += (it.s_w - it.ref_w) - (it.s_l - it.ref_l);
}
let margin = row_sum(sum, lane) / f32(p.pairs);
if (memory_0 == 0.0) { memory_1 = margin; }
batch_beta = max(${BETA_DPO_LEAST_BETA}, beta * (1.0 + alpha * (margin - memory_1)));
${moving("memory_1", "margin")}
memory_0 += 1.0;`,
    },
    wgsl: `
let z = batch_beta * (c - r) - offset;
value = -log_sigmoid(z);
d_w = -batch_beta * sigmoid(-z);
d_l = -d_w;`,
  },
  // arXiv 2412.14516.
  cal_dpo: {
    options: ["beta"],
    readsReference: true,
    wgsl: `
let z = c - r;
let e_w = c - 0.5 / beta;
let e_l = r + 0.5 / beta;
value = -log_sigmoid(z) + 0.5 * (e_w * e_w + e_l * e_l);
d_w = e_w - sigmoid(-z);
d_l = e_l + sigmoid(-z);`,
  },
  // arXiv 2403.07691; beta is the paper's lambda.
  orpo: {
    options: ["beta"],
    readsReference: false,
    nll: "sequence",
    hasLogOdds: true,
    wgsl: `
let rest_w = max(-expm1_f32(s_w / n_w), ${ORPO_LEAST_REST});
let rest_l = max(-expm1_f32(s_l / n_l), ${ORPO_LEAST_REST});
log_odds = s_w / n_w - s_l / n_l - log1mexp(s_w / n_w, ${ORPO_LEAST_REST}) +
  log1mexp(s_l / n_l, ${ORPO_LEAST_REST});
value = -beta * log_sigmoid(log_odds);
d_w = -beta * sigmoid(-log_odds) / (rest_w * n_w);
d_l = beta * sigmoid(-log_odds) / (rest_l * n_l);
nll = 1.0;
reward_w = beta * s_w / n_w;
reward_l = beta * s_l / n_l;`,
  },
  // Token-mean cross entropy of the chosen answers.
  sft: { options: [], readsReference: false, hasRewards: false, nll: "chosen", wgsl: "nll = 1.0;" },
};

/** The head of a loss. */
export function headOf(loss: PairHeadChoice): BuiltInHead {
  return typeof loss === "string" ? HEADS[loss] : loss;
}

/** The name of a loss. */
export function headName(loss: PairHeadChoice): string {
  return typeof loss === "string" ? loss : loss.name;
}
