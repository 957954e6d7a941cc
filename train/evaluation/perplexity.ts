/**
 * Perplexity of texts of any length: windows that slide over each text, every token predicted once.
 * @module
 */
import type { EncodedCompletion } from "../data/encode.ts";
import { DataError, type RecordSource } from "../data/errors.ts";
import type { Model } from "../models/model.ts";
import { completionLogps } from "../reference.ts";

/** A text to be predicted. */
export interface ScoredText {
  /** Where it comes from. */
  readonly source: RecordSource;
  /** Sequences whose completions are, one after the other, what is predicted. */
  readonly windows: AsyncIterable<EncodedCompletion> | Iterable<EncodedCompletion>;
  /** UTF-8 bytes of what is predicted; asked for after the last window. */
  readonly bytes: () => number;
}

/** How well texts are predicted. */
export interface PerplexityEvaluation {
  /** Texts of which a token was predicted. */
  readonly texts: number;
  /** Tokens predicted. */
  readonly tokens: number;
  /** UTF-8 bytes that they stand for. */
  readonly bytes: number;
  /** Sum of -log p over the tokens, in nats. */
  readonly negativeLogLikelihood: number;
  /** exp of its mean over tokens. */
  readonly perplexity: number;
  /** It in bits over bytes: comparable between tokenizers. */
  readonly bitsPerByte: number;
}

/** How one text was predicted. */
export interface TextScore extends Omit<PerplexityEvaluation, "texts"> {
  /** The text. */
  readonly source: RecordSource;
}

/** How windows lie. */
export interface WindowOptions {
  /** Tokens of a window, context included; at least 2. */
  readonly maxLength: number;
  /** Tokens between the beginnings of two windows, 1 to maxLength - 1: what a window predicts, but the first. */
  readonly stride: number;
  /** Of the text. */
  readonly source: RecordSource;
  /** Ids at the text's beginning that are not predicted; 1 by default, as nothing predicts the first. */
  readonly given?: number;
}

/**
 * Cuts a text's ids into overlapping windows. Each token but the given ones is predicted once: a window's prompt is
 * what earlier windows predicted. A token has at least maxLength - stride tokens of context where its text has them.
 *
 * @param pieces ids of the text, one piece after the other; they are not held longer than windows need them
 * @param options length and stride
 * @returns windows; none for a text of fewer than two ids
 * @throws {RangeError} options out of range
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "example" };
 * const windows = await Array.fromAsync(slidingWindows([[1, 2, 3, 4, 5, 6]], { maxLength: 4, stride: 2, source }));
 * assert.deepEqual(windows.map((window) => [window.promptIds, window.completionIds]), [
 *   [[1], [2, 3, 4]],
 *   [[3, 4], [5, 6]],
 * ]);
 * ```
 */
export async function* slidingWindows(
  pieces: AsyncIterable<readonly number[]> | Iterable<readonly number[]>,
  { maxLength, stride, source, given = 1 }: WindowOptions,
): AsyncGenerator<EncodedCompletion, void> {
  if (!(Number.isInteger(stride) && stride >= 1 && stride < maxLength)) {
    throw new RangeError(
      `Cannot cut windows of ${maxLength} tokens: expected a stride of 1 to ${
        maxLength - 1
      }, found ${stride}`,
    );
  }
  const overlap = maxLength - stride;
  let ids: number[] = [];
  // Ids before the first window: of what is given, no more than another window would have as context.
  let skipped = given < maxLength ? 0 : given - overlap;
  // Ids at the window's beginning that are not predicted.
  let known = given - skipped;
  const windowAt = (start: number, end: number): EncodedCompletion => ({
    promptIds: ids.slice(start, start + known),
    completionIds: ids.slice(start + known, end),
    source,
  });
  for await (const piece of pieces) {
    ids = ids.concat(piece);
    let start = Math.min(skipped, ids.length);
    skipped -= start;
    while (ids.length - start >= maxLength) {
      yield windowAt(start, start + maxLength);
      start += stride;
      known = overlap;
    }
    ids = ids.slice(start);
  }
  if (ids.length > known) yield windowAt(0, ids.length);
}

/** Sums of one text while its windows are under way. */
interface Tally {
  readonly text: ScoredText;
  tokens: number;
  negativeLogLikelihood: number;
  /** Its bytes, when its last window has been read. */
  bytes?: number;
}

/**
 * Predicts texts, one batch of windows after the other.
 *
 * @param model as it is now
 * @param texts read as they are needed
 * @param options.batchTokens tokens of a forward pass; 4,096 by default
 * @param options.onText told of each text when it is done
 * @param options.onProgress told after each batch
 * @returns sums over all texts
 * @throws {DataError} when no token of any text could be predicted
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { createModel } from "../models/model.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const source = { file: "example" };
 * const windows = slidingWindows([[1, 2, 3, 4, 5]], { maxLength: 4, stride: 2, source });
 * const { tokens, perplexity } = await evaluatePerplexity(model, [{ source, windows, bytes: () => 4 }]);
 * assert.equal(tokens, 4);
 * assert(Math.abs(perplexity - 8) < 1e-5);
 * ```
 */
export async function evaluatePerplexity(
  model: Model,
  texts: AsyncIterable<ScoredText> | Iterable<ScoredText>,
  options: {
    batchTokens?: number;
    onText?: (score: TextScore) => void | Promise<void>;
    onProgress?: () => void;
  } = {},
): Promise<PerplexityEvaluation> {
  const { batchTokens = 4096 } = options;
  const open = new Set<Tally>();
  const total = { texts: 0, tokens: 0, bytes: 0, negativeLogLikelihood: 0 };
  for await (const batch of batchesOf(tallied(texts), batchTokens)) {
    const logps = await completionLogps(model, batch.map(({ window }) => window), { maxTokens: batchTokens });
    batch.forEach(({ window, tally }, index) => {
      open.add(tally);
      tally.tokens += window.completionIds.length;
      tally.negativeLogLikelihood -= logps[index];
    });
    for (const tally of open) {
      if (tally.bytes === undefined) continue;
      open.delete(tally);
      const sums = { ...tally, bytes: tally.bytes };
      total.texts++;
      for (const key of ["tokens", "bytes", "negativeLogLikelihood"] as const) total[key] += sums[key];
      await options.onText?.({ source: tally.text.source, ...ratesOf(sums) });
    }
    options.onProgress?.();
  }
  if (total.tokens === 0) {
    throw new DataError("Cannot measure perplexity: expected a text of two tokens or more, found none");
  }
  return { texts: total.texts, ...ratesOf(total) };
}

/** A window with the text that it belongs to. */
interface TalliedWindow {
  readonly window: EncodedCompletion;
  readonly tally: Tally;
}

/** The windows of all texts. A text's bytes are known as soon as anything after its last window is asked for. */
async function* tallied(
  texts: AsyncIterable<ScoredText> | Iterable<ScoredText>,
): AsyncGenerator<TalliedWindow, void> {
  for await (const text of texts) {
    const tally: Tally = { text, tokens: 0, negativeLogLikelihood: 0 };
    for await (const window of text.windows) yield { window, tally };
    tally.bytes = text.bytes();
  }
}

/** Consecutive windows of at most so many tokens; a longer one goes alone. */
async function* batchesOf(
  windows: AsyncIterable<TalliedWindow>,
  batchTokens: number,
): AsyncGenerator<TalliedWindow[], void> {
  let batch: TalliedWindow[] = [];
  let tokens = 0;
  for await (const item of windows) {
    const length = item.window.promptIds.length + item.window.completionIds.length;
    if (batch.length > 0 && tokens + length > batchTokens) {
      yield batch;
      batch = [];
      tokens = 0;
    }
    batch.push(item);
    tokens += length;
  }
  if (batch.length > 0) yield batch;
}

function ratesOf(
  { tokens, bytes, negativeLogLikelihood }: { tokens: number; bytes: number; negativeLogLikelihood: number },
): Omit<PerplexityEvaluation, "texts"> {
  return {
    tokens,
    bytes,
    negativeLogLikelihood,
    perplexity: Math.exp(negativeLogLikelihood / tokens),
    bitsPerByte: negativeLogLikelihood / Math.LN2 / bytes,
  };
}
