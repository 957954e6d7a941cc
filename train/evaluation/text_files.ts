/**
 * Texts to predict from a file: a whole `.txt`, or the records of a `.json` or `.jsonl` file.
 * @module
 */
import { encodeCompletions, encodePrompt } from "../data/encode.ts";
import { DataError, formatSource, type RecordSource } from "../data/errors.ts";
import { instructionPrompt } from "../data/forms.ts";
import { readRows } from "../data/readers.ts";
import type { Row } from "../data/rows.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { type ScoredText, slidingWindows } from "./perplexity.ts";

/** How texts become windows. */
export interface TextOptions {
  readonly tokenizer: Tokenizer;
  /** The model's. */
  readonly vocabSize: number;
  /** Tokens of a window. */
  readonly maxLength: number;
  /** Tokens between the beginnings of two windows. */
  readonly stride: number;
  /** Lines of a `.txt`, or records, that are read. */
  readonly limit?: number;
  /** Told how many bytes of a `.txt`, or records, have been read. */
  readonly onRead?: (done: number) => void;
}

/** Characters that are encoded together: long enough that cutting costs nothing, short enough to hold many. */
const PIECE_CHARACTERS = 2 ** 16;
/** Where even a text without a good place to cut is cut. */
const MAX_PIECE_CHARACTERS = 16 * PIECE_CHARACTERS;
/** Characters before a cut that the next piece is encoded behind. */
const CONTEXT_CHARACTERS = 200;

/**
 * Reads texts.
 *
 * @param path `.txt`: one text; `.json` or `.jsonl`: records with `text`, with `prompt` and `completion`, or with
 *   `instruction`, `input` and `output`; of the latter two only the completion is predicted
 * @param options tokenizer and windows
 * @throws {DataError} naming file, line and key
 */
export async function* readTexts(path: string, options: TextOptions): AsyncGenerator<ScoredText, void> {
  if (isTextFile(path)) yield textOfFile(path, options);
  else {
    let done = 0;
    for await (const row of readRows(path)) {
      if (done === options.limit) return;
      yield textOfRecord(row, options);
      done++;
      options.onRead?.(done);
    }
  }
}

/** Whether a path names plain text. */
export function isTextFile(path: string): boolean {
  return /\.txt$/i.test(path);
}

/**
 * Pieces of a text encoded as the whole would be. Each is encoded behind the last line before it, so that what a
 * tokenizer does at the beginning of a text alone, such as adding a space, is done once.
 *
 * @param pieces the text, cut where tokens do not reach across
 * @param tokenizer of the model
 * @returns ids of each piece, BOS first where the tokenizer adds it
 */
export async function* encodePieces(
  pieces: AsyncIterable<string> | Iterable<string>,
  tokenizer: Tokenizer,
): AsyncGenerator<number[], void> {
  let context: string | undefined;
  for await (const piece of pieces) {
    if (context === undefined) yield encodePrompt(piece, { tokenizer });
    else {
      const before = tokenizer.encode(context, { addSpecialTokens: false });
      const whole = tokenizer.encode(context + piece, { addSpecialTokens: false });
      const isCut = before.every((id, index) => whole[index] === id);
      yield isCut ? whole.slice(before.length) : tokenizer.encode(piece, { addSpecialTokens: false });
    }
    const tail = piece.slice(-CONTEXT_CHARACTERS);
    context = tail.slice(Math.max(0, tail.lastIndexOf("\n", tail.length - 2) + 1));
  }
}

/**
 * Cuts a streamed text after single line ends that stand between other characters than blanks: no tokenizer in use makes
 * a token across such a place.
 *
 * @param chunks the text as it comes
 * @returns pieces of about 65,000 characters, none empty
 */
export async function* cutText(
  chunks: AsyncIterable<string> | Iterable<string>,
  length: number = PIECE_CHARACTERS,
): AsyncGenerator<string, void> {
  let held = "";
  for await (const chunk of chunks) {
    held += chunk;
    if (held.length < length) continue;
    const cut = lastCut(held) ?? (held.length < MAX_PIECE_CHARACTERS ? 0 : held.length);
    if (cut > 0) yield held.slice(0, cut);
    held = held.slice(cut);
  }
  if (held !== "") yield held;
}

function lastCut(text: string): number | undefined {
  for (let at = text.lastIndexOf("\n"); at > 0; at = text.lastIndexOf("\n", at - 1)) {
    if (/\S\n\S/.test(text.slice(at - 1, at + 2))) return at + 1;
  }
  return undefined;
}

function textOfFile(path: string, options: TextOptions): ScoredText {
  const source = { file: path };
  const encoder = new TextEncoder();
  let bytes = 0;
  async function* counted(): AsyncGenerator<string, void> {
    for await (const piece of cutText(firstLines(readTextChunks(path, options), options.limit))) {
      bytes += encoder.encode(piece).length;
      yield piece;
    }
  }
  return windowsOfText(encodePieces(counted(), options.tokenizer), {
    ...options,
    source,
    bytes: () => bytes,
  });
}

/** A text's windows, and the bytes of all its tokens but a first one that stands for text. */
function windowsOfText(
  pieces: AsyncIterable<readonly number[]>,
  options: TextOptions & { source: RecordSource; bytes: () => number },
): ScoredText {
  const { tokenizer, source, bytes } = options;
  let given = 0;
  async function* noted(): AsyncGenerator<readonly number[], void> {
    let isFirst = true;
    for await (const ids of pieces) {
      if (isFirst && ids.length > 0) {
        isFirst = false;
        if (ids[0] !== tokenizer.bosTokenId) {
          given = new TextEncoder().encode(tokenizer.decode([ids[0]])).length;
        }
      }
      yield ids;
    }
  }
  return { source, windows: slidingWindows(noted(), options), bytes: () => bytes() - given };
}

async function* firstLines(chunks: AsyncIterable<string>, limit = Infinity): AsyncGenerator<string, void> {
  let left = limit;
  for await (const chunk of chunks) {
    let end = -1;
    while (left > 0 && left !== Infinity) {
      const next = chunk.indexOf("\n", end + 1);
      if (next < 0) break;
      end = next;
      left--;
    }
    if (left === 0) {
      yield chunk.slice(0, end + 1);
      return;
    }
    yield chunk;
  }
}

async function* readTextChunks(
  path: string,
  { onRead }: Pick<TextOptions, "onRead">,
): AsyncGenerator<string, void> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const decode = (bytes?: Uint8Array) => {
    try {
      return bytes ? decoder.decode(bytes, { stream: true }) : decoder.decode();
    } catch (cause) {
      throw new DataError(`Cannot read ${path}: expected UTF-8 text, found other bytes`, { cause });
    }
  };
  const file = await openText(path);
  let done = 0;
  for await (const chunk of file.readable) {
    yield decode(chunk);
    onRead?.(done += chunk.length);
  }
  yield decode();
}

async function openText(path: string): Promise<Deno.FsFile> {
  await textFileSize(path);
  return await Deno.open(path);
}

/**
 * The size of a text file.
 *
 * @param path the file
 * @returns bytes, at least one
 * @throws {DataError} when it cannot be read or is empty
 */
export async function textFileSize(path: string): Promise<number> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (cause) {
    const found = cause instanceof Deno.errors.NotFound ? "no such file" : (cause as Error).message;
    throw new DataError(`Cannot read ${path}: expected a readable file, found: ${found}`, { cause });
  }
  if (info.isDirectory) throw new DataError(`Cannot read ${path}: expected a file, found a directory`);
  if (info.size === 0) throw new DataError(`Cannot read ${path}: expected text, found an empty file`);
  return info.size;
}

/** The keys of each form, in the order in which they are looked for. */
const FORMS = { text: ["text"], completion: ["prompt", "completion"], output: ["instruction", "output"] };

/** Whether a record's keys are those of a text to predict. */
export function isTextRecord({ value }: Row): boolean {
  return Object.values(FORMS).some((keys) => keys.every((key) => Object.hasOwn(value, key)));
}

/** A record's text, or its prompt and what follows it. */
function textsOf(row: Row): { prompt?: string; text: string } {
  const has = (key: string) => Object.hasOwn(row.value, key);
  if (has("text")) return { text: textAt(row, "text") };
  if (has("completion")) return { prompt: textAt(row, "prompt"), text: textAt(row, "completion") };
  if (has("output")) {
    const input = has("input") ? textAt(row, "input") : undefined;
    return { prompt: instructionPrompt(textAt(row, "instruction"), input), text: textAt(row, "output") };
  }
  const found = Object.keys(row.value).map((name) => `"${name}"`).join(", ") || "no keys";
  throw new DataError(
    `Cannot read ${
      formatSource(row.source)
    }: expected "text", "prompt" and "completion", or "instruction" and ` +
      `"output", found ${found}`,
  );
}

function textOfRecord(row: Row, options: TextOptions): ScoredText {
  const { source } = row;
  const { prompt, text } = textsOf(row);
  const bytes = () => new TextEncoder().encode(text).length;
  if (prompt === undefined) {
    return windowsOfText(encodePieces([text], options.tokenizer), { ...options, source, bytes });
  }
  // Nothing is cut off: what is too long for one window is predicted in several.
  const whole = { ...options, maxLength: Number.MAX_SAFE_INTEGER };
  const { completions } = encodeCompletions([{ prompt, completion: text, source }], whole);
  const [{ promptIds, completionIds }] = completions;
  const windows = slidingWindows([[...promptIds, ...completionIds]], {
    ...options,
    source,
    given: promptIds.length,
  });
  return { source, windows, bytes };
}

function textAt({ value, source }: Row, key: string): string {
  const text = value[key];
  if (typeof text === "string") return text;
  const found = text === undefined ? "nothing" : text === null ? "null" : typeof text;
  throw new DataError(`Cannot read ${formatSource(source)}: key "${key}": expected a string, found ${found}`);
}

/**
 * Looks through a file before anything runs: every record is checked.
 *
 * @param path as for {@link readTexts}
 * @param limit records that will be read
 * @returns what progress counts up to: bytes of a `.txt`, or records
 * @throws {DataError} naming file, line and key
 */
export async function surveyTexts(path: string, limit = Infinity): Promise<number> {
  if (isTextFile(path)) {
    const sizeBytes = await textFileSize(path);
    for await (const _ of readTextChunks(path, {})) { /* UTF-8 is checked */ }
    return sizeBytes;
  }
  let count = 0;
  for await (const row of readRows(path)) {
    if (count === limit) break;
    textsOf(row);
    count++;
  }
  return count;
}
