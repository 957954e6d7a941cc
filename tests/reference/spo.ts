/**
 * The penalty form of Stable Preference Optimization around a pairwise loss, in plain f64, with the lower level's data
 * being the chosen completions of the batch.
 *
 *     total = F + lambda phi(G - v*)
 *     F = mean pair loss + rho R,  R = mean max(0, ref_w - s_w + margin) / n_w,  G = mean -s_w / n_w
 *
 * The idea is that of arXiv 2507.07723; the formulation is this project's own, since the paper's equations were not at
 * hand.
 *
 * @module
 */
import * as pairLoss from "./pair_loss.ts";
import type { Pair, PairLossDims, PairLossInputs } from "./pair_loss.ts";

/** Shape of the penalty on the gap z = G - v*: z, max(0, z - eps), or max(0, z - eps)^2 / 2. */
export type PenaltyShape = "linear" | "hinge" | "quadratic";

/** Sizes and settings: the pair loss's own, and the penalty's. */
export interface SpoDims {
  /** Pair loss with its sizes; its normalizer also divides R and G. */
  pairLoss: PairLossDims;
  /** Weight of the penalty at this step. */
  lambda: number;
  /** Shape of the penalty. */
  penalty: PenaltyShape;
  /** Radius of the safe alignment region; `linear` does not use it. */
  epsilon: number;
  /** Optimal value v* of the lower level at this step. */
  vStar: number;
  /** Weight of the absolute-improvement term. */
  rho: number;
  /** Margin of the absolute-improvement term. */
  margin: number;
}

/** Everything the objective is made of. */
export interface SpoOutputs {
  /** F + lambda phi(G - v*). */
  total: number;
  /** F, the upper level. */
  upperLevel: number;
  /** Mean pair loss alone. */
  loss: number;
  /** R, the shortfall of the chosen completions against the reference. */
  improvement: number;
  /** G, the lower level. */
  lowerLevel: number;
  /** G - v*. */
  gap: number;
  /** phi(G - v*), before lambda. */
  penalty: number;
  /** Metrics of the pair loss. */
  metrics: pairLoss.PairMetrics;
}

/**
 * The objective and its terms.
 *
 * @param inputs Sums `[2P]`, reference sums `[2P]` and lengths `[2P]`.
 * @param dims Settings.
 * @returns The total and every term.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(inputs: PairLossInputs, dims: SpoDims): SpoOutputs {
  const { normalizer } = dims.pairLoss;
  const { loss, metrics } = pairLoss.forward(inputs, dims.pairLoss);
  const pairs = pairLoss.wholePairsOf(inputs, dims.pairLoss);
  const improvement = pairs.reduce((sum, { chosen }) => sum + shortfall(chosen, dims) / chosen.n, 0) /
    normalizer;
  const lowerLevel = pairs.reduce((sum, { chosen }) => sum - chosen.s / chosen.n, 0) / normalizer;
  const gap = lowerLevel - dims.vStar;
  const penalty = penaltyOf(gap, dims).value;
  const upperLevel = loss + dims.rho * improvement;
  const total = upperLevel + dims.lambda * penalty;
  return { total, upperLevel, loss, improvement, lowerLevel, gap, penalty, metrics };
}

/**
 * total = loss + rho R + lambda phi(G - v*), so dS_w = dLoss/ds_w - (rho 1[shortfall > 0] + lambda phi'(gap)) / (n_w
 * normalizer), and dS_l is the pair loss's own. Where there are plain sums, the second part is their gradient.
 *
 * @param inputs Sums `[2P]`, reference sums `[2P]` and lengths `[2P]`.
 * @param dims Settings.
 * @param upstream dTotal, 1 for the last op of a step.
 * @returns dS `[2P]`, and where there are plain sums dPlain `[2P]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  inputs: PairLossInputs,
  dims: SpoDims,
  { dTotal }: { dTotal: number },
): { dS: Float64Array; dPlain?: Float64Array } {
  const { dS, dPlain } = pairLoss.backward(inputs, dims.pairLoss, { dLoss: dTotal });
  const dWhole = dPlain ?? dS;
  const { slope } = penaltyOf(forward(inputs, dims).gap, dims);
  pairLoss.wholePairsOf(inputs, dims.pairLoss).forEach(({ chosen }, p) => {
    const weight = dims.lambda * slope + (shortfall(chosen, dims) > 0 ? dims.rho : 0);
    dWhole[p] -= dTotal * weight / (chosen.n * dims.pairLoss.normalizer);
  });
  return { dS, ...(dPlain ? { dPlain } : {}) };
}

/**
 * phi and its derivative.
 *
 * @param gap G - v*.
 * @param options.penalty Shape.
 * @param options.epsilon Radius of the safe alignment region.
 * @returns phi(gap) and phi'(gap).
 */
export function penaltyOf(
  gap: number,
  { penalty, epsilon }: { penalty: PenaltyShape; epsilon: number },
): { value: number; slope: number } {
  if (penalty === "linear") return { value: gap, slope: 1 };
  const excess = Math.max(0, gap - epsilon);
  if (penalty === "hinge") return { value: excess, slope: excess > 0 ? 1 : 0 };
  return { value: excess ** 2 / 2, slope: excess };
}

/** How far the chosen completion falls short of its reference plus the margin. */
function shortfall({ s, ref }: Pair["chosen"], { margin }: { margin: number }): number {
  return Math.max(0, ref - s + margin);
}
