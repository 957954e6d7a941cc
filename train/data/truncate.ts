/**
 * What fits into a max length: a text loses the end of its completion, or the start of its prompt.
 * @module
 */

/** Which part of a text that is too long is kept, as TRL's `truncation_mode`. */
export const TRUNCATIONS: readonly ["keep_start", "keep_end"] = ["keep_start", "keep_end"];

/**
 * `keep_start`: the completion loses its end, and EOS with it. `keep_end`: the prompt loses its start but for BOS; both
 * sides of a pair lose the same, so that they still have one prompt.
 */
export type Truncation = "keep_start" | "keep_end";

/** A text as tokens, cut in two. */
export interface TokenSplit {
  /** Given tokens. */
  promptIds: number[];
  /** Predicted tokens. */
  completionIds: number[];
  /** Whether each of them is learnt, where not all are. */
  labelMask?: boolean[];
}

/** What became of texts: shortened where they had to be, or the part that leaves no room for a token of the other. */
export type Truncated<Side extends TokenSplit> =
  | { kind: "ok"; sides: (Side & { lost: "nothing" | "prompt" | "completion" })[] }
  | { kind: "overlong"; part: "prompt" | "completion"; length: number };

/**
 * Shorten the texts of one record to a max length.
 *
 * @param sides one text, or both of a pair; each with a token of prompt and of completion
 * @param options.maxLength most tokens of a text, at least 2
 * @param options.truncation what is kept
 * @param options.bosTokenId kept at the start of a prompt that has it
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const side = { promptIds: [1, 2, 3], completionIds: [4, 5] };
 * const end = truncateSides([side], { maxLength: 4, truncation: "keep_end", bosTokenId: 1 });
 * assert.deepEqual(end, { kind: "ok", sides: [{ promptIds: [1, 3], completionIds: [4, 5], lost: "prompt" }] });
 * const start = truncateSides([side], { maxLength: 4, truncation: "keep_start" });
 * assert.deepEqual(start, { kind: "ok", sides: [{ promptIds: [1, 2, 3], completionIds: [4], lost: "completion" }] });
 * ```
 */
export function truncateSides<Side extends TokenSplit>(
  sides: readonly Side[],
  options: { maxLength: number; truncation: Truncation; bosTokenId?: number },
): Truncated<Side> {
  const { maxLength, truncation, bosTokenId } = options;
  if (truncation === "keep_start") return cutCompletions(sides, maxLength);
  const lengths = sides.map(({ promptIds, completionIds }) => promptIds.length + completionIds.length);
  const excess = Math.max(0, ...lengths.map((length) => length - maxLength));
  const full = sides.find(({ promptIds }) => excess >= promptIds.length);
  if (full) {
    const length = Math.max(...sides.map(({ completionIds }) => completionIds.length));
    return { kind: "overlong", part: "completion", length };
  }
  const shorten = (ids: number[]) =>
    ids[0] === bosTokenId ? [ids[0], ...ids.slice(1 + excess)] : ids.slice(excess);
  const lost = excess > 0 ? "prompt" : "nothing";
  return { kind: "ok", sides: sides.map((side) => ({ ...side, promptIds: shorten(side.promptIds), lost })) };
}

function cutCompletions<Side extends TokenSplit>(sides: readonly Side[], maxLength: number): Truncated<Side> {
  const full = sides.find(({ promptIds }) => promptIds.length >= maxLength);
  if (full) return { kind: "overlong", part: "prompt", length: full.promptIds.length };
  const shortened = sides.map((side) => {
    const room = maxLength - side.promptIds.length;
    const lost = side.completionIds.length > room ? "completion" as const : "nothing" as const;
    return { ...side, ...cutCompletion(side, room), lost };
  });
  return { kind: "ok", sides: shortened };
}

/**
 * The first tokens of a completion; what nothing is learnt from after them is left out, too.
 *
 * @param side whose completion it is
 * @param room most tokens
 */
export function cutCompletion(
  { completionIds, labelMask }: TokenSplit,
  room: number,
): Pick<TokenSplit, "completionIds" | "labelMask"> {
  if (labelMask === undefined) return { completionIds: completionIds.slice(0, room) };
  const length = labelMask.slice(0, room).lastIndexOf(true) + 1;
  return { completionIds: completionIds.slice(0, length), labelMask: labelMask.slice(0, length) };
}
