/**
 * Pairwise preference losses from summed completion log-probabilities, in plain f64.
 *
 * With c = s_w - ref_w, r = s_l - ref_l, D = c - r, a = s / n, b = beta, w the chosen and l the rejected completion:
 *
 * - `dpo`: -(1 - e) logSigmoid(bD) - e logSigmoid(-bD), e the label smoothing. Eq. 7, arXiv 2305.18290.
 * - `hinge`: max(0, 1 - bD). Section 3, arXiv 2305.10425, on the rewards of arXiv 2309.06657.
 * - `ipo`: (c/n_w - r/n_l - 1/(2b))^2, averaged over tokens as in TRL, or (D - 1/(2b))^2. Eq. 17, arXiv 2310.12036.
 * - `simpo`: -logSigmoid(b (a_w - a_l) - gamma), gamma = gammaBetaRatio b, no reference. Eq. 6, arXiv 2405.14734.
 *
 * @module
 */
import { logSigmoid, sigmoid } from "./log_sigmoid.ts";
import { requireLengths } from "./shape.ts";

/** Tensors of a pairwise loss. Each is `[2P]`: all chosen first, then all rejected in the same order. */
export interface PairLossInputs {
  /** `[2P]` summed log-probabilities under the policy. */
  s: Float64Array;
  /** `[2P]` summed log-probabilities under the reference; SimPO uses them for the displacement metrics alone. */
  ref: Float64Array;
  /** `[2P]` completion lengths in tokens. */
  lengths: ArrayLike<number>;
}

/** Which loss, with its settings. A setting that a loss does not know cannot be given. */
export type PairLossKind =
  | { loss: "dpo"; beta: number; labelSmoothing?: number }
  | { loss: "hinge"; beta: number }
  | { loss: "ipo"; beta: number; lengthNormalize?: boolean }
  | { loss: "simpo"; beta: number; gammaBetaRatio: number };

/** Sizes and settings of a pairwise loss. */
export type PairLossDims = PairLossKind & {
  /** Pairs in this call. */
  P: number;
  /** Pairs of the whole batch: sums are divided by it, so that the parts of a batch add up to the whole. */
  normalizer: number;
};

/** Means over the batch, by TRL's names, and the displacement panel. */
export interface PairMetrics {
  /** Mean reward of the chosen completions. */
  "rewards/chosen": number;
  /** Mean reward of the rejected completions. */
  "rewards/rejected": number;
  /** Mean of chosen minus rejected reward. */
  "rewards/margins": number;
  /** Share of pairs whose chosen reward is the larger. */
  "rewards/accuracies": number;
  /** Mean summed log-probability of the chosen completions. */
  "logps/chosen": number;
  /** Mean summed log-probability of the rejected completions. */
  "logps/rejected": number;
  /** Mean of s_w - ref_w. */
  "displacement/chosen_delta": number;
  /** Mean of s_l - ref_l. */
  "displacement/rejected_delta": number;
  /** Share of pairs with s_w < ref_w. */
  "displacement/fraction": number;
}

/** The numbers of one pair. */
export interface Pair {
  /** Log-probability sum, reference sum and length of the chosen completion. */
  chosen: { s: number; ref: number; n: number };
  /** The same for the rejected completion. */
  rejected: { s: number; ref: number; n: number };
}

/** Loss of one pair, and its derivatives by the two sums. */
export interface PairHead {
  /** Loss in nats (IPO: squared nats). */
  loss: number;
  /** Derivative by s_w. */
  dChosen: number;
  /** Derivative by s_l. */
  dRejected: number;
}

/**
 * Loss of each pair, their sum over the normalizer, and metrics.
 *
 * @param inputs Sums, reference sums and lengths.
 * @param dims Sizes and settings.
 * @returns losses `[P]`, the mean loss, and the metrics.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(
  inputs: PairLossInputs,
  dims: PairLossDims,
): { losses: Float64Array; loss: number; metrics: PairMetrics } {
  const pairs = pairsOf(inputs, dims);
  const losses = Float64Array.from(pairs, (pair) => pairHead(pair, dims).loss);
  const loss = losses.reduce((sum, value) => sum + value, 0) / dims.normalizer;
  return { losses, loss, metrics: metricsOf(pairs, dims) };
}

/**
 * loss = sum over pairs of l(s_w, s_l) / normalizer, so dS holds each pair's two derivatives over the normalizer.
 *
 * @param inputs Sums, reference sums and lengths.
 * @param dims Sizes and settings.
 * @param upstream dLoss, 1 for the last op of a step.
 * @returns dS `[2P]`, laid out as s.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  inputs: PairLossInputs,
  dims: PairLossDims,
  { dLoss }: { dLoss: number },
): { dS: Float64Array } {
  const dS = new Float64Array(2 * dims.P);
  pairsOf(inputs, dims).forEach((pair, p) => {
    const { dChosen, dRejected } = pairHead(pair, dims);
    dS[p] = dLoss * dChosen / dims.normalizer;
    dS[dims.P + p] = dLoss * dRejected / dims.normalizer;
  });
  return { dS };
}

/**
 * Loss and derivatives of one pair; the module comment has the equations.
 *
 * @param pair Numbers of the pair.
 * @param kind Loss and settings.
 * @returns Loss and its derivatives.
 */
export function pairHead(pair: Pair, kind: PairLossKind): PairHead {
  const { chosen, rejected } = pair;
  const { beta } = kind;
  const c = chosen.s - chosen.ref;
  const r = rejected.s - rejected.ref;
  if (kind.loss === "dpo") {
    const z = beta * (c - r);
    const e = kind.labelSmoothing ?? 0;
    // (1 - e) sigmoid(-z) - e sigmoid(z) rather than 1 - e - sigmoid(z), which loses the small side to cancellation.
    const slope = beta * ((1 - e) * sigmoid(-z) - e * sigmoid(z));
    return { loss: -(1 - e) * logSigmoid(z) - e * logSigmoid(-z), dChosen: -slope, dRejected: slope };
  }
  if (kind.loss === "hinge") {
    const slope = beta * (c - r) < 1 ? beta : 0;
    return { loss: Math.max(0, 1 - beta * (c - r)), dChosen: -slope, dRejected: slope };
  }
  const averaged = kind.loss === "simpo" || (kind.lengthNormalize ?? true);
  const [nChosen, nRejected] = averaged ? [chosen.n, rejected.n] : [1, 1];
  if (kind.loss === "ipo") {
    const m = c / nChosen - r / nRejected - 1 / (2 * beta);
    return { loss: m ** 2, dChosen: 2 * m / nChosen, dRejected: -2 * m / nRejected };
  }
  const z = beta * (chosen.s / nChosen - rejected.s / nRejected) - kind.gammaBetaRatio * beta;
  const slope = beta * sigmoid(-z);
  return { loss: -logSigmoid(z), dChosen: -slope / nChosen, dRejected: slope / nRejected };
}

/**
 * Reads the pairs out of the `[2P]` tensors.
 *
 * @param inputs Sums, reference sums and lengths.
 * @param dims Number of pairs.
 * @returns `[P]` pairs.
 * @throws {RangeError} When a length disagrees with the dimensions or a completion is empty.
 */
export function pairsOf({ s, ref, lengths }: PairLossInputs, { P }: { P: number }): Pair[] {
  requireLengths("pair_loss", { s: [s, 2 * P], ref: [ref, 2 * P], lengths: [lengths, 2 * P] });
  const at = (i: number) => {
    if (!(lengths[i] > 0)) {
      throw new RangeError(`Cannot score completion ${i}: expected at least 1 token, found ${lengths[i]}`);
    }
    return { s: s[i], ref: ref[i], n: lengths[i] };
  };
  return Array.from({ length: P }, (_, p) => ({ chosen: at(p), rejected: at(P + p) }));
}

/** Implicit rewards: beta (s - ref), or beta s / n for SimPO, which has no reference, as TRL's CPO trainer logs it. */
function rewardsOf({ chosen, rejected }: Pair, { loss, beta }: PairLossKind): { won: number; lost: number } {
  return loss === "simpo"
    ? { won: beta * chosen.s / chosen.n, lost: beta * rejected.s / rejected.n }
    : { won: beta * (chosen.s - chosen.ref), lost: beta * (rejected.s - rejected.ref) };
}

function metricsOf(pairs: Pair[], dims: PairLossDims): PairMetrics {
  const mean = (read: (pair: Pair) => number) =>
    pairs.reduce((sum, pair) => sum + read(pair), 0) / dims.normalizer;
  const won = (pair: Pair) => rewardsOf(pair, dims).won;
  const lost = (pair: Pair) => rewardsOf(pair, dims).lost;
  const chosenDelta = ({ chosen }: Pair) => chosen.s - chosen.ref;
  return {
    "rewards/chosen": mean(won),
    "rewards/rejected": mean(lost),
    "rewards/margins": mean((pair) => won(pair) - lost(pair)),
    "rewards/accuracies": mean((pair) => won(pair) > lost(pair) ? 1 : 0),
    "logps/chosen": mean(({ chosen }) => chosen.s),
    "logps/rejected": mean(({ rejected }) => rejected.s),
    "displacement/chosen_delta": mean(chosenDelta),
    "displacement/rejected_delta": mean(({ rejected }) => rejected.s - rejected.ref),
    "displacement/fraction": mean((pair) => chosenDelta(pair) < 0 ? 1 : 0),
  };
}
