/**
 * Text to token ids and back, by the files of a Hugging Face folder. `@huggingface/tokenizers` does the work; around it
 * stand the checks of what it trusts, and repairs where it differs from the reference library in Rust.
 *
 * @module
 */
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { type ChatTemplate, createChatTemplate } from "./chat_template.ts";
import { CheckpointError, showFound } from "../errors.ts";
import {
  type FilesPlace,
  parseTokenizerFiles,
  type TokenizerConfigJson,
  type TokenizerFiles,
} from "./tokenizer_files.ts";
import { readText } from "./tokenizer_keys.ts";
import { repairTokenizer } from "./tokenizer_repairs.ts";

/** How ids become text. */
export interface DecodeOptions {
  /** Leave special tokens out; false by default. */
  skipSpecialTokens?: boolean;
  /** Remove spaces before punctuation; by default as tokenizer_config.json says. */
  cleanUpTokenizationSpaces?: boolean;
}

/** A loaded tokenizer. */
export interface Tokenizer {
  /** The largest token id + 1: the least number of rows an embedding must have. */
  readonly vocabSize: number;
  /** The id that begins a text, if there is one. */
  readonly bosTokenId: number | undefined;
  /** The id that ends a text, if there is one. */
  readonly eosTokenId: number | undefined;
  /** The id that fills up, if there is one. */
  readonly padTokenId: number | undefined;
  /** How conversations become text, if the tokenizer says so; see `renderChat`. */
  readonly chatTemplate: ChatTemplate | undefined;
  /** The files it was made from, for a saved model to carry. */
  readonly files: TokenizerFiles;
  /**
   * Turns text into token ids.
   *
   * @param text The text. Special tokens written in it are read as such.
   * @param options `addSpecialTokens`, default true: whether the post-processor adds BOS and the like. A BOS that the
   *   text already starts with is not doubled.
   * @returns `[T]` ids.
   * @throws {RangeError} When the text holds something that the vocabulary has no token for, not even an unknown token;
   *   when it is no Unicode text (half of a surrogate pair). A byte-level vocabulary that lacks bytes drops them, as the
   *   reference library does.
   */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[];
  /**
   * Turns token ids into text.
   *
   * @param ids `[T]`; ids without a token (an embedding may have more rows than the tokenizer has tokens) give nothing.
   * @param options `skipSpecialTokens`, default false. `cleanUpTokenizationSpaces`: whether spaces before punctuation go;
   *   the default is tokenizer_config.json's.
   * @returns The text; empty for no ids.
   * @throws {RangeError} When an id is not a non-negative integer.
   */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
}

/**
 * Makes a tokenizer from the contents of its files.
 *
 * @param files tokenizer.json (or vocab.json and merges.txt) and its companions, by name.
 * @param options Where they came from, for messages; the model's type, see {@link FilesPlace}.
 * @returns The tokenizer.
 * @throws {CheckpointError} When a file is malformed, naming file and key.
 * @example
 * ```ts
 * import { characterTokenizerFiles } from "./character_tokenizer.ts";
 *
 * const tokenizer = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * const ids = tokenizer.encode("1+10.");
 * if (ids.at(-1) !== tokenizer.eosTokenId) throw new Error("the text ends with the end token");
 * if (tokenizer.decode(ids) !== "1+10.") throw new Error("decoding undoes encoding");
 * ```
 */
export function createTokenizer(files: TokenizerFiles, options: FilesPlace): Tokenizer {
  const { source } = options;
  const { tokenizer, config, ids } = parseTokenizerFiles(files, options);
  let inner: HuggingFaceTokenizer;
  try {
    inner = new HuggingFaceTokenizer(tokenizer, config);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`Cannot read ${source}/tokenizer.json: ${detail}`, { cause });
  }
  repairTokenizer(inner, tokenizer.added_tokens);
  const special = specialIds(config, { ids, source });
  checkAddedSpecials(inner, { config, special, source });
  return {
    ...special,
    vocabSize: [...ids.values()].reduce((largest, id) => Math.max(largest, id), -1) + 1,
    chatTemplate: readChatTemplate(files, { config, source }),
    files,
    encode: (text, { addSpecialTokens = true } = {}) =>
      encodeText(inner, { text, addSpecialTokens, bosTokenId: special.bosTokenId }),
    // No cleaning up is transformers' default, where the library's own is to do it.
    decode: (
      tokenIds,
      {
        skipSpecialTokens = false,
        cleanUpTokenizationSpaces = config.clean_up_tokenization_spaces ?? false,
      } = {},
    ) => decodeIds(inner, { ids: [...tokenIds], skipSpecialTokens, cleanUp: cleanUpTokenizationSpaces }),
  };
}

function encodeText(
  inner: HuggingFaceTokenizer,
  options: { text: string; addSpecialTokens: boolean; bosTokenId: number | undefined },
): number[] {
  const { text, addSpecialTokens, bosTokenId } = options;
  // Bytes cannot hold half a pair: the library would write U+FFFD for it, the reference library refuses.
  if (!text.isWellFormed()) {
    throw new RangeError(
      `Cannot encode text: expected Unicode text, found half a surrogate pair in ${showFound(text)}`,
    );
  }
  const { ids } = inner.encode(text, { add_special_tokens: addSpecialTokens });
  if (ids.some((id) => !Number.isInteger(id))) {
    throw new RangeError(
      `Cannot encode text: expected a token for every part of it, found none in ${showFound(text)}`,
    );
  }
  if (!addSpecialTokens || bosTokenId === undefined || ids[0] !== bosTokenId || ids[1] !== bosTokenId) {
    return ids;
  }
  // Two may be right: where BOS is also the end token, or where both are the text's. Only one that was put before another
  // is too many.
  const plain = inner.encode(text, { add_special_tokens: false }).ids;
  const isAdded = plain[0] === bosTokenId && plain.every((id, i) => ids[i + 1] === id);
  return isAdded ? ids.slice(1) : ids;
}

function decodeIds(
  inner: HuggingFaceTokenizer,
  options: { ids: number[]; skipSpecialTokens: boolean; cleanUp: boolean },
): string {
  const bad = options.ids.find((id) => !Number.isInteger(id) || id < 0);
  if (bad !== undefined) throw new RangeError(`Cannot decode: expected token ids, found ${showFound(bad)}`);
  const known = options.ids.filter((id) => inner.id_to_token(id) !== undefined);
  if (known.length === 0) return "";
  return inner.decode(known, {
    skip_special_tokens: options.skipSpecialTokens,
    clean_up_tokenization_spaces: options.cleanUp,
  });
}

/** chat_template.jinja goes before tokenizer_config.json's, as in transformers. */
function readChatTemplate(
  files: TokenizerFiles,
  place: { config: TokenizerConfigJson; source: string },
): ChatTemplate | undefined {
  const { config, source } = place;
  const { bos_token, eos_token, pad_token, unk_token } = config;
  const named = Object.entries({ bos_token, eos_token, pad_token, unk_token });
  const specialTokens = Object.fromEntries(
    named.filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
  const fromConfig = typeof config.chat_template === "string"
    ? { default: config.chat_template }
    : Object.fromEntries((config.chat_template ?? []).map(({ name, template }) => [name, template]));
  const bytes = files.get("chat_template.jinja");
  const file = `${source}/${bytes ? "chat_template.jinja" : "tokenizer_config.json"}`;
  const templates = bytes ? { default: readText(bytes, file) } : fromConfig;
  if (Object.keys(templates).length === 0) return undefined;
  return createChatTemplate(templates, { source: file, specialTokens });
}

type SpecialIds = Pick<Tokenizer, "bosTokenId" | "eosTokenId" | "padTokenId">;

function specialIds(
  config: TokenizerConfigJson,
  place: { ids: ReadonlyMap<string, number>; source: string },
): SpecialIds {
  const find = (key: "bos_token" | "eos_token" | "pad_token"): number | undefined => {
    const token = config[key] ?? undefined;
    if (token === undefined) return undefined;
    const id = place.ids.get(token);
    if (id !== undefined) return id;
    throw new CheckpointError(
      `Cannot read ${place.source}/tokenizer_config.json: ${key}: expected a token of tokenizer.json, ` +
        `found ${showFound(token)}`,
    );
  };
  return { bosTokenId: find("bos_token"), eosTokenId: find("eos_token"), padTokenId: find("pad_token") };
}

/**
 * tokenizer_config.json may promise a BOS or EOS that the post-processor of tokenizer.json, which alone is carried out,
 * does not add, or deny one that it adds. Training on the wrong one of the two would go unnoticed.
 */
function checkAddedSpecials(
  inner: HuggingFaceTokenizer,
  place: { config: TokenizerConfigJson; special: SpecialIds; source: string },
): void {
  const { config, special, source } = place;
  const added = inner.encode("").ids;
  const sides = [["add_bos_token", special.bosTokenId, added[0]], [
    "add_eos_token",
    special.eosTokenId,
    added.at(-1),
  ]] as const;
  for (const [key, id, at] of sides) {
    const promised = config[key] ?? undefined;
    const adds = id !== undefined && at === id;
    if (promised === undefined || promised === adds) continue;
    // One id for both ends: what was added for one must not count for the other.
    if (!promised && special.bosTokenId === special.eosTokenId) continue;
    throw new CheckpointError(
      `Cannot read ${source}/tokenizer_config.json: ${key}: expected ${adds}, as tokenizer.json does, ` +
        `found ${promised}`,
    );
  }
}
