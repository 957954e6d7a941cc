/**
 * The files of a Hugging Face tokenizer, checked before the library sees them: it trusts its input and would fail far
 * from the cause, or not at all.
 *
 * @module
 */
import { z } from "zod";
import { CheckpointError, showFound } from "../errors.ts";
import { findDuplicateKey } from "../models/duplicate_keys.ts";
import { checkKeys, readJson, readText, refuse, tokenId } from "./tokenizer_keys.ts";
import {
  type AddedTokenJson,
  composeTokenizer,
  defaultSpecialTokens,
  tokenizerClassOf,
} from "./tokenizer_merges.ts";
import { addTokens, checkBpe, checkTemplate, readScoredVocab, readVocab } from "./tokenizer_vocab.ts";

/** The files that make up a tokenizer: tokenizer.json must be there, or vocab.json and merges.txt. */
export const TOKENIZER_FILES = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
] as const;

/** File name -> content. */
export type TokenizerFiles = ReadonlyMap<string, Uint8Array>;

/** Where files came from. */
export interface FilesPlace {
  /** The folder, for messages. */
  source: string;
  /** `model_type` of the model's config.json: tells the tokenizer's class where its own files do not. */
  modelType?: string;
}

const part = z.looseObject({ type: z.string("a type name") }, "an object with a type, or null").nullable()
  .default(null);

const tokenizerSchema = z.looseObject({
  added_tokens: z.array(
    z.looseObject({ id: tokenId, content: z.string("text").min(1, "text") }, "an object with id and content"),
    "a list of tokens",
  ).default([]),
  normalizer: part,
  pre_tokenizer: part,
  post_processor: part,
  decoder: part,
  model: z.looseObject({
    type: z.enum(["BPE", "WordPiece", "Unigram"], '"BPE", "WordPiece" or "Unigram"'),
    vocab: z.unknown().optional(),
    merges: z.unknown().optional(),
    unk_token: z.string("a token or null").nullish(),
    dropout: z.literal(0, "none: merges left out at random are not supported").nullish(),
  }, "an object with type and vocab"),
}, "an object");

const specialToken = z.union(
  [z.string(), z.looseObject({ content: z.string() }).transform((token) => token.content)],
  "a token, or an object with its content",
).nullish();

const specialTokensSchema = z.looseObject({
  bos_token: specialToken,
  eos_token: specialToken,
  pad_token: specialToken,
  unk_token: specialToken,
}, "an object");

const flag = z.boolean("true or false").nullish();
const tokenizerConfigSchema = specialTokensSchema.extend({
  tokenizer_class: z.string("a class name").nullish(),
  clean_up_tokenization_spaces: flag,
  add_prefix_space: flag,
  add_bos_token: flag,
  add_eos_token: flag,
  additional_special_tokens: z.array(z.unknown(), "a list of tokens").nullish(),
  chat_template: z.union([
    z.string(),
    z.array(z.looseObject({ name: z.string(), template: z.string() })),
  ], "a template, or a list of templates with their names").nullish(),
  added_tokens_decoder: z.record(
    z.string(),
    z.looseObject({
      content: z.string("text").min(1, "text"),
      special: flag,
      single_word: flag,
      lstrip: flag,
      rstrip: flag,
      normalized: flag,
    }, "an object with content"),
    "an object of tokens",
  ).nullish(),
});

const addedTokensSchema = z.record(z.string(), tokenId, "an object of token ids");

type Flag = "special" | "single_word" | "lstrip" | "rstrip" | "normalized";

/** A checked tokenizer.json. */
export type TokenizerJson = z.output<typeof tokenizerSchema>;

/** A checked tokenizer_config.json, special tokens from special_tokens_map.json filled in. */
export type TokenizerConfigJson = z.output<typeof tokenizerConfigSchema>;

/** Checked contents. */
interface ParsedFiles {
  tokenizer: TokenizerJson;
  config: TokenizerConfigJson;
  /** The id of every token. */
  ids: ReadonlyMap<string, number>;
}

/**
 * Checks the files of a tokenizer. Where there is no tokenizer.json, one is put together from vocab.json and merges.txt.
 *
 * @param files The files.
 * @param place The folder they came from, and the model's type.
 * @returns The checked contents, and the id of every token.
 * @throws {CheckpointError} Naming file and key.
 */
export function parseTokenizerFiles(files: TokenizerFiles, place: FilesPlace): ParsedFiles {
  const { source } = place;
  const whole = files.has("tokenizer.json") ? parseTokenizerJson(files, source) : undefined;
  const configFile = `${source}/tokenizer_config.json`;
  const config = checkKeys(
    tokenizerConfigSchema,
    readJson(files.get("tokenizer_config.json"), configFile),
    configFile,
  );
  const mapFile = `${source}/special_tokens_map.json`;
  const map = checkKeys(
    specialTokensSchema,
    readJson(files.get("special_tokens_map.json"), mapFile),
    mapFile,
  );
  const tokenizerClass = tokenizerClassOf(config.tokenizer_class ?? undefined, place.modelType);
  const { bos_token = map.bos_token, eos_token = map.eos_token, pad_token = map.pad_token } = config;
  const named = {
    ...config,
    bos_token,
    eos_token,
    pad_token,
    unk_token: config.unk_token ?? map.unk_token,
  };
  const { tokenizer, ids } = whole ?? composeFiles(files, { config: named, tokenizerClass, source });
  const complete = withDefaults(named, { tokenizerClass, ids });
  for (const [id, { content }] of Object.entries(config.added_tokens_decoder ?? {})) {
    if (ids.get(content) === Number(id)) continue;
    const found = `${showFound(content)}, whose id in tokenizer.json is ${showFound(ids.get(content))}`;
    throw new CheckpointError(
      `Cannot read ${configFile}: added_tokens_decoder.${id}: expected the token with that id, found ${found}`,
    );
  }
  return { tokenizer, config: complete, ids };
}

/** Special tokens of the class where no file names or denies them. */
function withDefaults(
  config: TokenizerConfigJson,
  context: { tokenizerClass: string | undefined; ids: ReadonlyMap<string, number> },
): TokenizerConfigJson {
  const defaults = defaultSpecialTokens(context.tokenizerClass);
  const filled = { ...config };
  for (const key of ["bos_token", "eos_token", "pad_token"] as const) {
    const token = defaults[key];
    if (filled[key] === undefined && token !== undefined && context.ids.has(token)) filled[key] = token;
  }
  return filled;
}

function parseTokenizerJson(files: TokenizerFiles, source: string): Omit<ParsedFiles, "config"> {
  const file = `${source}/tokenizer.json`;
  const tokenizer = checkKeys(tokenizerSchema, readJson(files.get("tokenizer.json"), file), file);
  const { model } = tokenizer;
  const ids = model.type === "Unigram"
    ? readScoredVocab(model.vocab, file)
    : readVocab(model.vocab, { file, key: "model.vocab" });
  if (model.type === "BPE") checkBpe(model, { ids, file });
  addTokens(tokenizer.added_tokens, { ids, file });
  checkTemplate(tokenizer.post_processor, { ids, file });
  const unknown = model.unk_token;
  if (typeof unknown === "string" && !ids.has(unknown)) {
    const expected = "a token of the vocabulary";
    throw refuse({ file, key: "model.unk_token" }, { expected, found: unknown });
  }
  return { tokenizer, ids };
}

function composeFiles(
  files: TokenizerFiles,
  context: { config: TokenizerConfigJson; tokenizerClass: string | undefined; source: string },
): Omit<ParsedFiles, "config"> {
  const { tokenizerClass, source } = context;
  const [vocabBytes, mergesBytes] = [files.get("vocab.json"), files.get("merges.txt")];
  if (vocabBytes === undefined || mergesBytes === undefined) {
    const found = [...files.keys()].join(", ") || "nothing";
    throw new CheckpointError(
      `Cannot read ${source}/tokenizer.json: expected a file, or vocab.json and merges.txt, found ${found}`,
    );
  }
  const vocabFile = `${source}/vocab.json`;
  const vocab = readJson(vocabBytes, vocabFile);
  const twice = findDuplicateKey(readText(vocabBytes, vocabFile))?.at(-1);
  if (twice !== undefined) {
    const key = `[${JSON.stringify(twice)}]`;
    throw refuse({ file: vocabFile, key }, { expected: "each token once", found: 2 });
  }
  const ids = readVocab(vocab, { file: vocabFile });
  const config = withDefaults(context.config, { tokenizerClass, ids });
  const added = readAddedTokens(files, { config, source, ids });
  const composed = composeTokenizer({
    vocab: new Map(ids),
    merges: readText(mergesBytes, `${source}/merges.txt`),
    tokenizerClass,
    config,
    added,
    source,
  });
  const addedFile = files.has("added_tokens.json") ? "added_tokens.json" : "tokenizer_config.json";
  addTokens(added, { ids, file: `${source}/${addedFile}` });
  return { tokenizer: tokenizerSchema.parse(composed), ids };
}

/** Added tokens of tokenizer_config.json, of added_tokens.json, and special tokens that are in the vocabulary. */
function readAddedTokens(
  files: TokenizerFiles,
  context: { config: TokenizerConfigJson; source: string; ids: ReadonlyMap<string, number> },
): AddedTokenJson[] {
  const { config, source, ids } = context;
  const file = `${source}/added_tokens.json`;
  const own = checkKeys(addedTokensSchema, readJson(files.get("added_tokens.json"), file), file);
  const special = specialNames(config);
  const added = new Map<string, AddedTokenJson>();
  const add = (id: number, content: string, flags: Partial<Record<Flag, boolean | null>> = {}) => {
    if (added.has(content)) return;
    const isSpecial = flags.special ?? special.has(content);
    const { single_word, lstrip, rstrip, normalized } = flags;
    added.set(content, {
      ...{ id, content, special: isSpecial, normalized: normalized ?? !isSpecial },
      ...{ single_word: single_word ?? false, lstrip: lstrip ?? false, rstrip: rstrip ?? false },
    });
  };
  for (const [id, token] of Object.entries(config.added_tokens_decoder ?? {})) {
    add(Number(id), token.content, token);
  }
  for (const [content, id] of Object.entries(own)) add(id, content);
  for (const token of special) {
    const id = ids.get(token);
    if (id !== undefined) add(id, token);
  }
  return [...added.values()].toSorted((a, b) => a.id - b.id);
}

function specialNames(config: TokenizerConfigJson): Set<string> {
  const more = (config.additional_special_tokens ?? []).map((token) => specialToken.safeParse(token).data);
  const names = [config.bos_token, config.eos_token, config.pad_token, config.unk_token, ...more];
  return new Set(names.filter((name) => name !== undefined && name !== null));
}
