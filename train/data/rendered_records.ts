/**
 * Records of messages as the text that a model's chat template makes of them.
 *
 * @module
 */
import { renderCompletion } from "./chat_mask.ts";
import type { ChatMessage, ChatTemplate } from "./chat_template.ts";
import type { ConversationRecord } from "./conversations.ts";
import type { CompletionExample } from "./encoded.ts";
import { DataError, formatSource } from "./errors.ts";
import type { PreferenceRecord } from "./forms.ts";

/** A text to train on whose special tokens stand in it. */
export interface RenderedExample extends CompletionExample {
  /** Tells it from plain text. */
  isRendered: true;
}

/** Whether a record's texts are messages. */
export function isConversation(record: PreferenceRecord | ConversationRecord): record is ConversationRecord {
  return typeof record.prompt !== "string";
}

/**
 * Render both sides of a record of messages.
 *
 * @param record the record
 * @param template the tokenizer's chat template
 * @returns the preferred side, then the other
 * @throws {DataError} no template, or one that refuses the messages; naming the record
 */
export function renderSides(
  record: ConversationRecord,
  template: ChatTemplate | undefined,
): RenderedExample[] {
  const { chosen, rejected } = record;
  return [chosen, rejected].map((completion) => renderMessages({ ...record, completion }, template));
}

/** A conversation and what continues it. */
type Conversation = Omit<ConversationRecord, "chosen" | "rejected"> & { completion: ChatMessage[] };

/**
 * Render a conversation and its continuation.
 *
 * @param record both
 * @param template the tokenizer's chat template
 * @throws {DataError} no template, or one that refuses the messages; naming the record
 */
export function renderMessages(record: Conversation, template: ChatTemplate | undefined): RenderedExample {
  const { prompt, completion, tools, variables, source } = record;
  if (template === undefined) {
    throw new DataError(
      `Cannot encode ${
        formatSource(source)
      }: expected a tokenizer with a chat template for its messages, found one ` +
        `without (no chat_template.jinja, no chat_template in tokenizer_config.json)`,
    );
  }
  try {
    const texts = renderCompletion(template, { prompt, completion }, { tools, variables });
    return { ...texts, source, isRendered: true };
  } catch (cause) {
    throw new DataError(`Cannot encode ${formatSource(source)}: ${(cause as Error).message}`, { cause });
  }
}
