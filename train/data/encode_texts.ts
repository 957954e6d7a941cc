/**
 * Texts of one record as token ids: prompt and completion cut apart exactly, special tokens once, lengths kept.
 *
 * The boundary rule: prompt + completion is encoded as one text, since that is the text a model is asked to continue,
 * and the tokens it shares with the encoded prompt, from the left, are the prompt. A token that a tokenizer merges
 * across the boundary therefore belongs to the completion, with all of its text, and the two sides of a pair may have
 * prompts of different lengths.
 * @module
 */
import type { CompletionExample, Encoded, EncodeOptions, EncodingTokenizer } from "./encoded.ts";
import { DataError, formatSource, type RecordSource } from "./errors.ts";
import type { RenderedExample } from "./rendered_records.ts";
import { type TokenSplit, truncateSides } from "./truncate.ts";

/** The id that a text starts with, where it does. */
export function bosOf(
  { tokenizer, addBos }: Pick<EncodeOptions, "tokenizer" | "addBos">,
): number | undefined {
  const { bosTokenId } = tokenizer;
  if (addBos === true && bosTokenId === undefined) {
    throw new RangeError("Cannot add BOS: expected a tokenizer that has one, found none");
  }
  // GPT-2 has a BOS id and does not use it, Llama does: only the tokenizer's own template tells.
  const adds = addBos ??
    (bosTokenId !== undefined && tokenizer.encode("", { addSpecialTokens: true })[0] === bosTokenId);
  return adds ? bosTokenId : undefined;
}

/** Ids with BOS before them, once. */
export function withBos(ids: number[], bos: number | undefined): number[] {
  return bos === undefined || ids[0] === bos ? ids : [bos, ...ids];
}

/** A text whose tokens are cut apart already. */
export interface SplitExample extends TokenSplit {
  /** Where it comes from, for errors. */
  source: RecordSource;
}

/** Check the options once, and return what encodes the texts of one record after another. */
export function completionEncoder(
  options: EncodeOptions,
): (examples: readonly (CompletionExample | RenderedExample | SplitExample)[]) => Encoded {
  const { tokenizer, vocabSize, maxLength, overlong = "error", addEos = tokenizer.eosTokenId !== undefined } =
    options;
  const { truncation = "keep_start" } = options;
  if (!Number.isInteger(maxLength) || maxLength < 2) {
    throw new RangeError(`Cannot encode records: expected a maxLength of at least 2, found ${maxLength}`);
  }
  if (!Number.isInteger(vocabSize) || vocabSize < 1) {
    throw new RangeError(`Cannot encode records: expected a vocabSize of at least 1, found ${vocabSize}`);
  }
  if (addEos && tokenizer.eosTokenId === undefined) {
    throw new RangeError("Cannot add EOS: expected a tokenizer that has one, found none");
  }
  const ofText = { bos: bosOf(options), eos: addEos ? tokenizer.eosTokenId : undefined };
  let index = 0;
  return (examples) => {
    const sides = examples.map((example) => {
      if ("promptIds" in example) return alreadySplit(example, vocabSize);
      const special = "isRendered" in example ? { bos: undefined, eos: undefined } : ofText;
      const split = splitAtBoundary(example, { tokenizer, vocabSize, ...special });
      const { completionIds } = split;
      const isEmpty = completionIds.length === 0;
      if (special.eos !== undefined && completionIds.at(-1) !== special.eos) completionIds.push(special.eos);
      return { ...split, isEmpty };
    });
    options.onLengths?.(
      sides.map(({ promptIds, completionIds }) => ({
        prompt: promptIds.length,
        completion: completionIds.length,
      })),
      index++,
    );
    if (sides.some(({ isEmpty }) => isEmpty)) return { kind: "empty" };
    const fitted = truncateSides(sides, { maxLength, truncation, bosTokenId: tokenizer.bosTokenId });
    if (fitted.kind === "overlong") {
      if (overlong === "drop") return { kind: "overlong" };
      throw noRoom(examples[0].source, { ...fitted, maxLength });
    }
    const lost = (part: "prompt" | "completion") => fitted.sides.filter((side) => side.lost === part).length;
    return {
      kind: "ok",
      completions: fitted.sides.map(({ promptIds, completionIds, labelMask }, i) => {
        const { source } = examples[i];
        return { promptIds, completionIds, ...(labelMask ? { labelMask } : {}), source };
      }),
      repaired: fitted.sides.filter(({ repaired }) => repaired).length,
      truncated: lost("completion"),
      truncatedPrompt: lost("prompt"),
    };
  };
}

function splitAtBoundary(
  example: CompletionExample,
  options: { tokenizer: EncodingTokenizer; vocabSize: number; bos?: number; eos?: number },
): { promptIds: number[]; completionIds: number[]; repaired: boolean } {
  const { prompt, completion, source } = example;
  const encode = (text: string) => {
    try {
      return withBos(options.tokenizer.encode(text, { addSpecialTokens: false }), options.bos);
    } catch (cause) {
      throw new DataError(`Cannot encode ${formatSource(source)}: ${(cause as Error).message}`, { cause });
    }
  };
  const alone = encode(prompt);
  const whole = encode(prompt + completion);
  checkIds(options.eos === undefined ? whole : [...whole, options.eos], {
    vocabSize: options.vocabSize,
    source,
  });
  // Without a token before it the first of a text cannot be predicted: it is given.
  const length = prompt === "" && alone.length === 0 ? Math.min(1, whole.length) : commonLength(alone, whole);
  if (length === 0 && whole.length > 0) throw noPrompt(source);
  return {
    promptIds: whole.slice(0, length),
    completionIds: whole.slice(length),
    repaired: length < alone.length,
  };
}

/** A split that was made elsewhere, its ids checked. */
function alreadySplit(
  { promptIds, completionIds, labelMask, source }: SplitExample,
  vocabSize: number,
): TokenSplit & { repaired: boolean; isEmpty: boolean } {
  checkIds([...promptIds, ...completionIds], { vocabSize, source });
  const isEmpty = completionIds.length === 0;
  return { promptIds, completionIds, ...(labelMask ? { labelMask } : {}), repaired: false, isEmpty };
}

/** How many ids two texts begin with alike. */
export function commonLength(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

function checkIds(ids: readonly number[], options: { vocabSize: number; source: RecordSource }): void {
  const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= options.vocabSize);
  if (bad === undefined) return;
  throw new DataError(
    `Cannot encode ${formatSource(options.source)}: expected token ids below the model's vocabulary of ` +
      `${options.vocabSize}, found ${bad}`,
  );
}

function noPrompt(source: RecordSource): DataError {
  return new DataError(
    `Cannot encode ${
      formatSource(source)
    }: expected a prompt of at least one token before the completion, found none`,
  );
}

function noRoom(
  source: RecordSource,
  found: { part: "prompt" | "completion"; length: number; maxLength: number },
): DataError {
  const { part, length, maxLength } = found;
  return new DataError(
    `Cannot encode ${formatSource(source)}: expected a ${part} shorter than the max length of ${maxLength} ` +
      `tokens, found ${length} tokens; with overlong "drop" (--overlong drop) such records are left out`,
  );
}
