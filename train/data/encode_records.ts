/**
 * Records of one completion each as token ids.
 * @module
 */
import { encodeChat, renderAssistantSpans } from "./chat_mask.ts";
import type { ChatMessage } from "./chat_template.ts";
import type { CompletionRecord } from "./completion_records.ts";
import { accept, nothingLeft, zeroCounts } from "./encode_counts.ts";
import { completionEncoder, type SplitExample } from "./encode_texts.ts";
import type {
  CompletionExample,
  EncodeCounts,
  EncodedCompletion,
  EncodedExample,
  EncodeOptions,
} from "./encoded.ts";
import { DataError, formatSource } from "./errors.ts";
import { renderMessages } from "./rendered_records.ts";

/** How records of one completion are encoded. */
export type EncodeRecordsOptions = EncodeOptions & {
  /**
   * Learn what the assistant says in a completion of messages, and nothing else of it: what the template marks with
   * `{% generation %}`, or what rendering its messages adds (TRL's option). Records without messages are refused.
   */
  assistantOnlyLoss?: boolean;
};

/**
 * Encode records of one completion each; those of messages through the tokenizer's chat template. Of a text that is
 * learnt whole, the first token is given where the tokenizer adds no BOS: nothing predicts it.
 *
 * @param records as read; at least one
 * @param options see {@linkcode EncodeRecordsOptions}
 * @returns the completions in the records' order, with what the records say of them; and counts
 * @throws {DataError} as {@linkcode encodePairs}, and a record without messages with `assistantOnlyLoss`
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
  options: EncodeRecordsOptions,
): {
  examples: (Record extends { desirable: boolean } ? EncodedExample : EncodedCompletion)[];
  counts: EncodeCounts;
} {
  const encode = completionEncoder(options);
  const counts = zeroCounts();
  const examples: EncodedCompletion[] = [];
  for (const record of records) {
    const { desirable } = record;
    const text = options.assistantOnlyLoss ? splitTurns(record, options) : textOf(record, options);
    const encoded = accept(encode([text]), counts);
    if (encoded === undefined) continue;
    examples.push(desirable === undefined ? encoded[0] : { ...encoded[0], desirable } as EncodedExample);
  }
  if (examples.length === 0) throw nothingLeft(records, { counts, maxLength: options.maxLength });
  // deno-lint-ignore no-explicit-any -- the records' type says whether each has a label
  return { examples: examples as any, counts };
}

function textOf(record: CompletionRecord, { tokenizer }: EncodeOptions): CompletionExample {
  const { prompt, completion, source } = record;
  if (typeof prompt === "string") return { prompt, completion: completion as string, source };
  return renderMessages(
    { ...record, prompt, completion: completion as ChatMessage[] },
    tokenizer.chatTemplate,
  );
}

/** A completion of messages, cut before the first token that is the assistant's. */
function splitTurns(
  record: CompletionRecord,
  { tokenizer }: EncodeOptions,
): SplitExample {
  const { prompt, completion, tools, variables, source } = record;
  if (typeof prompt === "string" || typeof completion === "string") {
    throw new DataError(
      `Cannot encode ${formatSource(source)}: expected messages with assistantOnlyLoss, found texts`,
    );
  }
  const { decode } = tokenizer;
  if (decode === undefined) {
    throw new RangeError("Cannot find the assistant's tokens: expected a tokenizer that decodes, found none");
  }
  // Refuses records without a template, and finds where the completion begins.
  const before = renderMessages({ ...record, prompt, completion }, tokenizer.chatTemplate).prompt.length;
  try {
    const { text, spans } = renderAssistantSpans(tokenizer.chatTemplate!, [...prompt, ...completion], {
      tools,
      variables,
    });
    const own = spans.filter(([, end]) => end > before)
      .map(([start, end]): [number, number] => [Math.max(start, before), end]);
    const { ids, assistantMask } = encodeChat({ encode: tokenizer.encode, decode }, { text, spans: own });
    const end = assistantMask.lastIndexOf(true) + 1;
    // Nothing predicts the first token of a text.
    const start = Math.max(1, assistantMask.indexOf(true, 1));
    return {
      promptIds: ids.slice(0, start),
      completionIds: ids.slice(start, end),
      labelMask: assistantMask.slice(start, end),
      source,
    };
  } catch (cause) {
    throw new DataError(`Cannot encode ${formatSource(source)}: ${(cause as Error).message}`, { cause });
  }
}
