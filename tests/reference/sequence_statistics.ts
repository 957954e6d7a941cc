/**
 * Metrics of tokens' statistics and the weights of WPO, in plain f64.
 *
 * @module
 */
import { requireLengths, requireOffsets } from "./shape.ts";

/** Statistics of the labelled rows of S sequences. */
export interface SequenceStatisticsInputs {
  /** `[M]` log-probs. */
  logps: Float64Array;
  /** `[M, 4]` as `statistics` of token_logps returns them. */
  statistics: Float64Array;
  /** `[S + 1]` first labelled row of each sequence. */
  sequenceOffsets: ArrayLike<number>;
}

/**
 * Sums over each sequence.
 *
 * @param inputs Statistics and offsets.
 * @returns `[S, 4]`: entropy, mean logit, hits, log p - log sum of p^2.
 * @throws {RangeError} When a length or an offset disagrees.
 */
export function sums({ logps, statistics, sequenceOffsets }: SequenceStatisticsInputs): Float64Array {
  requireLengths("sequence_statistics", { statistics: [statistics, 4 * logps.length] });
  requireOffsets(sequenceOffsets, logps.length);
  const S = sequenceOffsets.length - 1;
  const result = new Float64Array(4 * S);
  for (let s = 0; s < S; s++) {
    for (let m = sequenceOffsets[s]; m < sequenceOffsets[s + 1]; m++) {
      for (const i of [0, 1, 2]) result[4 * s + i] += statistics[4 * m + i];
      result[4 * s + 3] += logps[m] - statistics[4 * m + 3];
    }
  }
  return result;
}

/**
 * Means over tokens, by TRL's names; 0 over none.
 *
 * @param inputs Statistics and offsets.
 * @param isChosen Whether sequence s is.
 */
export function metrics(
  inputs: SequenceStatisticsInputs,
  isChosen: (s: number) => boolean,
): Record<"entropy" | "mean_token_accuracy" | "logits/chosen" | "logits/rejected", number> {
  const { sequenceOffsets } = inputs;
  const totals = sums(inputs);
  const sequences = Array.from({ length: sequenceOffsets.length - 1 }, (_, s) => s);
  const mean = (component: number, of: (s: number) => boolean) => {
    const counted = sequences.filter(of);
    const tokens = counted.reduce((total, s) => total + sequenceOffsets[s + 1] - sequenceOffsets[s], 0);
    return tokens === 0 ? 0 : counted.reduce((total, s) => total + totals[4 * s + component], 0) / tokens;
  };
  return {
    entropy: mean(0, () => true),
    mean_token_accuracy: mean(2, isChosen),
    "logits/chosen": mean(1, isChosen),
    "logits/rejected": mean(1, (s) => !isChosen(s)),
  };
}

/**
 * WPO (arXiv 2406.11827): the weight of pair p is w_w w_l, w = exp(mean over tokens of (log p - log sum of p^2)).
 *
 * @param inputs Statistics and offsets of 2 P sequences, the chosen first.
 * @returns `[P]`.
 */
export function pairWeights(inputs: SequenceStatisticsInputs): Float64Array {
  const { sequenceOffsets: offsets } = inputs;
  const totals = sums(inputs);
  const P = (offsets.length - 1) / 2;
  const weight = (s: number) => Math.exp(totals[4 * s + 3] / (offsets[s + 1] - offsets[s]));
  return Float64Array.from({ length: P }, (_, p) => weight(p) * weight(P + p));
}
