/**
 * What of a rendered conversation is the assistant's: as spans of text, and as tokens.
 *
 * @module
 */
import { showFound } from "../errors.ts";
import {
  type ChatMessage,
  type ChatTemplate,
  ChatTemplateError,
  hasGenerationBlocks,
  renderChat,
  type RenderChatOptions,
  type RenderedChat,
  renderGeneration,
} from "./chat_template.ts";
import { createStreamDecoder } from "./stream_decoder.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** How the assistant's text is found. */
export interface AssistantSpansOptions extends RenderChatOptions {
  /**
   * `generation`: what the template marks with `{% generation %}`. `message`: for each assistant's message, what rendering
   * it adds after the prompt for it. Default: `generation` where the template has such blocks.
   */
  by?: "generation" | "message";
}

/** A conversation as tokens. */
export interface EncodedChat {
  /** `[T]` token ids. */
  ids: number[];
  /** `[T]` whether each is the assistant's, in whole or in part. */
  assistantMask: boolean[];
}

/** A prompt and what follows it, both as the template writes them. */
export interface RenderedCompletion {
  /** The conversation so far, up to where the assistant begins. */
  prompt: string;
  /** The assistant's message, with the tokens that end its turn. */
  completion: string;
}

/**
 * Renders a prompt and its answer. The answer is what the whole conversation has after the prompt alone.
 *
 * @param template The template.
 * @param conversation `prompt`: the messages before; `completion`: those to be learnt, at least one.
 * @param options As for `renderChat`; where the prompt ends with an assistant's message, it is to be continued.
 * @returns Both texts; joined they are the whole conversation.
 * @throws {ChatTemplateError} As `renderChat`, and when the template renders the prompt otherwise once the answer is there.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { createChatTemplate } from "./chat_template.ts";
 *
 * const source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}" +
 *   "{% if add_generation_prompt %}<assistant>{% endif %}";
 * const template = createChatTemplate(source, { source: "example" });
 * const prompt = [{ role: "user", content: "Hi" }];
 * const completion = [{ role: "assistant", content: "Hello" }];
 * assert.deepEqual(renderCompletion(template, { prompt, completion }), {
 *   prompt: "<user>Hi</s><assistant>",
 *   completion: "Hello</s>",
 * });
 * ```
 */
export function renderCompletion(
  template: ChatTemplate,
  conversation: { prompt: readonly ChatMessage[]; completion: readonly ChatMessage[] },
  options: RenderChatOptions = {},
): RenderedCompletion {
  const { prompt: before, completion } = conversation;
  const addGenerationPrompt = completion[0]?.role === "assistant";
  const prompt = renderChat(template, before, { ...options, addGenerationPrompt });
  const whole = renderChat(template, [...before, ...completion], { ...options, addGenerationPrompt: false });
  if (!whole.startsWith(prompt)) throw notAPrefix(template, { prefix: prompt, whole });
  return { prompt, completion: whole.slice(prompt.length) };
}

/**
 * Renders a conversation and finds the assistant's text.
 *
 * @param template The template.
 * @param messages The conversation.
 * @param options See {@link AssistantSpansOptions}.
 * @returns The text and its spans in order; with `message`, one for each assistant's message, from after the prompt for it
 *   to the end of its turn.
 * @throws {ChatTemplateError} As `renderChat`; with `message`, when the template renders the conversation up to a message
 *   otherwise than it does within the whole (templates that leave out earlier reasoning do); with `generation`, when the
 *   template has no such blocks.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { createChatTemplate } from "./chat_template.ts";
 *
 * const source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}" +
 *   "{% if add_generation_prompt %}<assistant>{% endif %}";
 * const template = createChatTemplate(source, { source: "example" });
 * const messages = [{ role: "user", content: "Hi" }, { role: "assistant", content: "Hello" }];
 * const { text, spans } = renderAssistantSpans(template, messages);
 * assert.deepEqual(spans.map(([start, end]) => text.slice(start, end)), ["Hello</s>"]);
 * ```
 */
export function renderAssistantSpans(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options: AssistantSpansOptions = {},
): RenderedChat {
  const { by = hasGenerationBlocks(template) ? "generation" : "message", ...rendering } = options;
  if (by === "generation") return renderGeneration(template, messages, rendering);
  const text = renderChat(template, messages, rendering);
  const spans: RenderedChat["spans"] = [];
  for (const [i, { role }] of messages.entries()) {
    if (role !== "assistant") continue;
    const start = i === 0 ? 0 : renderPrefix(messages.slice(0, i), true).length;
    spans.push([start, renderPrefix(messages.slice(0, i + 1), false).length]);
  }
  return { text, spans };

  function renderPrefix(part: readonly ChatMessage[], addGenerationPrompt: boolean): string {
    const prefix = renderChat(template, part, { ...rendering, addGenerationPrompt });
    if (text.startsWith(prefix)) return prefix;
    throw notAPrefix(template, { prefix, whole: text });
  }
}

function notAPrefix(template: ChatTemplate, texts: { prefix: string; whole: string }): ChatTemplateError {
  const { prefix, whole } = texts;
  let common = 0;
  while (common < prefix.length && prefix[common] === whole[common]) common++;
  const at = (text: string) => showFound(text.slice(Math.max(0, common - 20), common + 20));
  return new ChatTemplateError(
    `Cannot find the assistant's text by the chat template of ${template.source}: expected the messages before it to be ` +
      `rendered alike alone and within the whole conversation, found ${at(prefix)} alone and ${
        at(whole)
      } within it`,
  );
}

/**
 * Encodes a conversation, and tells the assistant's tokens. A token that holds text of both counts as the assistant's, as
 * in transformers.
 *
 * @param tokenizer The tokenizer.
 * @param chat A text with spans, from {@link renderAssistantSpans}.
 * @returns Ids and mask, without special tokens beyond those in the text.
 * @throws {ChatTemplateError} When the spans have no place in the tokens: decoding does not give the text back, and the
 *   text up to a span is cut otherwise alone than within the whole.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { characterTokenizerFiles } from "./character_tokenizer.ts";
 * import { createTokenizer } from "./tokenizer.ts";
 *
 * const tokenizer = createTokenizer(characterTokenizerFiles("01+=", { eos: "." }), { source: "generated" });
 * const { ids, assistantMask } = encodeChat(tokenizer, { text: "1+0=1.", spans: [[4, 6]] });
 * assert.deepEqual(ids, [1, 2, 0, 3, 1, 4]);
 * assert.deepEqual(assistantMask, [false, false, false, false, true, true]);
 * ```
 */
export function encodeChat(tokenizer: Pick<Tokenizer, "encode" | "decode">, chat: RenderedChat): EncodedChat {
  const ids = tokenizer.encode(chat.text, { addSpecialTokens: false });
  const isTextBack = tokenizer.decode(ids, { cleanUpTokenizationSpaces: false }) === chat.text;
  const assistantMask = isTextBack
    ? maskByText(tokenizer, { ids, spans: chat.spans })
    : maskByPrefix(tokenizer, { ids, chat });
  return { ids, assistantMask };
}

/** Each token's place in the text is that of its piece of the decoded text. */
function maskByText(
  tokenizer: Pick<Tokenizer, "decode">,
  context: { ids: number[]; spans: RenderedChat["spans"] },
): boolean[] {
  const { ids, spans } = context;
  const stream = createStreamDecoder(tokenizer);
  const mask: boolean[] = [];
  let [position, first] = [0, 0];
  for (const [t, id] of ids.entries()) {
    const piece = stream.push(id);
    // Tokens that share a character all have all of it; it comes with the last of them.
    if (piece === "" && t < ids.length - 1) continue;
    const end = position + piece.length;
    const isAssistant = spans.some(([from, to]) => position < to && end > from);
    while (first <= t) mask[first++] = isAssistant;
    position = end;
  }
  return mask;
}

/** A span begins and ends where the text up to there ends as tokens. */
function maskByPrefix(
  tokenizer: Pick<Tokenizer, "encode">,
  context: { ids: number[]; chat: RenderedChat },
): boolean[] {
  const { ids, chat } = context;
  const mask = ids.map(() => false);
  for (const [start, end] of chat.spans) {
    if (start === end) continue;
    const from = boundary(start);
    const to = boundary(end);
    mask.fill(true, from.index, to.isWithinToken ? to.index + 1 : to.index);
  }
  return mask;

  function boundary(position: number): { index: number; isWithinToken: boolean } {
    const prefix = tokenizer.encode(chat.text.slice(0, position), { addSpecialTokens: false });
    let index = 0;
    while (index < prefix.length && prefix[index] === ids[index]) index++;
    if (index >= prefix.length - 1) return { index, isWithinToken: index < prefix.length };
    const around = showFound(chat.text.slice(Math.max(0, position - 20), position + 20));
    throw new ChatTemplateError(
      `Cannot find the assistant's tokens: expected the text before to be cut alike alone and within the whole, found ` +
        `other tokens around ${around}`,
    );
  }
}
