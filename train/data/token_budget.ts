/**
 * Items of a batch in micro-batches of a bounded number of tokens.
 * @module
 */
import type { BatchSize } from "./batch.ts";
import { DataError } from "./errors.ts";

/**
 * Split a batch, in its order, so that no part has more tokens than the budget. Each part takes as many items as fit.
 *
 * @param items the batch
 * @param options.maxTokens the budget
 * @param options.size what items take when packed together
 * @param options.source an item's place, for the error
 * @returns parts, together the batch
 * @throws {DataError} an item that is larger than the budget alone
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const lengths = [3, 3, 5, 1];
 * const parts = splitByTokens(Uint32Array.of(0, 1, 2, 3), {
 *   maxTokens: 6,
 *   size: (items) => ({ tokens: items.reduce((sum, item) => sum + lengths[item], 0), labels: 0 }),
 *   source: (item) => `a.jsonl:${item + 1}`,
 * });
 * assert.deepEqual(parts.map((part) => [...part]), [[0, 1], [2, 3]]);
 * ```
 */
export function splitByTokens(
  items: Uint32Array,
  options: {
    maxTokens: number;
    size: (items: Uint32Array) => BatchSize;
    source: (item: number) => string;
  },
): Uint32Array[] {
  const { maxTokens, size, source } = options;
  const parts: Uint32Array[] = [];
  let [start, tokens] = [0, 0];
  items.forEach((item, end) => {
    const more = size(items.subarray(end, end + 1)).tokens;
    if (more > maxTokens) {
      throw new DataError(
        `Cannot fit ${source(item)} into a micro-batch: expected at most ${maxTokens} tokens, found ${more}`,
      );
    }
    if (tokens + more > maxTokens) {
      parts.push(items.subarray(start, end));
      [start, tokens] = [end, 0];
    }
    tokens += more;
  });
  return [...parts, items.subarray(start)];
}
