/**
 * Encoded texts laid end to end for the engine: no padding, so no work on tokens that do not count.
 * @module
 */
import type { EncodedCompletion, EncodedPair } from "./encode.ts";

/** The label of a position that predicts nothing that counts. */
export const IGNORED_LABEL: number = -100;

/** S sequences of N tokens together, one after the other. */
export interface PackedSequences {
  /** `[N]` token ids. */
  inputIds: Uint32Array;
  /**
   * `[N]`, already shifted: the id that position t must predict, that is inputIds[t + 1] where t + 1 is a completion
   * token of the same sequence, else {@linkcode IGNORED_LABEL}. The last position of a sequence is always ignored.
   */
  labels: Int32Array;
  /** `[N]` position within the sequence, from 0. */
  positions: Uint32Array;
  /** `[S + 1]` where each sequence starts; the last entry is N. */
  sequenceOffsets: Uint32Array;
  /** `[S]` completion tokens per sequence: its count of labels that are not ignored. */
  completionLengths: Uint32Array;
}

/**
 * Pack pairs: all chosen sequences in order, then all rejected ones, so that pair p is sequences p and P + p.
 *
 * @param pairs `[P]`
 * @returns 2 P sequences
 * @throws {RangeError} no pairs, or a sequence without prompt or completion tokens
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "a.jsonl", line: 1 };
 * const chosen = { promptIds: [1, 5], completionIds: [6, 2], source };
 * const rejected = { promptIds: [1, 5], completionIds: [7], source };
 * const packed = packPairs([{ chosen, rejected, source }]);
 * assert.deepEqual([...packed.inputIds], [1, 5, 6, 2, 1, 5, 7]);
 * assert.deepEqual([...packed.labels], [-100, 6, 2, -100, -100, 7, -100]);
 * assert.deepEqual([...packed.sequenceOffsets], [0, 4, 7]);
 * ```
 */
export function packPairs(pairs: readonly EncodedPair[]): PackedSequences {
  return packSequences([...pairs.map((pair) => pair.chosen), ...pairs.map((pair) => pair.rejected)]);
}

/**
 * Pack completions in order.
 *
 * @param completions `[S]`
 * @returns S sequences
 * @throws {RangeError} no completions, or one without prompt or completion tokens
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "a.jsonl", line: 1 };
 * const packed = packSequences([
 *   { promptIds: [1], completionIds: [5, 2], source },
 *   { promptIds: [1, 4], completionIds: [2], source },
 * ]);
 * assert.deepEqual([...packed.labels], [5, 2, -100, -100, 2, -100]); // each position's next id
 * assert.deepEqual([...packed.sequenceOffsets], [0, 3, 6]);
 * ```
 */
export function packSequences(completions: readonly EncodedCompletion[]): PackedSequences {
  if (completions.length === 0) throw new RangeError("Cannot pack a batch: expected sequences, found none");
  const sequenceOffsets = new Uint32Array(completions.length + 1);
  for (const [s, { promptIds, completionIds }] of completions.entries()) {
    // Without a prompt token nothing predicts the first completion token, and its log-prob would silently be lost.
    if (promptIds.length === 0 || completionIds.length === 0) {
      throw new RangeError(
        `Cannot pack a batch: expected prompt and completion tokens in sequence ${s}, ` +
          `found ${promptIds.length} and ${completionIds.length}`,
      );
    }
    sequenceOffsets[s + 1] = sequenceOffsets[s] + promptIds.length + completionIds.length;
  }
  const tokenCount = sequenceOffsets[completions.length];
  const packed: PackedSequences = {
    inputIds: new Uint32Array(tokenCount),
    labels: new Int32Array(tokenCount).fill(IGNORED_LABEL),
    positions: new Uint32Array(tokenCount),
    sequenceOffsets,
    completionLengths: Uint32Array.from(completions, ({ completionIds }) => completionIds.length),
  };
  for (const [s, completion] of completions.entries()) {
    writeSequence(packed, { completion, start: sequenceOffsets[s] });
  }
  return packed;
}

function writeSequence(packed: PackedSequences, at: { completion: EncodedCompletion; start: number }): void {
  const { promptIds, completionIds } = at.completion;
  const completionStart = at.start + promptIds.length;
  packed.inputIds.set(promptIds, at.start);
  packed.inputIds.set(completionIds, completionStart);
  packed.labels.set(completionIds, completionStart - 1);
  const length = promptIds.length + completionIds.length;
  for (let t = 0; t < length; t++) packed.positions[at.start + t] = t;
}

/**
 * All tokens of a packed batch, N.
 *
 * @param packed a batch
 */
export function tokenCount(packed: PackedSequences): number {
  return packed.inputIds.length;
}

/**
 * The tokens of a packed batch that count in the loss.
 *
 * @param packed a batch
 */
export function completionTokenCount(packed: PackedSequences): number {
  return packed.completionLengths.reduce((sum, length) => sum + length, 0);
}
