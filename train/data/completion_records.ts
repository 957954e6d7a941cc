/**
 * Records of one completion each: with a label for KTO, or without for supervised fine-tuning.
 * @module
 */
import * as z from "zod";
import type { ChatMessage } from "./chat_template.ts";
import { type ConversationRecord, messages, normalizeTurns, turn } from "./conversations.ts";
import { DataError, formatSource, type RecordSource } from "./errors.ts";
import { instructionPrompt, type PreferenceRecord } from "./forms.ts";
import type { Row } from "./rows.ts";

/** A prompt with one completion, as texts or as messages. */
export interface CompletionRecord {
  /** What is given; empty for a text that is learnt whole. */
  prompt: string | ChatMessage[];
  /** What is to be learnt. */
  completion: string | ChatMessage[];
  /** Whether the completion is a good one, where the data says so. */
  desirable?: boolean;
  /** JSON schemas of functions that the model may call, for the template. */
  tools?: unknown[];
  /** More variables for the template. */
  variables?: Record<string, unknown>;
  /** Where it comes from, for errors. */
  source: RecordSource;
}

/**
 * `completion`: {prompt, completion}, both texts or both lists of messages; `labelled`: the same with {label}, a
 * boolean; `dialogue`: {messages}, whose last assistant's turn is learnt; `turns`: {conversations} of {from, value}, as
 * `dialogue`; `text`: {text}, learnt whole; `answer`: {instruction, input?, output}, with the prompt of
 * {@linkcode instructionPrompt}; `question`: {question, answer}, as "Question: ...\nAnswer:" and " ...".
 */
export type CompletionForm =
  | "completion"
  | "labelled"
  | "dialogue"
  | "turns"
  | "text"
  | "answer"
  | "question";

/** How records are read. */
export interface CompletionOptions {
  /**
   * Learn every assistant's turn of a dialogue, not only the last: the prompt ends before the first of them, and what
   * others say in between is given. The dialogue may then end with another's turn, which is left out.
   */
  allTurns?: boolean;
}

/** Why such a record is left out: a missing or blank completion, a blank prompt, or no assistant's turn at the end. */
export type CompletionSkip = "missingCompletion" | "emptyCompletion" | "emptyPrompt" | "noAssistantTurn";

const COMMON = {
  tools: z.array(z.unknown(), "a list of schemas").nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown(), "an object of variables").nullish(),
};
const text = z.string("a string");
const SCHEMAS = {
  texts: z.looseObject({ prompt: text, completion: text.nullish() }),
  messages: z.looseObject({
    ...COMMON,
    prompt: messages,
    completion: messages.nullish(),
  }),
  dialogue: z.looseObject({ ...COMMON, messages }),
  turns: z.looseObject({
    ...COMMON,
    system: text.nullish(),
    conversations: z.array(turn, "a list of turns"),
  }),
  text: z.looseObject({ text }),
  answer: z.looseObject({ instruction: text, input: text.nullish(), output: text.nullish() }),
  question: z.looseObject({ question: text, answer: text.nullish() }),
};

/**
 * Tell the form of a record of one completion.
 *
 * @param value a record as read
 * @returns its form, or undefined where it is none, such as a preference
 */
export function detectCompletionForm(value: Readonly<Record<string, unknown>>): CompletionForm | undefined {
  const has = (key: string) => value[key] !== undefined && value[key] !== null;
  if (has("chosen") || has("rejected")) return undefined;
  if (Object.hasOwn(value, "completion")) return Object.hasOwn(value, "label") ? "labelled" : "completion";
  if (Array.isArray(value.messages)) return "dialogue";
  if (Array.isArray(value.conversations)) return "turns";
  if (has("instruction")) return "answer";
  if (has("question")) return "question";
  return has("text") ? "text" : undefined;
}

/**
 * Bring a record of one completion into the common form.
 *
 * @param row a record as read
 * @param form its form, from {@linkcode detectCompletionForm}
 * @param options which turns of a dialogue are learnt
 * @returns the record, or why it is left out
 * @throws {DataError} a key of the wrong type, or a label that is no boolean
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "a.jsonl", line: 1 };
 * const value = { prompt: "1+1=", completion: "3", label: false };
 * const record = normalizeCompletion({ value, source }, "labelled");
 * assert.deepEqual(record, { prompt: "1+1=", completion: "3", desirable: false, source });
 * ```
 */
export function normalizeCompletion(
  row: Row,
  form: CompletionForm,
  options: CompletionOptions = {},
): CompletionRecord | CompletionSkip {
  const { source } = row;
  const turnsOf = options.allTurns ? everyTurn : lastTurn;
  switch (form) {
    case "completion":
    case "labelled": {
      const record = Array.isArray(row.value.prompt)
        ? check(row, SCHEMAS.messages)
        : check(row, SCHEMAS.texts);
      const desirable = form === "labelled" ? { desirable: readLabel(row) } : {};
      const { prompt, completion } = record;
      if (completion === undefined || completion === null) return "missingCompletion";
      return checked({ prompt, completion, ...desirable, ...templateOf(record), source });
    }
    case "dialogue": {
      const record = check(row, SCHEMAS.dialogue);
      return turnsOf(record.messages, { ...templateOf(record), source });
    }
    case "turns": {
      const record = check(row, SCHEMAS.turns);
      return turnsOf(normalizeTurns(record.conversations, record.system), { ...templateOf(record), source });
    }
    case "text": {
      const { text } = check(row, SCHEMAS.text);
      return text.trim() === "" ? "emptyCompletion" : { prompt: "", completion: text, source };
    }
    case "answer": {
      const { instruction, input, output } = check(row, SCHEMAS.answer);
      if (instruction.trim() === "") return "emptyPrompt";
      if (typeof output !== "string") return "missingCompletion";
      return checked({ prompt: instructionPrompt(instruction, input), completion: output, source });
    }
    case "question": {
      const { question, answer } = check(row, SCHEMAS.question);
      if (question.trim() === "") return "emptyPrompt";
      if (typeof answer !== "string") return "missingCompletion";
      if (answer.trim() === "") return "emptyCompletion";
      return { prompt: `Question: ${question}\nAnswer:`, completion: ` ${answer}`, source };
    }
  }
}

/**
 * Both sides of preferences as records of their own, as TRL does for KTO: all chosen first, as desirable, then all
 * rejected, as undesirable.
 *
 * @param records preferences
 * @returns twice as many
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "a.jsonl", line: 1 };
 * const [good, bad] = unpairRecords([{ prompt: "1+1=", chosen: "2", rejected: "3", source }]);
 * assert.deepEqual(good, { prompt: "1+1=", completion: "2", desirable: true, source });
 * assert.deepEqual(bad, { prompt: "1+1=", completion: "3", desirable: false, source });
 * ```
 */
export function unpairRecords(
  records: readonly (PreferenceRecord | ConversationRecord)[],
): CompletionRecord[] {
  return [
    ...records.map((record) => sideOf(record, true)),
    ...records.map((record) => sideOf(record, false)),
  ];
}

/**
 * One side of a preference.
 *
 * @param record the preference
 * @param desirable whether it is the preferred one
 */
export function sideOf(
  record: PreferenceRecord | ConversationRecord,
  desirable: boolean,
): CompletionRecord & { desirable: boolean } {
  const { prompt, chosen, rejected, source } = record;
  const { tools, variables } = record as ConversationRecord;
  const template = { ...(tools ? { tools } : {}), ...(variables ? { variables } : {}) };
  return { prompt, completion: desirable ? chosen : rejected, desirable, ...template, source };
}

type Template = Pick<CompletionRecord, "tools" | "variables">;

function templateOf(record: Record<string, unknown>): Template {
  const { tools, chat_template_kwargs: variables } = record as z.output<typeof SCHEMAS.messages>;
  return { ...(tools ? { tools } : {}), ...(variables ? { variables } : {}) };
}

function readLabel(row: Row): boolean {
  const { label } = row.value;
  if (typeof label === "boolean") return label;
  const found = typeof label === "object" ? (label === null ? "null" : "object") : JSON.stringify(label);
  throw new DataError(
    `Cannot read ${formatSource(row.source)}: key "label": expected true or false, found ${found}`,
  );
}

/** One span of tokens is learnt: of several turns the last, which the earlier ones are the prompt of. */
function lastTurn(
  dialogue: readonly ChatMessage[],
  rest: Template & { source: RecordSource },
): CompletionRecord | CompletionSkip {
  const last = dialogue.length - 1;
  if (last < 1 || dialogue[last].role !== "assistant") return "noAssistantTurn";
  return checked({ prompt: dialogue.slice(0, last), completion: [dialogue[last]], ...rest });
}

/** From the first assistant's turn to the last: which of their tokens are learnt is found in the rendered text. */
function everyTurn(
  dialogue: readonly ChatMessage[],
  rest: Template & { source: RecordSource },
): CompletionRecord | CompletionSkip {
  const isAssistant = ({ role }: ChatMessage) => role === "assistant";
  const first = dialogue.findIndex(isAssistant);
  if (first < 1) return "noAssistantTurn";
  const last = dialogue.findLastIndex(isAssistant);
  const completion = dialogue.slice(first, last + 1);
  if (isBlank(completion.filter(isAssistant))) return "emptyCompletion";
  return checked({ prompt: dialogue.slice(0, first), completion, ...rest });
}

function checked(record: CompletionRecord): CompletionRecord | CompletionSkip {
  if (isBlank(record.completion)) return "emptyCompletion";
  if (isBlank(record.prompt)) return "emptyPrompt";
  const { completion } = record;
  return typeof completion !== "string" && completion[0].role !== "assistant" ? "noAssistantTurn" : record;
}

function isBlank(value: string | ChatMessage[]): boolean {
  if (typeof value === "string") return value.trim() === "";
  return value.every(({ content, tool_calls: calls }) => {
    return (typeof content !== "string" || content.trim() === "") && calls === undefined;
  });
}

function check<T>(row: Row, schema: z.ZodType<T>): T {
  const result = schema.safeParse(row.value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0];
  // deno-lint-ignore no-explicit-any -- walks a path that the schema reported, in JSON of unknown type
  const value = path.reduce((inner: any, key) => inner?.[key], row.value);
  const found = value === undefined
    ? "nothing"
    : value === null
    ? "null"
    : Array.isArray(value)
    ? "array"
    : typeof value;
  throw new DataError(
    `Cannot read ${formatSource(row.source)}: key "${path.join(".")}": expected ${message}, found ${found}`,
  );
}
