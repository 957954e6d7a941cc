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
 * @param tokenizer Its decoding must give the text back, as byte-level tokenizers do.
 * @param chat A text with spans, from {@link renderAssistantSpans}.
 * @returns Ids and mask, without special tokens beyond those in the text.
 * @throws {ChatTemplateError} When decoding does not give the text back, so that the spans have no place in the tokens.
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
  const { spans } = asDecoded(tokenizer, { ids, chat });
  const stream = createStreamDecoder(tokenizer);
  const assistantMask: boolean[] = [];
  let [position, first] = [0, 0];
  for (const [t, id] of ids.entries()) {
    const piece = stream.push(id);
    // Tokens that share a character all have all of it; it comes with the last of them.
    if (piece === "" && t < ids.length - 1) continue;
    const end = position + piece.length;
    const isAssistant = spans.some(([from, to]) => position < to && end > from);
    while (first <= t) assistantMask[first++] = isAssistant;
    position = end;
  }
  return { ids, assistantMask };
}

/** The chat as its tokens give it back: with a tokenizer that composes characters, spans move. */
function asDecoded(
  tokenizer: Pick<Tokenizer, "decode">,
  context: { ids: number[]; chat: RenderedChat },
): RenderedChat {
  const { ids, chat } = context;
  const decoded = tokenizer.decode(ids, { cleanUpTokenizationSpaces: false });
  if (decoded === chat.text) return chat;
  let text = "";
  let end = 0;
  const spans: RenderedChat["spans"] = [];
  for (const [from, to] of chat.spans) {
    text += chat.text.slice(end, from).normalize("NFC");
    const start = text.length;
    text += chat.text.slice(from, to).normalize("NFC");
    spans.push([start, text.length]);
    end = to;
  }
  text += chat.text.slice(end).normalize("NFC");
  if (decoded === text) return { text, spans };
  throw new ChatTemplateError(
    `Cannot find the assistant's tokens: expected a tokenizer that gives a text back, found ${
      showFound(decoded)
    } for ` +
      showFound(chat.text),
  );
}
