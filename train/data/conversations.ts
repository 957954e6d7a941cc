/**
 * Preference records whose texts are lists of messages, in the two forms of TRL and in ShareGPT's.
 *
 * @module
 */
import * as z from "zod";
import type { PairColumns } from "./columns.ts";
import type { ChatMessage } from "./chat_template.ts";
import { DataError, formatSource, type RecordSource } from "./errors.ts";
import { isSameJson } from "./same_json.ts";
import type { SkipReason } from "./forms.ts";
import type { Row } from "./rows.ts";

/** A preference between two continuations of a conversation. */
export interface ConversationRecord extends PairColumns {
  /** What is given; at least one message. */
  prompt: ChatMessage[];
  /** The preferred continuation: the assistant's messages, and what its tools answer. */
  chosen: ChatMessage[];
  /** The other continuation, different from the preferred one. */
  rejected: ChatMessage[];
  /** JSON schemas of functions that the model may call, for the template. */
  tools?: unknown[];
  /** More variables for the template. */
  variables?: Record<string, unknown>;
  /** Where it comes from, for errors. */
  source: RecordSource;
}

/**
 * `messages`: {prompt, chosen, rejected}, each a list of messages; `conversations`: {chosen, rejected}, both whole
 * conversations, whose common messages are the prompt; `sharegpt`: {conversations, chosen, rejected} of {from, value}.
 */
export type ConversationForm = "messages" | "conversations" | "sharegpt";

const content = z.string("a string").nullish();
const message = z.looseObject({ role: z.string("a string"), content }, "a message with role and content")
  .refine(
    ({ content, tool_calls: calls }) =>
      typeof content === "string" || (Array.isArray(calls) && calls.length > 0),
    { error: "a string", path: ["content"] },
  );
/** A list of messages, as JSON holds it. */
export const messages = z.array(message, "a list of messages");
const ROLES: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  assistant: "assistant",
  system: "system",
  observation: "tool",
};
/** A turn of ShareGPT's form. */
export const turn = z.object({
  from: z.enum(Object.keys(ROLES), Object.keys(ROLES).map((role) => `"${role}"`).join(", ")),
  value: z.string("a string"),
}, "a turn with from and value");

const COMMON = {
  tools: z.array(z.unknown(), "a list of schemas").nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown(), "an object of variables").nullish(),
};
const SCHEMAS = {
  messages: z.looseObject({
    ...COMMON,
    prompt: messages,
    chosen: messages.nullish(),
    rejected: messages.nullish(),
  }),
  conversations: z.looseObject({ ...COMMON, chosen: messages.nullish(), rejected: messages.nullish() }),
  sharegpt: z.looseObject({
    system: z.string("a string").nullish(),
    conversations: z.array(turn, "a list of turns"),
    chosen: turn.nullish(),
    rejected: turn.nullish(),
  }),
};

/** Whose words are given, never learnt. */
const GIVEN_ROLES = new Set(["user", "system", "developer"]);

/**
 * Tell the form of a record of messages.
 *
 * @param value a record as read
 * @returns its form, or undefined where its texts are no messages
 */
export function detectConversation(value: Readonly<Record<string, unknown>>): ConversationForm | undefined {
  const { prompt, chosen, rejected, conversations } = value;
  if (Array.isArray(conversations) && conversations.length > 0 && !Array.isArray(chosen)) return "sharegpt";
  if (Array.isArray(prompt)) return "messages";
  // Some data sets repeat the question as text beside the conversations; these have it too.
  if (Array.isArray(chosen) || Array.isArray(rejected)) return "conversations";
  return undefined;
}

/**
 * Bring a record of messages into the common form.
 *
 * @param row a record as read
 * @param form its form, from {@linkcode detectConversation}
 * @returns the record, or why it is left out
 * @throws {DataError} a key of the wrong type, naming the message
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const question = { role: "user", content: "1+1?" };
 * const answer = (content: string) => ({ role: "assistant", content });
 * const value = { chosen: [question, answer("2")], rejected: [question, answer("3")] };
 * const source = { file: "a.jsonl", line: 1 };
 * assert.deepEqual(normalizeConversation({ value, source }, "conversations"), {
 *   prompt: [question], chosen: [answer("2")], rejected: [answer("3")], source,
 * });
 * ```
 */
export function normalizeConversation(row: Row, form: ConversationForm): ConversationRecord | SkipReason {
  const { source } = row;
  if (form === "sharegpt") return normalizeShareGpt(row);
  const record = form === "messages" ? check(SCHEMAS.messages, row) : check(SCHEMAS.conversations, row);
  const { chosen, rejected, tools, chat_template_kwargs: variables } = record;
  if (!chosen) return "missingChosen";
  if (!rejected) return "missingRejected";
  const texts = "prompt" in record && form === "messages"
    ? { prompt: record.prompt as ChatMessage[], chosen, rejected }
    : splitConversations({ chosen, rejected });
  return checked({ ...texts, ...(tools ? { tools } : {}), ...(variables ? { variables } : {}), source });
}

function normalizeShareGpt(row: Row): ConversationRecord | SkipReason {
  const { system, conversations, chosen, rejected } = check(SCHEMAS.sharegpt, row);
  if (!chosen) return "missingChosen";
  if (!rejected) return "missingRejected";
  return checked({
    prompt: normalizeTurns(conversations, system),
    chosen: normalizeTurns([chosen]),
    rejected: normalizeTurns([rejected]),
    source: row.source,
  });
}

/**
 * Turns of ShareGPT's form as messages.
 *
 * @param turns as read
 * @param system what stands before them
 */
export function normalizeTurns(
  turns: readonly z.output<typeof turn>[],
  system?: string | null,
): ChatMessage[] {
  const first = system ? [{ role: "system", content: system }] : [];
  return [...first, ...turns.map(({ from, value }) => ({ role: ROLES[from], content: value }))];
}

/** The messages that both conversations begin with are the prompt. */
function splitConversations(
  whole: { chosen: ChatMessage[]; rejected: ChatMessage[] },
): Pick<ConversationRecord, "prompt" | "chosen" | "rejected"> {
  const { chosen, rejected } = whole;
  let common = 0;
  while (
    common < chosen.length && common < rejected.length && isSameJson(chosen[common], rejected[common])
  ) common++;
  return {
    prompt: chosen.slice(0, common),
    chosen: chosen.slice(common),
    rejected: rejected.slice(common),
  };
}

function checked(record: ConversationRecord): ConversationRecord | SkipReason {
  const { prompt, chosen, rejected } = record;
  if (isSameJson(chosen, rejected)) return "identical";
  if (prompt.length === 0) return "noCommonPrompt";
  if ([chosen, rejected].some((side) => side.every(isBlank))) return "emptyCompletion";
  if (chosen[0].role !== "assistant" || rejected[0].role !== "assistant") return "noCommonPrompt";
  // Training would otherwise count the human's later words as the assistant's.
  if ([...chosen, ...rejected].some(({ role }) => GIVEN_ROLES.has(role))) return "laterTurn";
  return prompt.every(isBlank) ? "emptyPrompt" : record;
}

function isBlank({ content, tool_calls: calls }: ChatMessage): boolean {
  return (typeof content !== "string" || content.trim() === "") && calls === undefined;
}

function check<T>(schema: z.ZodType<T>, row: Row): T {
  const result = schema.safeParse(row.value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0];
  // deno-lint-ignore no-explicit-any -- walks a path that the schema reported, in JSON of unknown type
  const value = path.reduce((inner: any, key) => inner?.[key], row.value);
  throw new DataError(
    `Cannot read ${formatSource(row.source)}: key "${path.join(".")}": expected ${message}, found ${
      describe(value)
    }`,
  );
}

function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (typeof value === "string") {
    return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  }
  return Array.isArray(value) ? "array" : typeof value;
}
