/**
 * Chat templates: the text in which a model saw conversations. They are Jinja programs that come with the tokenizer.
 *
 * @module
 */
import { Environment } from "@huggingface/jinja";
import { InputError, showFound } from "../errors.ts";
import {
  ChatInterpreter,
  type ParsedTemplate,
  parseTemplate,
  type TemplateBounds,
} from "./chat_interpreter.ts";
import { formatTime } from "./python_values.ts";

/** One turn of a conversation; keys beyond these are the template's own, such as `tool_calls`. */
export interface ChatMessage {
  /** Who speaks: `system`, `user`, `assistant`, `tool`, or what else the template knows. */
  role: string;
  /** What is said; null or absent where a message only calls tools. */
  content?: unknown;
  /** What else the template reads. */
  [key: string]: unknown;
}

/** A chat template, and what it is rendered with. */
export interface ChatTemplate {
  /** The file that it comes from, for messages. */
  readonly source: string;
  /** Jinja source by name; `default`, and `tool_use` where tools have their own. */
  readonly templates: Readonly<Record<string, string>>;
  /** Variables: `bos_token`, `eos_token` and the like. */
  readonly specialTokens: Readonly<Record<string, string>>;
}

/** How a conversation is rendered. */
export interface RenderChatOptions {
  /** End with what comes before an answer of the assistant's; false by default. */
  addGenerationPrompt?: boolean;
  /** JSON schemas of functions that the model may call. */
  tools?: readonly unknown[];
  /** More variables of the template, such as `enable_thinking`; they take precedence over special tokens. */
  variables?: Readonly<Record<string, unknown>>;
  /** The time that a template is told; now by default. */
  now?: Date;
  /** Most characters, counted in UTF-16 units; 4 Mi by default. */
  maxLength?: number;
}

/** A rendered conversation with the parts that its template marks as the assistant's. */
export interface RenderedChat {
  /** The text. */
  text: string;
  /** `[start, end)` in UTF-16 units, in order. */
  spans: [start: number, end: number][];
}

const MAX_LENGTH = 2 ** 22;
/** A conversation of a thousand turns takes some 10^5. */
const MAX_STEPS = 2_000_000;

/**
 * A chat template that cannot be parsed, or that refuses a conversation. The message names the template's file and says
 * what the template itself said.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const template = createChatTemplate("{{ raise_exception('Only users may speak.') }}", { source: "chat_template.jinja" });
 * assert.throws(() => renderChat(template, [{ role: "system", content: "Hi" }]), {
 *   name: "ChatTemplateError",
 *   message: "Cannot render the chat template of chat_template.jinja: Only users may speak.",
 * });
 * ```
 */
export class ChatTemplateError extends InputError {
  /** Always `ChatTemplateError`. */
  override name = "ChatTemplateError";
}

/**
 * Makes a chat template. It is parsed when it is first rendered, so that a model can be used without.
 *
 * @param text Jinja source, or several by name.
 * @param options The file's name for messages; special tokens, such as `bos_token`, that templates print.
 * @returns The template.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const template = createChatTemplate(
 *   "{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}{% endfor %}" +
 *     "{% if add_generation_prompt %}<assistant>{% endif %}",
 *   { source: "chat_template.jinja", specialTokens: { eos_token: "</s>" } },
 * );
 * const messages = [{ role: "user", content: "Hi" }];
 * assert.equal(renderChat(template, messages, { addGenerationPrompt: true }), "<user>Hi</s><assistant>");
 * ```
 */
export function createChatTemplate(
  text: string | Readonly<Record<string, string>>,
  options: { source: string; specialTokens?: Readonly<Record<string, string>> },
): ChatTemplate {
  const templates = typeof text === "string" ? { default: text } : text;
  return { source: options.source, templates, specialTokens: options.specialTokens ?? {} };
}

/**
 * Renders a conversation, as transformers' `apply_chat_template` does with `tokenize=False`.
 *
 * @param template The template.
 * @param messages At least one; keys whose value is null count as absent.
 * @param options See {@link RenderChatOptions}.
 * @returns The text; encode it without special tokens, since the template writes its own.
 * @throws {ChatTemplateError} When the template cannot be parsed or refuses the messages, when it goes beyond its bounds,
 *   or when there are no messages or one is malformed.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const template = createChatTemplate("{{ messages[0].content | upper }}", { source: "example" });
 * assert.equal(renderChat(template, [{ role: "user", content: "Hi" }]), "HI");
 * ```
 */
export function renderChat(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options: RenderChatOptions = {},
): string {
  const parsed = parsedOf(template, options);
  return run(template, { parsed, messages, options });
}

/**
 * Renders a conversation and finds what its template marks with `{% generation %}`, as transformers'
 * `return_assistant_tokens_mask` does.
 *
 * @param template A template with generation blocks.
 * @param messages As for {@link renderChat}.
 * @param options As for {@link renderChat}.
 * @returns The text and the marked spans.
 * @throws {ChatTemplateError} As {@link renderChat}, and when the template has no such blocks, or renders other text when
 *   they are marked.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const source = "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}" +
 *   "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}; {% endfor %}";
 * const template = createChatTemplate(source, { source: "example" });
 * const messages = [{ role: "user", content: "Hi" }, { role: "assistant", content: "Hello" }];
 * const { text, spans } = renderGeneration(template, messages);
 * assert.deepEqual(spans.map(([start, end]) => text.slice(start, end)), ["Hello"]);
 * ```
 */
export function renderGeneration(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options: RenderChatOptions = {},
): RenderedChat {
  const parsed = parsedOf(template, options);
  if (!parsed.hasGeneration) {
    throw new ChatTemplateError(
      `Cannot find the assistant's text by the chat template of ${template.source}: expected {% generation %} blocks, ` +
        `found none`,
    );
  }
  const text = run(template, { parsed, messages, options });
  const marks = unusedMarks(template, { messages, options });
  const marked = run(template, { parsed, messages, options, marks });
  const spans: RenderedChat["spans"] = [];
  let [plain, open] = ["", 0];
  for (const part of marked.split(new RegExp(`(${marks.open}|${marks.close})`))) {
    if (part === marks.open) open = plain.length;
    else if (part === marks.close) spans.push([open, plain.length]);
    else plain += part;
  }
  if (plain === text) return { text, spans };
  throw new ChatTemplateError(
    `Cannot find the assistant's text by the chat template of ${template.source}: expected {% generation %} blocks that ` +
      `are printed as they are, found one that the template works on`,
  );
}

/**
 * Whether a template has `{% generation %}` blocks.
 *
 * @param template The template.
 * @throws {ChatTemplateError} When it cannot be parsed.
 * @example
 * ```ts
 * const template = createChatTemplate("{% generation %}Hi{% endgeneration %}", { source: "example" });
 * if (!hasGenerationBlocks(template)) throw new Error("it has one");
 * ```
 */
export function hasGenerationBlocks(template: ChatTemplate): boolean {
  return parsedOf(template, {}).hasGeneration;
}

/** Parsed templates by their text; parsing takes longer than rendering. */
const PARSED = new WeakMap<ChatTemplate, Map<string, ParsedTemplate>>();

function parsedOf(template: ChatTemplate, options: RenderChatOptions): ParsedTemplate {
  const { templates, source } = template;
  const name = options.tools !== undefined && Object.hasOwn(templates, "tool_use") ? "tool_use" : "default";
  if (!Object.hasOwn(templates, name)) {
    const found = Object.keys(templates).join(", ") || "none";
    throw new ChatTemplateError(
      `Cannot use the chat template of ${source}: expected one named "default", found ${found}`,
    );
  }
  const known = PARSED.get(template) ?? new Map<string, ParsedTemplate>();
  PARSED.set(template, known);
  const parsed = known.get(name) ?? parse(templates[name], source);
  known.set(name, parsed);
  return parsed;
}

function parse(text: string, source: string): ParsedTemplate {
  try {
    return parseTemplate(text);
  } catch (cause) {
    throw new ChatTemplateError(`Cannot parse the chat template of ${source}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

interface Rendering {
  parsed: ParsedTemplate;
  messages: readonly ChatMessage[];
  options: RenderChatOptions;
  marks?: { open: string; close: string };
}

function run(template: ChatTemplate, rendering: Rendering): string {
  const { parsed, messages, options, marks } = rendering;
  const { source } = template;
  checkMessages(messages, source);
  const bounds = { maxSteps: MAX_STEPS, maxLength: options.maxLength ?? MAX_LENGTH };
  try {
    const environment = makeEnvironment(template, { messages, options, bounds });
    return new ChatInterpreter(environment, { bounds, marks }).run(parsed.program).value as string;
  } catch (cause) {
    throw new ChatTemplateError(`Cannot render the chat template of ${source}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function checkMessages(messages: readonly ChatMessage[], source: string): void {
  const fail = (where: string, expected: string, found: unknown) =>
    new ChatTemplateError(
      `Cannot render the chat template of ${source}: ${where}: expected ${expected}, found ${
        showFound(found)
      }`,
    );
  if (messages.length === 0) throw fail("messages", "at least one", messages);
  for (const [i, message] of messages.entries()) {
    if (typeof message !== "object" || message === null || Array.isArray(message)) {
      throw fail(`message ${i}`, "an object with role and content", message);
    }
    if (typeof message.role !== "string") throw fail(`message ${i}, key "role"`, "text", message.role);
    const { content } = message;
    const good = content === undefined || content === null || typeof content === "string" ||
      Array.isArray(content);
    if (!good) throw fail(`message ${i}, key "content"`, "text or a list of parts", content);
  }
}

function makeEnvironment(
  template: ChatTemplate,
  context: Pick<Rendering, "messages" | "options"> & { bounds: TemplateBounds },
): Environment {
  const { messages, options, bounds } = context;
  const { addGenerationPrompt = false, tools = null, variables = {}, now } = options;
  const environment = new Environment();
  const values = {
    ...constants(bounds, now),
    ...template.specialTokens,
    documents: null,
    ...variables,
    messages: messages.map(plainMessage),
    tools,
    add_generation_prompt: addGenerationPrompt,
  };
  for (const [name, value] of Object.entries(values)) environment.set(name, value);
  return environment;
}

function constants({ maxLength }: TemplateBounds, now: Date | undefined): Record<string, unknown> {
  return {
    ...{ true: true, false: false, none: null, True: true, False: false, None: null },
    raise_exception: (message: unknown) => {
      throw new Error(String(message));
    },
    strftime_now: (format: unknown) => formatTime(now ?? new Date(), String(format)),
    range: (...bounds: number[]) => {
      const [start, stop, step = 1] = bounds.length < 2 ? [0, bounds[0]] : bounds;
      const length = Math.max(0, Math.ceil((stop - start) / step));
      if (!(length <= maxLength)) {
        throw new RangeError(`range: expected at most ${maxLength} numbers, found ${length}`);
      }
      return Array.from({ length }, (_, i) => start + i * step);
    },
  };
}

/** As transformers has it: no keys without a value, and reasoning under every name that templates read. */
function plainMessage(message: ChatMessage): Record<string, unknown> {
  const entries = Object.entries(message).filter(([, value]) => value !== null && value !== undefined);
  const plain: Record<string, unknown> = Object.fromEntries(entries);
  const reasoning = plain.reasoning_content ?? plain.thinking ?? plain.reasoning;
  return reasoning === undefined ? plain : { thinking: reasoning, ...plain, reasoning_content: reasoning };
}

/** Texts that no rendering of these messages can hold. */
function unusedMarks(
  template: ChatTemplate,
  context: Pick<Rendering, "messages" | "options">,
): { open: string; close: string } {
  const all = JSON.stringify([template, context.messages, context.options]);
  for (let number = 0;; number++) {
    const [open, close] = [`\ue000generation ${number}\ue001`, `\ue000end ${number}\ue001`];
    if (!all.includes(open) && !all.includes(close)) return { open, close };
  }
}
