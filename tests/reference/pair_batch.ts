/**
 * Losses whose pairs depend on each other, in plain f64. What is detached in them is computed apart, so that central
 * differences can hold it fixed:
 *
 * - `aot`: dpo's loss of sort(s_w - s_l) - sort(ref_w - ref_l); `aot_unpaired`: of sort(c) - sort(r). arXiv 2406.05882.
 * - `alphadpo`: simpo with gamma/b + alpha z, z the length-averaged margin over the reference less a moving mean, over a
 *   moving deviation, both .9 and starting with the first batch; the deviation is at least 0.001. arXiv 2410.10148.
 * - `beta_dpo`: dpo at beta max(0.001, b (1 + alpha (M - M0))), M the mean of D, M0 its moving mean. arXiv 2407.08639.
 *
 * @module
 */
import { type PairHead, smoothedLogistic } from "./pair_heads.ts";

/** Settings of each batch-coupled loss; the detached numbers are those of the batch where they are not given. */
export interface BatchSettings {
  aot: { beta: number; labelSmoothing?: number };
  aot_unpaired: { beta: number; labelSmoothing?: number };
  alphadpo: { beta: number; gammaBetaRatio: number; alpha: number; detached?: { shifts: number[] } };
  beta_dpo: { beta: number; alpha: number; detached?: { beta: number } };
}

/** What the batch's losses see of a pair. */
export interface BatchPair {
  chosen: { s: number; ref: number; n: number };
  rejected: { s: number; ref: number; n: number };
  offset: number;
}

/** One batch's loss. */
type Batch<Settings> = (pairs: readonly BatchPair[], settings: Settings) => PairHead[];

/** Indices of values in ascending order, ties in order. */
function argsort(values: readonly number[]): number[] {
  return values.map((_, i) => i).sort((i, j) => values[i] - values[j] || i - j);
}

const marginOf = ({ chosen, rejected }: BatchPair) => chosen.s - chosen.ref - (rejected.s - rejected.ref);

/** Length-averaged margin over the reference. */
const averageMarginOf = ({ chosen, rejected }: BatchPair) =>
  (chosen.s - chosen.ref) / chosen.n - (rejected.s - rejected.ref) / rejected.n;

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Mean and deviation (n - 1) of the batch's length-averaged margins. */
export function marginMoments(pairs: readonly BatchPair[]): { mean: number; deviation: number } {
  const margins = pairs.map(averageMarginOf);
  const center = mean(margins);
  const squares = margins.reduce((sum, margin) => sum + (margin - center) ** 2, 0);
  return { mean: center, deviation: Math.sqrt(squares / Math.max(1, margins.length - 1)) };
}

/** AlphaDPO's z of each pair. */
export function marginShifts(
  pairs: readonly BatchPair[],
  moments: { mean: number; deviation: number },
): number[] {
  return pairs.map((pair) => (averageMarginOf(pair) - moments.mean) / Math.max(moments.deviation, 1e-3));
}

/** Mean of D. */
export function meanMargin(pairs: readonly BatchPair[]): number {
  return mean(pairs.map(marginOf));
}

/** An exponential mean that starts with the first value. */
export function moving(before: number | undefined, value: number): number {
  return before === undefined ? value : 0.9 * before + 0.1 * value;
}

/** beta of beta-DPO for a batch's mean margin, given the moving mean of the batches before it. */
export function batchBeta({ beta, alpha }: { beta: number; alpha: number }, above: number): number {
  return Math.max(1e-3, beta * (1 + alpha * above));
}

/** The losses by name. */
export const BATCH_HEADS: { [Loss in keyof BatchSettings]: Batch<BatchSettings[Loss]> } = {
  aot(pairs, { beta, labelSmoothing }) {
    const policy = pairs.map(({ chosen, rejected }) => chosen.s - rejected.s);
    const reference = pairs.map(({ chosen, rejected }) => chosen.ref - rejected.ref);
    const [ofPolicy, ofReference] = [argsort(policy), argsort(reference)];
    const heads: PairHead[] = [];
    ofPolicy.forEach((p, rank) => {
      const z = beta * (policy[p] - reference[ofReference[rank]]);
      const { loss, slope } = smoothedLogistic(z, labelSmoothing);
      heads[p] = { loss, dChosen: beta * slope, dRejected: -beta * slope };
    });
    return heads;
  },
  aot_unpaired(pairs, { beta, labelSmoothing }) {
    const won = pairs.map(({ chosen }) => chosen.s - chosen.ref);
    const lost = pairs.map(({ rejected }) => rejected.s - rejected.ref);
    const [ofWon, ofLost] = [argsort(won), argsort(lost)];
    const heads = pairs.map((): PairHead => ({ loss: 0, dChosen: 0, dRejected: 0 }));
    ofWon.forEach((w, rank) => {
      const l = ofLost[rank];
      const { loss, slope } = smoothedLogistic(beta * (won[w] - lost[l]), labelSmoothing);
      heads[w].loss = loss;
      heads[w].dChosen = beta * slope;
      heads[l].dRejected = -beta * slope;
    });
    return heads;
  },
  alphadpo(pairs, settings) {
    const { beta, gammaBetaRatio, alpha } = settings;
    const { shifts } = settings.detached ?? { shifts: marginShifts(pairs, marginMoments(pairs)) };
    return pairs.map(({ chosen, rejected, offset }, p) => {
      const margin = chosen.s / chosen.n - rejected.s / rejected.n - gammaBetaRatio - alpha * shifts[p];
      const { loss, slope } = smoothedLogistic(beta * margin - offset);
      return { loss, dChosen: beta * slope / chosen.n, dRejected: -beta * slope / rejected.n };
    });
  },
  beta_dpo(pairs, { beta, alpha, detached = { beta: batchBeta({ beta, alpha }, 0) } }) {
    return pairs.map((pair) => {
      const { loss, slope } = smoothedLogistic(detached.beta * marginOf(pair) - pair.offset);
      return { loss, dChosen: detached.beta * slope, dRejected: -detached.beta * slope };
    });
  },
};
