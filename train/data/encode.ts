/**
 * Records as token ids: prompt and completion cut apart exactly, special tokens once, lengths kept.
 *
 * The boundary rule: prompt + completion is encoded as one text, since that is the text a model is asked to continue,
 * and the tokens it shares with the encoded prompt, from the left, are the prompt. A token that a tokenizer merges
 * across the boundary therefore belongs to the completion, with all of its text, and the two sides of a pair may have
 * prompts of different lengths.
 * @module
 */
import type { ChatTemplate } from "./chat_template.ts";
import type { ConversationRecord } from "./conversations.ts";
import { DataError, formatSource, type RecordSource } from "./errors.ts";
import type { PreferenceRecord } from "./forms.ts";
import { isConversation, type RenderedExample, renderSides } from "./rendered_records.ts";
import { truncateSides, type Truncation } from "./truncate.ts";

/** The part of a tokenizer that encoding needs. */
export interface EncodingTokenizer {
  /** Token ids of a text, with what the tokenizer itself adds around it unless told not to. */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[];
  /** The id that starts a text, where there is one; having one does not mean that the tokenizer adds it. */
  bosTokenId?: number;
  /** The id that ends a text, where there is one. */
  eosTokenId?: number;
  /** How conversations become text, for records of messages. */
  chatTemplate?: ChatTemplate;
}

/** A text to train on, before encoding. */
export interface CompletionExample {
  /** What is given. */
  prompt: string;
  /** What is to be predicted after it. */
  completion: string;
  /** Where it comes from, for errors. */
  source: RecordSource;
}

/** One text to train on: what is given and what is to be predicted. */
export interface EncodedCompletion {
  /** Given tokens, BOS included where there is one; at least one. */
  promptIds: number[];
  /** Predicted tokens, EOS included unless cut off; at least one. */
  completionIds: number[];
  /** Where it comes from, for errors. */
  source: RecordSource;
}

/** A preference as token ids. The prompts differ only where a token was merged across the boundary. */
export interface EncodedPair {
  /** The preferred side. */
  chosen: EncodedCompletion;
  /** The other side. */
  rejected: EncodedCompletion;
  /** Where the pair comes from, for errors. */
  source: RecordSource;
  /** By how much the preferred side is better, where the data says so; of all pairs or of none. */
  margin?: number;
  /** Summed log-prob of the preferred side under a reference, in nats, where the data has it; of all pairs or of none. */
  referenceChosen?: number;
  /** Summed log-prob of the other side under that reference. */
  referenceRejected?: number;
}

/** A text with a verdict of its own, as KTO learns from. */
export interface EncodedExample extends EncodedCompletion {
  /** Whether the completion is a good one. */
  desirable: boolean;
}

/** How records are encoded. */
export interface EncodeOptions {
  /** What turns text into ids. */
  tokenizer: EncodingTokenizer;
  /** The model's vocabulary; an id beyond it would read outside the embedding. */
  vocabSize: number;
  /** Most tokens of prompt and completion together, at least 2. */
  maxLength: number;
  /** What is kept of longer ones: the start (the default; a completion loses its end, and with it EOS), or the end. */
  truncation?: Truncation;
  /** What to do with a part that leaves no room for a token of the other: refuse (the default), or leave out and count. */
  overlong?: "error" | "drop";
  /** Start with BOS. Default: as the tokenizer itself does when asked for special tokens; its template for messages. */
  addBos?: boolean;
  /** End the completion with EOS. Default: where the tokenizer has one. Messages end as their template has it. */
  addEos?: boolean;
}

/** What became of the records. A pair counts once in `dropped...`; the others count texts, two of each pair. */
export interface EncodeCounts {
  /** Completions whose first token also holds the prompt's end. */
  repairedBoundary: number;
  /** Completions that lost their end to `maxLength`. */
  truncated: number;
  /** Prompts that lost their start to `maxLength`. */
  truncatedPrompt: number;
  /** Records left out because one part leaves no room for the other. */
  droppedOverlong: number;
  /** Records left out because a completion has no token of its own. */
  droppedEmpty: number;
  /** Pairs left out because both sides became the same ids, by truncation or because the tokenizer maps them alike. */
  droppedIdentical: number;
}

/** A record's texts, or why it is left out. */
export type Encoded =
  | {
    kind: "ok";
    completions: EncodedCompletion[];
    repaired: number;
    truncated: number;
    truncatedPrompt: number;
  }
  | { kind: "overlong" | "empty" };

/**
 * Encode preference records. Records of messages are rendered through the tokenizer's chat template, as TRL does: the
 * prompt up to where the assistant begins, and as completion what the whole conversation has after it, the tokens that
 * end the turn included. They get no other BOS or EOS than the template writes.
 *
 * @param records as read; at least one
 * @param options see {@linkcode EncodeOptions}
 * @returns the pairs in the records' order, and counts of what was changed or left out
 * @throws {DataError} a prompt that leaves no room (with `overlong: "error"`) or has no token; a token id the model does
 *   not have; no pair left; messages without a chat template, or that it refuses
 * @throws {RangeError} options out of range
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const tokenizer = { encode: (text: string) => Array.from(text, (c) => c.codePointAt(0)!), eosTokenId: 0 };
 * const record = { prompt: "1+1=", chosen: "2", rejected: "3", source: { file: "a.jsonl", line: 1 } };
 * const { pairs } = encodePairs([record], { tokenizer, vocabSize: 128, maxLength: 16 });
 * assert.deepEqual(pairs[0].chosen.completionIds, [50, 0]);
 * ```
 */
export function encodePairs(
  records: readonly (PreferenceRecord | ConversationRecord)[],
  options: EncodeOptions,
): { pairs: EncodedPair[]; counts: EncodeCounts } {
  const encode = completionEncoder(options);
  const counts = zeroCounts();
  const pairs: EncodedPair[] = [];
  for (const record of records) {
    const { source } = record;
    const sides = isConversation(record)
      ? renderSides(record, options.tokenizer.chatTemplate)
      : [record.chosen, record.rejected].map((completion) => ({ prompt: record.prompt, completion, source }));
    const encoded = encode(sides);
    const accepted = accept(encoded, counts);
    if (accepted === undefined) continue;
    if (sameIds(accepted[0], accepted[1])) {
      counts.droppedIdentical++;
      continue;
    }
    const columns = columnsOf(record);
    if (columns.referenceChosen !== undefined && lostTokens(encoded)) throw staleReference(source, options);
    pairs.push({ chosen: accepted[0], rejected: accepted[1], source, ...columns });
  }
  if (pairs.length === 0) throw nothingLeft(records, { counts, maxLength: options.maxLength });
  return { pairs, counts };
}

/**
 * Encode prompts with one completion each, for supervised fine-tuning.
 *
 * @param examples texts; at least one
 * @param options see {@linkcode EncodeOptions}
 * @returns the completions in the examples' order, and counts of what was changed or left out
 * @throws {DataError} as {@linkcode encodePairs}
 * @throws {RangeError} options out of range
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const tokenizer = { encode: (text: string) => Array.from(text, (c) => c.codePointAt(0)!), eosTokenId: 0 };
 * const example = { prompt: "1+1=", completion: "2", source: { file: "a.jsonl", line: 1 } };
 * const { completions } = encodeCompletions([example], { tokenizer, vocabSize: 128, maxLength: 16 });
 * assert.deepEqual(completions[0].promptIds, [49, 43, 49, 61]);
 * assert.deepEqual(completions[0].completionIds, [50, 0]);
 * ```
 */
export function encodeCompletions(
  examples: readonly CompletionExample[],
  options: EncodeOptions,
): { completions: EncodedCompletion[]; counts: EncodeCounts } {
  const encode = completionEncoder(options);
  const counts = zeroCounts();
  const completions = examples.flatMap((example) => accept(encode([example]), counts) ?? []);
  if (completions.length === 0) throw nothingLeft(examples, { counts, maxLength: options.maxLength });
  return { completions, counts };
}

/**
 * Encode a prompt alone, as it stands in front of a completion, for generation.
 *
 * @param prompt the text to continue
 * @param options the tokenizer, and BOS as in {@linkcode EncodeOptions}
 * @returns token ids, BOS included where there is one
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { characterTokenizerFiles } from "./character_tokenizer.ts";
 * import { createTokenizer } from "./tokenizer.ts";
 *
 * const tokenizer = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * assert.deepEqual(encodePrompt("1+0", { tokenizer }), [1, 2, 0]); // no end: it is to be continued
 * ```
 */
export function encodePrompt(prompt: string, options: Pick<EncodeOptions, "tokenizer" | "addBos">): number[] {
  return withBos(options.tokenizer.encode(prompt, { addSpecialTokens: false }), bosOf(options));
}

function bosOf({ tokenizer, addBos }: Pick<EncodeOptions, "tokenizer" | "addBos">): number | undefined {
  const { bosTokenId } = tokenizer;
  if (addBos === true && bosTokenId === undefined) {
    throw new RangeError("Cannot add BOS: expected a tokenizer that has one, found none");
  }
  // GPT-2 has a BOS id and does not use it, Llama does: only the tokenizer's own template tells.
  const adds = addBos ??
    (bosTokenId !== undefined && tokenizer.encode("", { addSpecialTokens: true })[0] === bosTokenId);
  return adds ? bosTokenId : undefined;
}

function withBos(ids: number[], bos: number | undefined): number[] {
  return bos === undefined || ids[0] === bos ? ids : [bos, ...ids];
}

/** Check the options once, and return what encodes the texts of one record after another. */
export function completionEncoder(
  options: EncodeOptions,
): (examples: readonly (CompletionExample | RenderedExample)[]) => Encoded {
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
  return (examples) => {
    const sides = examples.map((example) => {
      const special = "isRendered" in example ? { bos: undefined, eos: undefined } : ofText;
      const split = splitAtBoundary(example, { tokenizer, vocabSize, ...special });
      const { completionIds } = split;
      const isEmpty = completionIds.length === 0;
      if (special.eos !== undefined && completionIds.at(-1) !== special.eos) completionIds.push(special.eos);
      return { ...split, isEmpty };
    });
    if (sides.some(({ isEmpty }) => isEmpty)) return { kind: "empty" };
    const fitted = truncateSides(sides, { maxLength, truncation, bosTokenId: tokenizer.bosTokenId });
    if (fitted.kind === "overlong") {
      if (overlong === "drop") return { kind: "overlong" };
      throw noRoom(examples[0].source, { ...fitted, maxLength });
    }
    const lost = (part: "prompt" | "completion") => fitted.sides.filter((side) => side.lost === part).length;
    return {
      kind: "ok",
      completions: fitted.sides.map(({ promptIds, completionIds }, i) => {
        return { promptIds, completionIds, source: examples[i].source };
      }),
      repaired: fitted.sides.filter(({ repaired }) => repaired).length,
      truncated: lost("completion"),
      truncatedPrompt: lost("prompt"),
    };
  };
}

function columnsOf(
  record: PreferenceRecord | ConversationRecord,
): Pick<EncodedPair, "margin" | "referenceChosen" | "referenceRejected"> {
  const { margin, referenceChosen, referenceRejected } = record;
  return {
    ...(margin === undefined ? {} : { margin }),
    ...(referenceChosen === undefined ? {} : { referenceChosen, referenceRejected }),
  };
}

function lostTokens(encoded: Encoded): boolean {
  return encoded.kind === "ok" && encoded.truncated + encoded.truncatedPrompt > 0;
}

/** A log-prob of the whole text is not that of what is left of it. */
function staleReference(source: RecordSource, { maxLength }: EncodeOptions): DataError {
  return new DataError(
    `Cannot encode ${
      formatSource(source)
    }: expected texts within the max length of ${maxLength} tokens, as the ` +
      "reference log-probs in the data are of whole texts, found a longer one",
  );
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

function commonLength(a: readonly number[], b: readonly number[]): number {
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

/** Nothing counted yet. */
export function zeroCounts(): EncodeCounts {
  return {
    repairedBoundary: 0,
    truncated: 0,
    truncatedPrompt: 0,
    droppedOverlong: 0,
    droppedEmpty: 0,
    droppedIdentical: 0,
  };
}

/** Take a record or count why not, so that counts of changes speak only of what is trained on. */
export function accept(encoded: Encoded, counts: EncodeCounts): EncodedCompletion[] | undefined {
  if (encoded.kind !== "ok") {
    counts[encoded.kind === "overlong" ? "droppedOverlong" : "droppedEmpty"]++;
    return undefined;
  }
  counts.repairedBoundary += encoded.repaired;
  counts.truncated += encoded.truncated;
  counts.truncatedPrompt += encoded.truncatedPrompt;
  return encoded.completions;
}

function sameIds(a: EncodedCompletion, b: EncodedCompletion): boolean {
  const left = [...a.promptIds, ...a.completionIds];
  const right = [...b.promptIds, ...b.completionIds];
  return left.length === right.length && commonLength(left, right) === left.length;
}

/** Of records that are all left out. */
export function nothingLeft(
  records: readonly { source: RecordSource }[],
  found: { counts: EncodeCounts; maxLength: number },
): DataError {
  const { counts, maxLength } = found;
  const name = records.length > 0 ? records[0].source.file : "records";
  return new DataError(
    `Cannot encode ${name}: expected a usable record, found ${records.length}, of which ${counts.droppedOverlong} ` +
      `with a prompt that leaves no room in ${maxLength} tokens, ${counts.droppedEmpty} empty, ` +
      `${counts.droppedIdentical} identical as tokens`,
  );
}
