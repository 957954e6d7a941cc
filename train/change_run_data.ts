/**
 * A run's data under other settings: what planning tries to make it fit.
 * @module
 */
import type { RunConfig } from "./config.ts";
import type { EncodedCompletion, EncodedPair } from "./data/encode.ts";
import { DataError } from "./data/errors.ts";
import type { MixturePart } from "./data/mixture.ts";
import { shortenCompletions, shortenPairs } from "./data/shorten.ts";
import type { RunData } from "./run_data.ts";

/**
 * The data under other settings, without reading it again.
 *
 * @param data of `readRunData`
 * @param change settings that only change memory and time; a smaller max length must leave room after every prompt
 */
export function changeRunData(
  data: RunData,
  change: Partial<Pick<RunConfig, "activationCheckpointing" | "gradientAccumulationSteps" | "maxLength">>,
): RunData {
  const changed = { ...data, config: { ...data.config, ...change } };
  const { maxLength } = change;
  if (maxLength === undefined) return changed;
  const { config: { truncation }, tokenizer: { bosTokenId }, parts } = data;
  const cutAll = <Item extends EncodedCompletion>(items: readonly Item[] = []) =>
    shortenCompletions(items, maxLength, { truncation, bosTokenId });
  const cutPairs = (pairs: readonly EncodedPair[]) =>
    shortenPairs(pairs, maxLength, { truncation, bosTokenId });
  const rest = { ...changed, maxLength, ...(data.sft ? { sft: cutAll(data.sft) } : {}) };
  if (data.examples) {
    const { items, sources } = cutParts(data.examples, parts, cutAll);
    return { ...rest, examples: items, evalExamples: cutAll(data.evalExamples), ...sources };
  }
  if (data.completions) {
    const { items, sources } = cutParts(data.completions, parts, cutAll);
    return { ...rest, completions: items, evalCompletions: cutAll(data.evalCompletions), ...sources };
  }
  const { items, sources } = cutParts(data.pairs, parts, cutPairs);
  return { ...rest, pairs: items, evalPairs: cutPairs(data.evalPairs), ...sources };
}

/** Items under another length, source by source: each may lose some. */
function cutParts<Item>(
  items: readonly Item[],
  parts: readonly MixturePart[] | undefined,
  cut: (items: readonly Item[]) => Item[],
): { items: Item[]; sources: { parts?: MixturePart[] } } {
  if (parts === undefined) return { items: cut(items), sources: {} };
  let start = 0;
  const pieces = parts.map(({ count }) => cut(items.slice(start, start += count)));
  if (pieces.some(({ length }) => length === 0)) {
    throw new DataError("Cannot shorten the data: expected items in every file, found one without");
  }
  const left = parts.map(({ weight }, index) => ({ weight, count: pieces[index].length }));
  return { items: pieces.flat(), sources: { parts: left } };
}
