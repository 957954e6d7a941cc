/**
 * Whether a model ranks held-out pairs as their labels do: by its own log-probs, and by what it gained on a reference.
 * @module
 */
import type { EncodedPair } from "../data/encode.ts";
import type { ReferenceLogps } from "../reference.ts";
import { type Mean, meanOf, type Proportion, proportionOf } from "./statistics.ts";

/** A model's ranking of pairs. Log-probs are of the completion given its prompt, in nats; a tie is no success. */
export interface PreferenceEvaluation {
  /** How many. */
  readonly pairs: number;
  /** Share of pairs with log p(chosen) > log p(rejected). */
  readonly accuracy: Proportion;
  /** The same of log-probs divided by their completion's tokens, which does not favour short answers. */
  readonly accuracyPerToken: Proportion;
  /** Summed over a completion, of the chosen answers. */
  readonly logpsChosen: Mean;
  /** Of the rejected ones. */
  readonly logpsRejected: Mean;
  /** Divided by the completion's tokens, of the chosen answers. */
  readonly logpsChosenPerToken: Mean;
  /** Of the rejected ones. */
  readonly logpsRejectedPerToken: Mean;
  /** What the model gained on the reference. */
  readonly reference?: ReferenceComparison;
}

/** DPO's implicit reward, beta log(pi / pi_ref) (Eq. 5, arXiv 2305.18290, without its constant of the prompt). */
export interface ReferenceComparison {
  /** Share of pairs whose chosen reward is higher than the rejected one. */
  readonly rewardAccuracy: Proportion;
  /** Mean of chosen reward - rejected reward. */
  readonly rewardMargin: Mean;
  /** Mean of log pi - log pi_ref of the chosen answers. */
  readonly chosenDelta: Mean;
  /** Of the rejected ones. */
  readonly rejectedDelta: Mean;
  /** The reference's own, of the chosen answers. */
  readonly logpsChosen: Mean;
  /** Of the rejected ones. */
  readonly logpsRejected: Mean;
}

/**
 * Ranks pairs by log-probs that are known.
 *
 * @param pairs `[P]`, for their completions' lengths
 * @param options.policy summed log-probs of the same pairs
 * @param options.reference those of a reference, if there is one
 * @param options.beta scales the rewards; 0.1 by default
 * @returns shares with Wilson intervals, means with standard errors
 * @throws {RangeError} without pairs
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "example" };
 * const chosen = { promptIds: [1], completionIds: [2, 3, 4, 5], source };
 * const rejected = { promptIds: [1], completionIds: [6], source };
 * const policy = { chosen: Float32Array.of(-4), rejected: Float32Array.of(-2) };
 * const found = comparePreferences([{ chosen, rejected, source }], { policy });
 * assert.equal(found.accuracy.value, 0); // -4 < -2
 * assert.equal(found.accuracyPerToken.value, 1); // -1 > -2
 * ```
 */
export function comparePreferences(
  pairs: readonly EncodedPair[],
  options: { policy: ReferenceLogps; reference?: ReferenceLogps; beta?: number },
): PreferenceEvaluation {
  const { policy, reference, beta = 0.1 } = options;
  const chosen = Array.from(policy.chosen);
  const rejected = Array.from(policy.rejected);
  const chosenPerToken = chosen.map((logp, pair) => logp / pairs[pair].chosen.completionIds.length);
  const rejectedPerToken = rejected.map((logp, pair) => logp / pairs[pair].rejected.completionIds.length);
  const wins = (a: readonly number[], b: readonly number[]) =>
    proportionOf(a.map((value, pair) => value > b[pair]));
  return {
    pairs: chosen.length,
    accuracy: wins(chosen, rejected),
    accuracyPerToken: wins(chosenPerToken, rejectedPerToken),
    logpsChosen: meanOf(chosen),
    logpsRejected: meanOf(rejected),
    logpsChosenPerToken: meanOf(chosenPerToken),
    logpsRejectedPerToken: meanOf(rejectedPerToken),
    ...(reference ? { reference: compareWithReference(policy, { reference, beta }) } : {}),
  };
}

function compareWithReference(
  policy: ReferenceLogps,
  { reference, beta }: { reference: ReferenceLogps; beta: number },
): ReferenceComparison {
  const chosen = Array.from(policy.chosen, (logp, pair) => logp - reference.chosen[pair]);
  const rejected = Array.from(policy.rejected, (logp, pair) => logp - reference.rejected[pair]);
  return {
    rewardAccuracy: proportionOf(chosen.map((delta, pair) => delta > rejected[pair])),
    rewardMargin: meanOf(chosen.map((delta, pair) => beta * (delta - rejected[pair]))),
    chosenDelta: meanOf(chosen),
    rejectedDelta: meanOf(rejected),
    logpsChosen: meanOf(Array.from(reference.chosen)),
    logpsRejected: meanOf(Array.from(reference.rejected)),
  };
}
