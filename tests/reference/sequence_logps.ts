/**
 * Log-probability of each completion: the sum of its tokens', in plain f64.
 *
 * @module
 */
import { requireLengths, requireOffsets } from "./shape.ts";

/** Tensors of a sequence log-probability. */
export interface SequenceLogpsInputs {
  /** `[M]` log-probabilities of the labelled rows, as token_logps returns them. */
  tokenLogps: Float64Array;
  /** `[S + 1]` first labelled row of each sequence, then M. Counts labelled rows, not all rows. */
  sequenceOffsets: ArrayLike<number>;
}

/** Sizes of a sequence log-probability. */
export interface SequenceLogpsDims {
  /** Labelled rows. */
  M: number;
  /** Sequences. */
  S: number;
}

/**
 * Sums the token log-probabilities of each sequence; an empty one gives 0.
 *
 * @param inputs Token log-probabilities and offsets.
 * @param dims Sizes.
 * @returns s `[S]` sums, and lengths `[S]` in tokens.
 * @throws {RangeError} When a length or an offset disagrees with the dimensions.
 */
export function forward(
  { tokenLogps, sequenceOffsets }: SequenceLogpsInputs,
  { M, S }: SequenceLogpsDims,
): { s: Float64Array; lengths: Float64Array } {
  requireSequences({ tokenLogps, sequenceOffsets }, { M, S });
  const s = new Float64Array(S);
  const lengths = new Float64Array(S);
  for (let i = 0; i < S; i++) {
    lengths[i] = sequenceOffsets[i + 1] - sequenceOffsets[i];
    for (let m = sequenceOffsets[i]; m < sequenceOffsets[i + 1]; m++) s[i] += tokenLogps[m];
  }
  return { s, lengths };
}

/**
 * s[i] = sum of its tokens' log-probabilities, so each token receives dS of its sequence.
 *
 * @param inputs Token log-probabilities and offsets.
 * @param dims Sizes.
 * @param upstream dS `[S]`.
 * @returns dTokenLogps `[M]`.
 * @throws {RangeError} When a length or an offset disagrees with the dimensions.
 */
export function backward(
  inputs: SequenceLogpsInputs,
  { M, S }: SequenceLogpsDims,
  { dS }: { dS: Float64Array },
): { dTokenLogps: Float64Array } {
  requireSequences(inputs, { M, S });
  requireLengths("sequence_logps backward", { dS: [dS, S] });
  const dTokenLogps = new Float64Array(M);
  for (let i = 0; i < S; i++) {
    dTokenLogps.fill(dS[i], inputs.sequenceOffsets[i], inputs.sequenceOffsets[i + 1]);
  }
  return { dTokenLogps };
}

function requireSequences(inputs: SequenceLogpsInputs, { M, S }: SequenceLogpsDims): void {
  requireLengths("sequence_logps", {
    tokenLogps: [inputs.tokenLogps, M],
    sequenceOffsets: [inputs.sequenceOffsets, S + 1],
  });
  requireOffsets(inputs.sequenceOffsets, M);
}
