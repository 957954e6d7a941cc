/**
 * The forms in which preference records come, told apart by their keys, and how each becomes a prompt with two
 * completions.
 * @module
 */
import * as z from "zod";
import type { PairColumns } from "./columns.ts";
import {
  type ConversationForm,
  type ConversationRecord,
  detectConversation,
  normalizeConversation,
} from "./conversations.ts";
import { DataError, formatSource, quoteKeys, type RecordSource } from "./errors.ts";
import type { Row } from "./rows.ts";

/** A record in the one form that the rest of the project sees. `prompt + chosen` is the whole chosen text. */
export interface PreferenceRecord extends PairColumns {
  /** What is given, with everything up to the completion's first character. */
  prompt: string;
  /** The preferred completion. */
  chosen: string;
  /** The other completion, different from the preferred one. */
  rejected: string;
  /** Where it comes from, for errors. */
  source: RecordSource;
}

/**
 * `instruction`: {instruction, input?, chosen, rejected}, with the prompt of {@linkcode instructionPrompt};
 * `prompt`: {prompt, chosen, rejected}, the texts joined as they are;
 * `transcript`: {chosen, rejected}, both whole dialogues, with the prompt of {@linkcode transcriptPrompt};
 * or one of the forms whose texts are messages, see {@linkcode ConversationForm}.
 */
export type RecordForm = TextForm | ConversationForm;

/** The forms whose texts are strings. */
export type TextForm = "instruction" | "prompt" | "transcript";

/**
 * Why a record is left out: a completion is missing (no such key, or null), both are equal, one is blank, the prompt
 * is blank, the two sides share no prompt that ends at an assistant's turn, or they part before the last turn.
 */
export type SkipReason =
  | "missingChosen"
  | "missingRejected"
  | "identical"
  | "emptyCompletion"
  | "emptyPrompt"
  | "noCommonPrompt"
  | "laterTurn";

const HUMAN_TURN = "\n\nHuman:";
const ASSISTANT_TURN = "\n\nAssistant:";

/** Keys that other data sets use for a part of the prompt; leaving such a part out would change the question. */
const UNSUPPORTED_KEYS = ["system", "history", "messages", "conversations", "tools"];

const COMPLETIONS = { chosen: z.string().nullish(), rejected: z.string().nullish() };
const SCHEMAS = {
  instruction: z.looseObject({ instruction: z.string(), input: z.string().nullish(), ...COMPLETIONS }),
  prompt: z.looseObject({ prompt: z.string(), ...COMPLETIONS }),
  transcript: z.looseObject(COMPLETIONS),
};

/**
 * Tell a record's form from its keys.
 *
 * @param row a record as read
 * @throws {DataError} keys of no known form, of two forms, or with a part of the prompt that is not supported
 */
export function detectForm(row: Row): RecordForm {
  const keys = Object.keys(row.value);
  const has = (key: string) => Object.hasOwn(row.value, key);
  const fail = (expected: string) => {
    const found = quoteKeys(keys) || "no keys";
    return new DataError(`Cannot read ${formatSource(row.source)}: expected ${expected}, found ${found}`);
  };
  const conversation = detectConversation(row.value);
  if (conversation !== undefined) return conversation;
  const unsupported = UNSUPPORTED_KEYS.find((key) => has(key) && !isBlank(row.value[key]));
  if (unsupported !== undefined) throw fail(`a record without "${unsupported}", which is not supported`);
  if (has("instruction") && has("prompt")) throw fail('either "instruction" or "prompt"');
  if (has("instruction")) return "instruction";
  if (has("prompt")) return "prompt";
  if (has("chosen") || has("rejected")) return "transcript";
  throw fail(
    'a preference record: "chosen" and "rejected", with "prompt", with "instruction", or alone as transcripts or messages',
  );
}

function isBlank(value: unknown): boolean {
  return value === null || value === "" || (Array.isArray(value) && value.length === 0);
}

/**
 * Bring a record into the common form.
 *
 * @param row a record as read
 * @param form its form, from {@linkcode detectForm}
 * @returns the record, or why it is left out
 * @throws {DataError} a key of the wrong type
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const value = { prompt: "Q: 1+1? A:", chosen: " 2", rejected: " 3", score: 0.9 };
 * const source = { file: "a.jsonl", line: 1 };
 * assert.deepEqual(normalizeRecord({ value, source }, "prompt"), {
 *   prompt: "Q: 1+1? A:", chosen: " 2", rejected: " 3", source,
 * });
 * ```
 */
export function normalizeRecord(
  row: Row,
  form: RecordForm,
): PreferenceRecord | ConversationRecord | SkipReason {
  if (form === "messages" || form === "conversations" || form === "sharegpt") {
    return normalizeConversation(row, form);
  }
  const record = checkTypes(row, form);
  const { chosen, rejected } = record;
  if (typeof chosen !== "string") return "missingChosen";
  if (typeof rejected !== "string") return "missingRejected";
  if (chosen === rejected) return "identical";
  if (form === "transcript") return splitTranscripts({ chosen, rejected, source: row.source });
  const question = (form === "prompt" ? record.prompt : record.instruction) as string;
  if (question.trim() === "") return "emptyPrompt";
  const prompt = form === "prompt"
    ? question
    : instructionPrompt(question, record.input as string | null | undefined);
  return withoutBlanks({ prompt, chosen, rejected, source: row.source });
}

function checkTypes(row: Row, form: TextForm): Record<string, unknown> {
  const result = SCHEMAS[form].safeParse(row.value);
  if (result.success) return result.data;
  const key = String(result.error.issues[0].path[0]);
  const value = row.value[key];
  const found = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  throw new DataError(
    `Cannot read ${formatSource(row.source)}: key "${key}": expected a string, found ${found}`,
  );
}

function withoutBlanks(record: PreferenceRecord): PreferenceRecord | SkipReason {
  return record.chosen.trim() === "" || record.rejected.trim() === "" ? "emptyCompletion" : record;
}

/**
 * The prompt of an instruction record: the headings of the Alpaca data set, without its preamble (which spends some
 * thirty tokens on every record to say nothing about it). It ends with a newline, so that an answer starts its own line:
 *
 *     ### Instruction:
 *     <instruction>
 *
 *     ### Input:
 *     <input>
 *
 *     ### Response:
 *
 * A blank or missing input leaves its heading out.
 *
 * @param instruction the task
 * @param input what the task is to be done on
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(instructionPrompt("Name a colour."), "### Instruction:\nName a colour.\n\n### Response:\n");
 * ```
 */
export function instructionPrompt(instruction: string, input?: string | null): string {
  const inputPart = input && input.trim() !== "" ? `### Input:\n${input}\n\n` : "";
  return `### Instruction:\n${instruction}\n\n${inputPart}### Response:\n`;
}

/**
 * The prompt that two transcripts of Anthropic's HH-RLHF form share: their longest common beginning, cut after the last
 * "\n\nAssistant:" that lies wholly in it. The blank before the answer's first word belongs to the answer.
 *
 * @param chosen the preferred dialogue, whole
 * @param rejected the other dialogue, whole
 * @returns the prompt, ending in "\n\nAssistant:", or undefined when they share no assistant's turn
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const prompt = "\n\nHuman: Hi\n\nAssistant:";
 * assert.equal(transcriptPrompt(`${prompt} Hello`, `${prompt} Hey`), prompt);
 * ```
 */
export function transcriptPrompt(chosen: string, rejected: string): string | undefined {
  let common = 0;
  while (common < chosen.length && chosen[common] === rejected[common]) common++;
  const turn = chosen.slice(0, common).lastIndexOf(ASSISTANT_TURN);
  return turn < 0 ? undefined : chosen.slice(0, turn + ASSISTANT_TURN.length);
}

function splitTranscripts(texts: Omit<PreferenceRecord, "prompt">): PreferenceRecord | SkipReason {
  const prompt = transcriptPrompt(texts.chosen, texts.rejected);
  if (prompt === undefined) return "noCommonPrompt";
  const chosen = texts.chosen.slice(prompt.length);
  const rejected = texts.rejected.slice(prompt.length);
  // Training would otherwise count the human's later words as the assistant's.
  if (chosen.includes(HUMAN_TURN) || rejected.includes(HUMAN_TURN)) return "laterTurn";
  return withoutBlanks({ ...texts, prompt, chosen, rejected });
}
