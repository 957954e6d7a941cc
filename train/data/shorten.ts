/**
 * Encoded data under a smaller max length, without encoding it again.
 * @module
 */
import type { EncodedCompletion, EncodedPair, EncodeOptions } from "./encoded.ts";
import { commonLength } from "./encode_texts.ts";
import { truncateSides } from "./truncate.ts";

/**
 * Pairs as {@link encodePairs} would have made them with a smaller max length.
 *
 * @param pairs already encoded
 * @param maxLength most tokens of prompt and completion together
 * @param options what is kept of longer ones, as they were encoded
 * @returns the pairs with room for both parts, whose sides still differ
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "example" };
 * const chosen = { promptIds: [1, 2], completionIds: [3, 4, 5], source };
 * const rejected = { promptIds: [1, 2], completionIds: [3, 5], source };
 * const [pair] = shortenPairs([{ chosen, rejected, source }], 4);
 * assert.deepEqual(pair.chosen.completionIds, [3, 4]);
 * assert.equal(shortenPairs([pair], 3).length, 0); // both sides are 3
 * ```
 */
export function shortenPairs(
  pairs: readonly EncodedPair[],
  maxLength: number,
  options: Pick<EncodeOptions, "truncation"> & { bosTokenId?: number } = {},
): EncodedPair[] {
  const { truncation = "keep_start", bosTokenId } = options;
  return pairs.flatMap((pair) => {
    const fitted = truncateSides([pair.chosen, pair.rejected], { maxLength, truncation, bosTokenId });
    if (fitted.kind === "overlong") return [];
    const [chosen, rejected] = fitted.sides.map(({ lost: _, ...side }) => side);
    return sameIds(chosen, rejected) ? [] : [{ ...pair, chosen, rejected }];
  });
}

/**
 * Completions under a smaller max length.
 *
 * @param completions already encoded
 * @param maxLength most tokens of prompt and completion together
 * @param options what is kept of longer ones, as they were encoded
 * @returns those with room for both parts, with what else is known of each
 */
export function shortenCompletions<Completion extends EncodedCompletion>(
  completions: readonly Completion[],
  maxLength: number,
  options: Pick<EncodeOptions, "truncation"> & { bosTokenId?: number } = {},
): Completion[] {
  const { truncation = "keep_start", bosTokenId } = options;
  return completions.flatMap((one) => {
    const fitted = truncateSides([one], { maxLength, truncation, bosTokenId });
    return fitted.kind === "overlong"
      ? []
      : fitted.sides.map(({ lost: _, ...side }) => side as unknown as Completion);
  });
}

/** Whether two texts are the same ids, wherever their prompts end. */
export function sameIds(a: EncodedCompletion, b: EncodedCompletion): boolean {
  const left = [...a.promptIds, ...a.completionIds];
  const right = [...b.promptIds, ...b.completionIds];
  return left.length === right.length && commonLength(left, right) === left.length;
}
