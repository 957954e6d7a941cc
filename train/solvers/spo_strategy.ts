/**
 * SPO's options to what a preference objective needs: numbers for the kernel, and the solver.
 * @module
 */
import { NO_PENALTY, type SpoPenaltyOptions } from "../../engine/ops/pair_loss.ts";
import type { EncodedCompletion } from "../data/encode.ts";
import { type SpoOptions, spoPenaltyAt } from "../losses/spo.ts";
import { alternatingSolver } from "./alternating.ts";
import type { LowerLevelOptions } from "./lower_level.ts";
import { penaltySolver } from "./penalty.ts";
import { plainSolver } from "./plain.ts";
import type { SolverFactory } from "./solver.ts";
import { unrolledSolver } from "./unrolled.ts";

/** What SPO's options mean for a run. */
export interface SpoStrategyOptions {
  /** Steps of the run. */
  readonly maxSteps: number;
  /** The chosen answers of the run's pairs, item by item. */
  readonly chosen: readonly EncodedCompletion[];
  /** The lower level's own data, where it has any. */
  readonly sft?: { readonly completions: readonly EncodedCompletion[]; readonly batchSize: number };
}

/** Part of a preference objective's options. */
export interface SpoStrategy {
  /** The kernel's numbers at a step. */
  readonly spoAt: (step: number) => SpoPenaltyOptions;
  /** Where the dual variable starts. */
  readonly lambda: number;
  /** What a step does. */
  readonly solver: SolverFactory;
}

/**
 * Chooses the solver, once a run. A strategy is of one run: it holds v* where that is tracked.
 *
 * @param spo effective options
 * @param options of the run
 * @returns to be spread into the options of `preferenceObjective`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseSpoOptions } from "../losses/spo.ts";
 *
 * const spo = parseSpoOptions({ solver: "unrolled", innerLearningRate: 0.1, rho: 0.5 });
 * const { spoAt } = spoStrategy(spo, { maxSteps: 10, chosen: [] });
 * assert.deepEqual([spoAt(1).penalty, spoAt(1).rho], ["none", 0.5]); // G is not a penalty there
 * ```
 */
export function spoStrategy(spo: SpoOptions, options: SpoStrategyOptions): SpoStrategy {
  const { maxSteps, chosen, sft } = options;
  const { solver, hypergradient, hvpEpsilon, innerLearningRate = 0, lambda, trackSteps, trackEvery } = spo;
  const lowerLevel: LowerLevelOptions = { completions: chosen, ...sft, mean: spo.lowerLevelMean };
  const upper = { ...NO_PENALTY, rho: spo.rho, margin: spo.margin };
  if (solver === "none") return { spoAt: () => NO_PENALTY, lambda: 0, solver: plainSolver };
  if (solver !== "penalty") {
    const settings = { innerLearningRate, hypergradient, hvpEpsilon, lowerLevel };
    const make = solver === "unrolled" ? unrolledSolver : alternatingSolver;
    return { spoAt: () => upper, lambda: 0, solver: (context) => make(context, settings) };
  }
  const state = { vStar: Infinity };
  const track = spo.vStar === "track"
    ? { state, innerLearningRate, trackSteps, trackEvery, lowerLevel }
    : undefined;
  const penaltyAt = (step: number): SpoPenaltyOptions => {
    const penalty = spoPenaltyAt(spo, step, maxSteps);
    // Before the first search its value is not used: only the penalty's kind is asked for.
    return track ? { ...penalty, vStar: Number.isFinite(state.vStar) ? state.vStar : 0 } : penalty;
  };
  const hasOwnPasses = sft !== undefined || spo.lowerLevelMean === "token";
  const separate = hasOwnPasses ? { lowerLevel, spoAt: penaltyAt, lambda } : undefined;
  return {
    spoAt: separate ? () => upper : penaltyAt,
    lambda,
    solver: (context) => penaltySolver(context, { separate, track }),
  };
}
