/**
 * Text generation: tokens to text as they come, up to a stop id or stop string.
 * @module
 */
import { createStreamDecoder } from "../data/stream_decoder.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { type GenerateOptions, generateWith } from "../generate.ts";
import type { Decoder } from "./decoder.ts";
import { createStopStrings } from "./stop_strings.ts";

/** Why a text ended. */
export type FinishReason = "stop" | "length" | "aborted";

/** A generated text. */
export interface GeneratedText {
  /** Without the token or string that ended it. */
  readonly text: string;
  /** All tokens, the one that ended it too. */
  readonly ids: readonly number[];
  /** A stop id or string, the most new tokens, or the signal. */
  readonly finish: FinishReason;
  /** Until the first token was there. */
  readonly prefillMs: number;
  /** From then on. */
  readonly decodeMs: number;
}

/** How text is generated. */
export interface TextOptions extends Omit<GenerateOptions, "batchSize" | "onToken" | "shouldStop"> {
  /** The model's. */
  readonly tokenizer: Tokenizer;
  /** End the text, which then has what comes before the first of them. None by default. */
  readonly stopStrings?: readonly string[];
  /** Whether the decoder keeps what it holds of the prompt: a conversation that goes on. */
  readonly reuse?: boolean;
  /** Told the text piece by piece: as soon as its bytes are complete and no stop string can begin in it. */
  readonly onText?: (piece: string) => void;
}

/** Tokens before the text by which a decoder knows that it is not at the beginning. */
const CONTEXT_TOKENS = 8;

/**
 * Continues a prompt with text. Special tokens do not show.
 *
 * @param decoder with room for the prompt and its continuation
 * @param promptIds at least one
 * @param options tokenizer, when to stop, how to choose
 * @returns the text that follows the prompt's
 * @throws {RangeError} when a stop string is empty
 */
export async function generateText(
  decoder: Decoder,
  promptIds: readonly number[],
  options: TextOptions,
): Promise<GeneratedText> {
  const { tokenizer, stopStrings = [], stopIds = [], onText, signal } = options;
  const stream = createStreamDecoder(tokenizer, { skipSpecialTokens: true });
  promptIds.slice(-CONTEXT_TOKENS).forEach((id) => stream.push(id));
  const stop = createStopStrings(stopStrings);
  const start = performance.now();
  let first: number | undefined;
  let text = "";
  const pass = (piece: string) => {
    if (piece === "") return;
    text += piece;
    onText?.(piece);
  };
  const [ids] = await generateWith(decoder, [promptIds], {
    ...options,
    shouldStop: (_, all) => {
      first ??= performance.now();
      const id = all.at(-1)!;
      if (!stopIds.includes(id)) pass(stop.push(stream.push(id)));
      return stop.isStopped;
    },
  });
  const end = performance.now();
  if (!stop.isStopped) pass(stop.push(stream.end()));
  const isStopped = stop.isStopped || (ids.length > 0 && stopIds.includes(ids.at(-1)!));
  pass(stop.end());
  const finish = isStopped
    ? "stop"
    : signal?.aborted && ids.length < options.maxNewTokens
    ? "aborted"
    : "length";
  const known = first ?? end;
  return { text, ids, finish, prefillMs: known - start, decodeMs: end - known };
}
