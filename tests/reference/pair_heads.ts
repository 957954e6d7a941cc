/**
 * Pairwise losses of one pair in plain f64, each with its derivatives by c = s_w - ref_w and r = s_l - ref_l (which are
 * those by s_w and s_l). b = beta, D = c - r, a = s / n, o the pair's margin (ODPO), e label smoothing:
 *
 * - `dpo`: -(1-e) logSigmoid(bD - o) - e logSigmoid(-(bD - o)). Eq. 7, arXiv 2305.18290.
 * - `robust`: [-(1-e) logSigmoid(bD - o) + e logSigmoid(-(bD - o))] / (1-2e). arXiv 2403.00409.
 * - `hinge`: max(0, 1 - bD + o). Section 3, arXiv 2305.10425.
 * - `ipo`: (c/n_w - r/n_l - 1/(2b))^2, or without the lengths. Eq. 17, arXiv 2310.12036.
 * - `exo_pair`: KL of (sigmoid(bD), sigmoid(-bD)) from (1-e, e). Eq. 16, arXiv 2402.00856.
 * - `nca_pair`: -logSigmoid(bc) - logSigmoid(-bc)/2 - logSigmoid(-br)/2. arXiv 2402.05369.
 * - `bco_pair`: -logSigmoid(bc) - logSigmoid(-br). arXiv 2404.04656.
 * - `sppo_hard`: (c - 1/(2b))^2 + (r + 1/(2b))^2. Eq. 4.7, arXiv 2405.00675.
 * - `apo_zero`, `apo_down`: sigmoids of bc, br, bD. Eq. 7 and 8, arXiv 2408.06266.
 * - `discopop`: logistic and exponential loss of bD, mixed by sigmoid(bD / tau). Eq. 5, arXiv 2406.08414.
 * - `sigmoid_norm`: -logSigmoid(b (c/n_w - r/n_l) - o). arXiv 2411.15124.
 * - `cpo`: dpo without reference, and alpha NLL(chosen). arXiv 2401.08417.
 * - `simpo`: -logSigmoid(b (a_w - a_l) - gamma - o), gamma = gammaBetaRatio b. Eq. 6, arXiv 2405.14734.
 * - `alphapo`: simpo on (1 - e^(-alpha a)) / alpha. arXiv 2501.03884.
 * - `dpop`: -logSigmoid(b (D - lambda max(0, -c)) - o). arXiv 2402.13228.
 * - `rdpo`: -logSigmoid(bD + alpha (n_w - n_l) - o). arXiv 2403.19159.
 * - `cal_dpo`: -logSigmoid(D) + [(c - 1/(2b))^2 + (r + 1/(2b))^2] / 2. arXiv 2412.14516.
 * - `orpo`: -b logSigmoid(log odds(a_w) - log odds(a_l)), and NLL. arXiv 2403.07691.
 * - `sft`: NLL alone.
 *
 * @module
 */
import { logSigmoid, sigmoid } from "./log_sigmoid.ts";

/** Settings of each loss that looks at one pair at a time. */
export interface PairSettings {
  dpo: { beta: number; labelSmoothing?: number };
  robust: { beta: number; labelSmoothing: number };
  hinge: { beta: number };
  ipo: { beta: number; lengthNormalize?: boolean };
  exo_pair: { beta: number; labelSmoothing: number };
  nca_pair: { beta: number };
  bco_pair: { beta: number };
  sppo_hard: { beta: number };
  apo_zero: { beta: number };
  apo_down: { beta: number };
  discopop: { beta: number; tau: number };
  sigmoid_norm: { beta: number };
  cpo: { beta: number; labelSmoothing?: number; cpoAlpha: number };
  simpo: { beta: number; gammaBetaRatio: number };
  alphapo: { beta: number; gammaBetaRatio: number; alpha: number };
  dpop: { beta: number; lambda: number };
  rdpo: { beta: number; alpha: number };
  cal_dpo: { beta: number };
  orpo: { beta: number };
  sft: Record<never, never>;
}

/** What a head sees of a pair. */
export interface HeadInputs {
  /** s_w - ref_w, or u of it under an f-divergence. */
  c: number;
  /** s_l - ref_l, or u of it. */
  r: number;
  /** Log-probability sum and length of the chosen completion. */
  chosen: { s: number; n: number };
  /** The same for the rejected completion. */
  rejected: { s: number; n: number };
  /** The pair's margin, 0 where the data has none. */
  offset: number;
}

/** Loss of one pair, and its derivatives. */
export interface PairHead {
  /** Loss in nats (IPO and the like: squared nats), without the NLL. */
  loss: number;
  /** Derivative by c. */
  dChosen: number;
  /** Derivative by r. */
  dRejected: number;
}

type Head<Settings> = (inputs: HeadInputs, settings: Settings) => PairHead;

/** Largest exponent of the f-divergences, AlphaPO and DiscoPOP: what the f32 kernels can still square. */
export const LARGEST_EXPONENT = 40;

/** e^x up to there, and its slope by x, 0 beyond. */
export function cutExp(x: number): { value: number; slope: number } {
  const value = Math.exp(Math.min(x, LARGEST_EXPONENT));
  return { value, slope: x > LARGEST_EXPONENT ? 0 : value };
}

/**
 * -(1 - e) logSigmoid(z) - e logSigmoid(-z), and its slope by z.
 *
 * @param z The argument.
 * @param e Label smoothing.
 */
export function smoothedLogistic(z: number, e = 0): { loss: number; slope: number } {
  return {
    loss: -(1 - e) * logSigmoid(z) - e * logSigmoid(-z),
    // e sigmoid(z) - (1 - e) sigmoid(-z) rather than sigmoid(z) - (1 - e), which loses the small side to cancellation.
    slope: e * sigmoid(z) - (1 - e) * sigmoid(-z),
  };
}

/** A loss of one number z = zOf(c, r), by the slopes of z. */
function through(
  { loss, slope }: { loss: number; slope: number },
  { dChosen, dRejected }: { dChosen: number; dRejected: number },
): PairHead {
  return { loss, dChosen: slope * dChosen, dRejected: slope * dRejected };
}

const squares = ({ c, r }: HeadInputs, beta: number): PairHead => ({
  loss: (c - 1 / (2 * beta)) ** 2 + (r + 1 / (2 * beta)) ** 2,
  dChosen: 2 * (c - 1 / (2 * beta)),
  dRejected: 2 * (r + 1 / (2 * beta)),
});

/** log(p / (1 - p)) of p = e^a, and its slope 1 / (1 - p). */
function logOddsOf(a: number): { value: number; slope: number } {
  const rest = Math.max(-Math.expm1(a), 1e-8);
  return { value: a - Math.log(rest), slope: 1 / rest };
}

/**
 * log odds(a_w) - log odds(a_l), ORPO's metric.
 *
 * @param pair Sums and lengths.
 */
export function logOdds({ chosen, rejected }: Pick<HeadInputs, "chosen" | "rejected">): number {
  return logOddsOf(chosen.s / chosen.n).value - logOddsOf(rejected.s / rejected.n).value;
}

/** The heads; the module comment has the equations. */
export const HEADS: { [Loss in keyof PairSettings]: Head<PairSettings[Loss]> } = {
  dpo: ({ c, r, offset }, { beta, labelSmoothing }) =>
    through(smoothedLogistic(beta * (c - r) - offset, labelSmoothing), { dChosen: beta, dRejected: -beta }),
  robust({ c, r, offset }, { beta, labelSmoothing: e }) {
    const z = beta * (c - r) - offset;
    const scale = 1 - 2 * e;
    const loss = (-(1 - e) * logSigmoid(z) + e * logSigmoid(-z)) / scale;
    const slope = -((1 - e) * sigmoid(-z) + e * sigmoid(z)) / scale;
    return through({ loss, slope }, { dChosen: beta, dRejected: -beta });
  },
  hinge({ c, r, offset }, { beta }) {
    const short = 1 - beta * (c - r) + offset;
    const slope = short > 0 ? -1 : 0;
    return through({ loss: Math.max(0, short), slope }, { dChosen: beta, dRejected: -beta });
  },
  ipo({ c, r, chosen, rejected }, { beta, lengthNormalize = true }) {
    const [nChosen, nRejected] = lengthNormalize ? [chosen.n, rejected.n] : [1, 1];
    const m = c / nChosen - r / nRejected - 1 / (2 * beta);
    return through({ loss: m ** 2, slope: 2 * m }, { dChosen: 1 / nChosen, dRejected: -1 / nRejected });
  },
  exo_pair({ c, r }, { beta, labelSmoothing: e }) {
    const z = beta * (c - r);
    const loss = sigmoid(z) * (logSigmoid(z) - Math.log1p(-e)) + sigmoid(-z) * (logSigmoid(-z) - Math.log(e));
    const slope = sigmoid(z) * sigmoid(-z) * (z - Math.log((1 - e) / e));
    return through({ loss, slope }, { dChosen: beta, dRejected: -beta });
  },
  nca_pair: ({ c, r }, { beta }) => ({
    loss: -logSigmoid(beta * c) - logSigmoid(-beta * c) / 2 - logSigmoid(-beta * r) / 2,
    dChosen: beta * (sigmoid(beta * c) / 2 - sigmoid(-beta * c)),
    dRejected: beta * sigmoid(beta * r) / 2,
  }),
  bco_pair: ({ c, r }, { beta }) => ({
    loss: -logSigmoid(beta * c) - logSigmoid(-beta * r),
    dChosen: -beta * sigmoid(-beta * c),
    dRejected: beta * sigmoid(beta * r),
  }),
  sppo_hard: (inputs, { beta }) => squares(inputs, beta),
  apo_zero: ({ c, r }, { beta }) => ({
    loss: sigmoid(-beta * c) + sigmoid(beta * r),
    dChosen: -beta * sigmoid(beta * c) * sigmoid(-beta * c),
    dRejected: beta * sigmoid(beta * r) * sigmoid(-beta * r),
  }),
  apo_down({ c, r }, { beta }) {
    const z = beta * (c - r);
    const slope = beta * sigmoid(z) * sigmoid(-z);
    return {
      loss: sigmoid(beta * c) + sigmoid(-z),
      dChosen: beta * sigmoid(beta * c) * sigmoid(-beta * c) - slope,
      dRejected: slope,
    };
  },
  discopop({ c, r }, { beta, tau }) {
    const z = beta * (c - r);
    const m = sigmoid(z / tau);
    // e^-z m as one exponential: for z << 0 its factors overflow and vanish.
    const blown = cutExp(z < 0 ? z / tau - z : -z).value / (1 + Math.exp(-Math.abs(z) / tau));
    const rest = sigmoid(-z / tau);
    const loss = -logSigmoid(z) * rest + blown;
    const slope = -sigmoid(-z) * rest + logSigmoid(z) * m * rest / tau - blown + blown * rest / tau;
    return through({ loss, slope }, { dChosen: beta, dRejected: -beta });
  },
  sigmoid_norm: ({ c, r, chosen, rejected, offset }, { beta }) =>
    through(smoothedLogistic(beta * (c / chosen.n - r / rejected.n) - offset), {
      dChosen: beta / chosen.n,
      dRejected: -beta / rejected.n,
    }),
  cpo: ({ chosen, rejected, offset }, { beta, labelSmoothing }) =>
    through(smoothedLogistic(beta * (chosen.s - rejected.s) - offset, labelSmoothing), {
      dChosen: beta,
      dRejected: -beta,
    }),
  simpo: ({ chosen, rejected, offset }, { beta, gammaBetaRatio }) =>
    through(
      smoothedLogistic(beta * (chosen.s / chosen.n - rejected.s / rejected.n - gammaBetaRatio) - offset),
      { dChosen: beta / chosen.n, dRejected: -beta / rejected.n },
    ),
  alphapo({ chosen, rejected, offset }, { beta, gammaBetaRatio, alpha }) {
    const won = cutExp(-alpha * chosen.s / chosen.n);
    const lost = cutExp(-alpha * rejected.s / rejected.n);
    const margin = (1 - won.value) / alpha - (1 - lost.value) / alpha;
    return through(smoothedLogistic(beta * (margin - gammaBetaRatio) - offset), {
      dChosen: beta * won.slope / chosen.n,
      dRejected: -beta * lost.slope / rejected.n,
    });
  },
  dpop: ({ c, r, offset }, { beta, lambda }) =>
    through(smoothedLogistic(beta * (c - r - lambda * Math.max(0, -c)) - offset), {
      dChosen: beta * (1 + (c < 0 ? lambda : 0)),
      dRejected: -beta,
    }),
  rdpo: ({ c, r, chosen, rejected, offset }, { beta, alpha }) =>
    through(smoothedLogistic(beta * (c - r) + alpha * (chosen.n - rejected.n) - offset), {
      dChosen: beta,
      dRejected: -beta,
    }),
  cal_dpo(inputs, { beta }) {
    const { loss, slope } = smoothedLogistic(inputs.c - inputs.r);
    const { loss: square, dChosen, dRejected } = squares(inputs, beta);
    return {
      loss: loss + square / 2,
      dChosen: slope + dChosen / 2,
      dRejected: -slope + dRejected / 2,
    };
  },
  orpo({ chosen, rejected }, { beta }) {
    const [won, lost] = [logOddsOf(chosen.s / chosen.n), logOddsOf(rejected.s / rejected.n)];
    const { loss, slope } = smoothedLogistic(won.value - lost.value);
    return {
      loss: beta * loss,
      dChosen: beta * slope * won.slope / chosen.n,
      dRejected: -beta * slope * lost.slope / rejected.n,
    };
  },
  sft: () => ({ loss: 0, dChosen: 0, dRejected: 0 }),
};

/** f of an f-divergence, and the coefficient of the alpha-divergence. */
export interface Divergence {
  divergence?: "reverse_kl" | "forward_kl" | "js_divergence" | "alpha_divergence";
  divergenceAlpha?: number;
}

/**
 * u of the log-ratio x and its slope: x; 1 - e^-x; log 2 + logSigmoid(x); (e^((a-1) x) - 1) / (a-1), all 0 at 0. arXiv
 * 2309.16240.
 *
 * @param x A log-ratio.
 * @param f The divergence.
 */
export function transform(
  x: number,
  { divergence = "reverse_kl", divergenceAlpha = 0 }: Divergence,
): { value: number; slope: number } {
  if (divergence === "reverse_kl") return { value: x, slope: 1 };
  if (divergence === "js_divergence") return { value: Math.LN2 + logSigmoid(x), slope: sigmoid(-x) };
  const power = divergence === "forward_kl" ? -1 : divergenceAlpha - 1;
  const { value, slope } = cutExp(power * x);
  return { value: (value - 1) / power, slope };
}
