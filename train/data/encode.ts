/**
 * Records as token ids, with counts of what was changed or left out.
 * @module
 */
import type { ConversationRecord } from "./conversations.ts";
import { accept, nothingLeft, zeroCounts } from "./encode_counts.ts";
import type {
  CompletionExample,
  EncodeCounts,
  Encoded,
  EncodedCompletion,
  EncodedPair,
  EncodeOptions,
} from "./encoded.ts";
import { bosOf, completionEncoder, withBos } from "./encode_texts.ts";
import { DataError, formatSource, type RecordSource } from "./errors.ts";
import type { PreferenceRecord } from "./forms.ts";
import { isConversation, renderSides } from "./rendered_records.ts";
import { sameIds } from "./shorten.ts";

export type {
  CompletionExample,
  EncodeCounts,
  EncodedCompletion,
  EncodedExample,
  EncodedPair,
  EncodeOptions,
  EncodingTokenizer,
  TextLength,
} from "./encoded.ts";

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
