/**
 * LD-DPO (arXiv 2409.06411): a longer answer must not win by its length. Tokens of an answer past the length of the
 * pair's shorter one count `ldAlpha` instead of 1, under policy and reference.
 * @module
 */
import { sequenceLogps, type SequenceTails } from "../../engine/ops/sequence_logps.ts";
import type { Tensor } from "../../engine/tensor.ts";
import type { BatchTensors } from "../models/batch_tensors.ts";

/**
 * How many first tokens of each answer count in full.
 *
 * @param lengths `[2P]`: tokens of the chosen answers of all pairs, then of the rejected
 * @returns `[2P]`: the shorter of the pair, on both sides
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(pairHeads([3, 7, 5, 2]), [3, 2, 3, 2]); // pairs of 3 and 5, of 7 and 2 tokens
 * ```
 */
export function pairHeads(lengths: ArrayLike<number>): number[] {
  const pairs = lengths.length / 2;
  return Array.from(lengths, (length, side) => Math.min(length, lengths[(side + pairs) % lengths.length]));
}

/** Summed log-probs of S sequences, each `[S]` in nats. */
export interface SequenceSums {
  /** Over whole sequences. */
  readonly plain: Tensor;
  /** Tokens of the tails weighted; without tails the same tensor. */
  readonly weighted: Tensor;
}

/**
 * Summed log-probs from those of tokens, in both ways that a loss may need them.
 *
 * @param logps `[R]`
 * @param batch S packed sequences
 * @param tails which of their tokens count less; none by default
 */
export function sequenceSums(
  logps: Tensor,
  { sequences }: Pick<BatchTensors, "sequences">,
  tails?: SequenceTails,
): SequenceSums {
  const plain = sequenceLogps(logps, sequences);
  return { plain, weighted: tails ? sequenceLogps(logps, sequences, { tails }) : plain };
}
