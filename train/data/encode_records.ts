/**
 * Records of one completion each as token ids.
 * @module
 */
import type { CompletionRecord } from "./completion_records.ts";
import { accept, nothingLeft, zeroCounts } from "./encode_counts.ts";
import { completionEncoder } from "./encode_texts.ts";
import type { EncodeCounts, EncodedCompletion, EncodedExample, EncodeOptions } from "./encoded.ts";
import { renderMessages } from "./rendered_records.ts";
import type { ChatMessage } from "./chat_template.ts";

/**
 * Encode records of one completion each; those of messages through the tokenizer's chat template. Of a text that is
 * learnt whole, the first token is given where the tokenizer adds no BOS: nothing predicts it.
 *
 * @param records as read; at least one
 * @param options see {@linkcode EncodeOptions}
 * @returns the completions in the records' order, with what the records say of them; and counts
 * @throws {DataError} as {@linkcode encodePairs}
 * @throws {RangeError} options out of range
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const tokenizer = { encode: (text: string) => Array.from(text, (c) => c.codePointAt(0)!), eosTokenId: 0 };
 * const record = { prompt: "1+1=", completion: "3", desirable: false, source: { file: "a.jsonl", line: 1 } };
 * const { examples } = encodeRecords([record], { tokenizer, vocabSize: 128, maxLength: 16 });
 * assert.deepEqual(examples[0].completionIds, [51, 0]);
 * assert.equal(examples[0].desirable, false);
 * ```
 */
export function encodeRecords<Record extends CompletionRecord>(
  records: readonly Record[],
  options: EncodeOptions,
): {
  examples: (Record extends { desirable: boolean } ? EncodedExample : EncodedCompletion)[];
  counts: EncodeCounts;
} {
  const encode = completionEncoder(options);
  const counts = zeroCounts();
  const examples: EncodedCompletion[] = [];
  for (const record of records) {
    const { prompt, completion, desirable, source } = record;
    const text = typeof prompt === "string"
      ? { prompt, completion: completion as string, source }
      : renderMessages(
        { ...record, prompt, completion: completion as ChatMessage[] },
        options.tokenizer.chatTemplate,
      );
    const encoded = accept(encode([text]), counts);
    if (encoded === undefined) continue;
    examples.push(desirable === undefined ? encoded[0] : { ...encoded[0], desirable } as EncodedExample);
  }
  if (examples.length === 0) throw nothingLeft(records, { counts, maxLength: options.maxLength });
  // deno-lint-ignore no-explicit-any -- the records' type says whether each has a label
  return { examples: examples as any, counts };
}
