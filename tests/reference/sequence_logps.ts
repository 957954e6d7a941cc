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
  /** `[S]` first tokens of each sequence that count in full (LD-DPO, arXiv 2409.06411); all by default. */
  heads?: ArrayLike<number>;
}

/** Sizes of a sequence log-probability. */
export interface SequenceLogpsDims {
  /** Labelled rows. */
  M: number;
  /** Sequences. */
  S: number;
  /** What the tokens after the heads count; 1 by default. */
  tailWeight?: number;
}

/**
 * Sums the token log-probabilities of each sequence, those after its head times a weight; an empty one gives 0.
 *
 * @param inputs Token log-probabilities and offsets.
 * @param dims Sizes.
 * @returns s `[S]` sums, and lengths `[S]` in tokens.
 * @throws {RangeError} When a length or an offset disagrees with the dimensions.
 */
export function forward(
  inputs: SequenceLogpsInputs,
  dims: SequenceLogpsDims,
): { s: Float64Array; lengths: Float64Array } {
  requireSequences(inputs, dims);
  const { tokenLogps, sequenceOffsets } = inputs;
  const { S } = dims;
  const s = new Float64Array(S);
  const lengths = new Float64Array(S);
  for (let i = 0; i < S; i++) {
    lengths[i] = sequenceOffsets[i + 1] - sequenceOffsets[i];
    for (let m = sequenceOffsets[i]; m < sequenceOffsets[i + 1]; m++) {
      s[i] += weightOf(inputs, dims, { i, m }) * tokenLogps[m];
    }
  }
  return { s, lengths };
}

/**
 * s[i] = sum of its tokens' log-probabilities times their weights, so each token receives its weight of dS of its sequence.
 *
 * @param inputs Token log-probabilities and offsets.
 * @param dims Sizes.
 * @param upstream dS `[S]`.
 * @returns dTokenLogps `[M]`.
 * @throws {RangeError} When a length or an offset disagrees with the dimensions.
 */
export function backward(
  inputs: SequenceLogpsInputs,
  dims: SequenceLogpsDims,
  { dS }: { dS: Float64Array },
): { dTokenLogps: Float64Array } {
  requireSequences(inputs, dims);
  const { M, S } = dims;
  requireLengths("sequence_logps backward", { dS: [dS, S] });
  const dTokenLogps = new Float64Array(M);
  for (let i = 0; i < S; i++) {
    for (let m = inputs.sequenceOffsets[i]; m < inputs.sequenceOffsets[i + 1]; m++) {
      dTokenLogps[m] = weightOf(inputs, dims, { i, m }) * dS[i];
    }
  }
  return { dTokenLogps };
}

/** 1 in the head of sequence i. */
function weightOf(
  { sequenceOffsets, heads }: SequenceLogpsInputs,
  { tailWeight = 1 }: SequenceLogpsDims,
  { i, m }: { i: number; m: number },
): number {
  return heads === undefined || m < sequenceOffsets[i] + heads[i] ? 1 : tailWeight;
}

function requireSequences(inputs: SequenceLogpsInputs, { M, S }: SequenceLogpsDims): void {
  requireLengths("sequence_logps", {
    tokenLogps: [inputs.tokenLogps, M],
    sequenceOffsets: [inputs.sequenceOffsets, S + 1],
    ...(inputs.heads ? { heads: [inputs.heads, S] } : {}),
  });
  requireOffsets(inputs.sequenceOffsets, M);
}
