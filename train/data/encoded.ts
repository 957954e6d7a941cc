/**
 * Texts as token ids: what goes into encoding, and what comes out.
 * @module
 */
import type { ChatTemplate } from "./chat_template.ts";
import type { RecordSource } from "./errors.ts";
import type { Truncation } from "./truncate.ts";

/** The part of a tokenizer that encoding needs. */
export interface EncodingTokenizer {
  /** Token ids of a text, with what the tokenizer itself adds around it unless told not to. */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[];
  /** The text of token ids; where the assistant's turns are told apart, they are found by it. */
  decode?(ids: readonly number[], options?: { cleanUpTokenizationSpaces?: boolean }): string;
  /** The id that starts a text, where there is one; having one does not mean that the tokenizer adds it. */
  bosTokenId?: number;
  /** The id that ends a text, where there is one. */
  eosTokenId?: number;
  /** How conversations become text, for records of messages. */
  chatTemplate?: ChatTemplate;
}

/** A text to train on, before encoding. */
export interface CompletionExample {
  /** What is given. */
  prompt: string;
  /** What is to be predicted after it. */
  completion: string;
  /** Where it comes from, for errors. */
  source: RecordSource;
}

/** One text to train on: what is given and what is to be predicted. */
export interface EncodedCompletion {
  /** Given tokens, BOS included where there is one; at least one. */
  promptIds: number[];
  /** Predicted tokens, EOS included unless cut off; at least one. */
  completionIds: number[];
  /** `[completionIds.length]` whether each is learnt, where others speak in between; the first and the last are. */
  labelMask?: boolean[];
  /** Where it comes from, for errors. */
  source: RecordSource;
}

/** A preference as token ids. The prompts differ only where a token was merged across the boundary. */
export interface EncodedPair {
  /** The preferred side. */
  chosen: EncodedCompletion;
  /** The other side. */
  rejected: EncodedCompletion;
  /** Where the pair comes from, for errors. */
  source: RecordSource;
  /** By how much the preferred side is better, where the data says so; of all pairs or of none. */
  margin?: number;
  /** Summed log-prob of the preferred side under a reference, in nats, where the data has it; of all pairs or of none. */
  referenceChosen?: number;
  /** Summed log-prob of the other side under that reference. */
  referenceRejected?: number;
}

/** A text with a verdict of its own, as KTO learns from. */
export interface EncodedExample extends EncodedCompletion {
  /** Whether the completion is a good one. */
  desirable: boolean;
}

/** Tokens of a text. */
export interface TextLength {
  /** Given ones. */
  prompt: number;
  /** Predicted ones, those between the turns that are learnt included. */
  completion: number;
}

/** How records are encoded. */
export interface EncodeOptions {
  /** What turns text into ids. */
  tokenizer: EncodingTokenizer;
  /** The model's vocabulary; an id beyond it would read outside the embedding. */
  vocabSize: number;
  /** Most tokens of prompt and completion together, at least 2. */
  maxLength: number;
  /** What is kept of longer ones: the start (the default; a completion loses its end, and with it EOS), or the end. */
  truncation?: Truncation;
  /** What to do with a part that leaves no room for a token of the other: refuse (the default), or leave out and count. */
  overlong?: "error" | "drop";
  /** Start with BOS. Default: as the tokenizer itself does when asked for special tokens; its template for messages. */
  addBos?: boolean;
  /** Told the tokens of each record's texts, both of a pair, before any is cut; with the record's index, in order. */
  onLengths?: (lengths: readonly TextLength[], index: number) => void;
  /** End the completion with EOS. Default: where the tokenizer has one. Messages end as their template has it. */
  addEos?: boolean;
}

/** What became of the records. A pair counts once in `dropped...`; the others count texts, two of each pair. */
export interface EncodeCounts {
  /** Completions whose first token also holds the prompt's end. */
  repairedBoundary: number;
  /** Completions that lost their end to `maxLength`. */
  truncated: number;
  /** Prompts that lost their start to `maxLength`. */
  truncatedPrompt: number;
  /** Records left out because one part leaves no room for the other. */
  droppedOverlong: number;
  /** Records left out because a completion has no token of its own. */
  droppedEmpty: number;
  /** Pairs left out because both sides became the same ids, by truncation or because the tokenizer maps them alike. */
  droppedIdentical: number;
}

/** A record's texts, or why it is left out. */
export type Encoded =
  | {
    kind: "ok";
    completions: EncodedCompletion[];
    repaired: number;
    truncated: number;
    truncatedPrompt: number;
  }
  | { kind: "overlong" | "empty" };
