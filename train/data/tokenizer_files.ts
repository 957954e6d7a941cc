/**
 * The files of a Hugging Face tokenizer, checked before the library sees them: it trusts its input and would fail far
 * from the cause, or not at all.
 *
 * @module
 */
import { z } from "zod";
import { CheckpointError, showFound } from "../errors.ts";

/** The files that make up a tokenizer; the first is the only one that must be there. */
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

const tokenId = z.int("a token id").min(0, "a token id").max(2 ** 24, "a token id up to 2^24");
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

const templateSchema = z.looseObject({
  type: z.string().optional(),
  single: z.array(z.looseObject({ SpecialToken: z.looseObject({ id: z.string() }).optional() })).optional()
    .catch(undefined),
  processors: z.array(z.unknown()).optional().catch(undefined),
});

const specialToken = z.union(
  [z.string(), z.looseObject({ content: z.string() }).transform((token) => token.content)],
  "a token, or an object with its content",
).nullish();

const specialTokensSchema = z.looseObject({
  bos_token: specialToken,
  eos_token: specialToken,
  pad_token: specialToken,
}, "an object");

const tokenizerConfigSchema = specialTokensSchema.extend({
  clean_up_tokenization_spaces: z.boolean("true or false").nullish(),
  add_bos_token: z.boolean("true or false").nullish(),
  add_eos_token: z.boolean("true or false").nullish(),
  additional_special_tokens: z.array(z.unknown(), "a list of tokens").nullish(),
  added_tokens_decoder: z.record(
    z.string(),
    z.looseObject({ content: z.string("text") }, "an object with content"),
    "an object of tokens",
  ).nullish(),
});

/** A checked tokenizer.json. */
export type TokenizerJson = z.output<typeof tokenizerSchema>;

/** A checked tokenizer_config.json, special tokens from special_tokens_map.json filled in. */
export type TokenizerConfigJson = z.output<typeof tokenizerConfigSchema>;

/**
 * Checks the JSON files of a tokenizer.
 *
 * @param files The files.
 * @param source The folder they came from, for messages.
 * @returns The checked contents, and the id of every token.
 * @throws {CheckpointError} Naming file and key.
 */
export function parseTokenizerFiles(
  files: TokenizerFiles,
  source: string,
): { tokenizer: TokenizerJson; config: TokenizerConfigJson; ids: ReadonlyMap<string, number> } {
  const file = `${source}/tokenizer.json`;
  const tokenizer = parseFile(tokenizerSchema, files.get("tokenizer.json"), file);
  const ids = readVocab(tokenizer.model.vocab, { type: tokenizer.model.type, file });
  if (tokenizer.model.type === "BPE") checkBpe(tokenizer.model, { ids, file });
  addTokens(tokenizer.added_tokens, { ids, file });
  checkTemplate(tokenizer.post_processor, { ids, file });
  const unknown = tokenizer.model.unk_token;
  if (typeof unknown === "string" && !ids.has(unknown)) {
    throw refuse(file, "model.unk_token", "a token of the vocabulary", unknown);
  }
  const config = parseFile(
    tokenizerConfigSchema,
    files.get("tokenizer_config.json"),
    `${source}/tokenizer_config.json`,
  );
  const map = parseFile(
    specialTokensSchema,
    files.get("special_tokens_map.json"),
    `${source}/special_tokens_map.json`,
  );
  for (const [id, { content }] of Object.entries(config.added_tokens_decoder ?? {})) {
    if (ids.get(content) === Number(id)) continue;
    const found = `${showFound(content)}, whose id in tokenizer.json is ${showFound(ids.get(content))}`;
    throw new CheckpointError(
      `Cannot read ${source}/tokenizer_config.json: added_tokens_decoder.${id}: expected the token with that id, found ${found}`,
    );
  }
  const { bos_token = map.bos_token, eos_token = map.eos_token, pad_token = map.pad_token } = config;
  return { tokenizer, config: { ...config, bos_token, eos_token, pad_token }, ids };
}

function refuse(file: string, key: string, expected: string, found: unknown): CheckpointError {
  return new CheckpointError(`Cannot read ${file}: ${key}: expected ${expected}, found ${showFound(found)}`);
}

function parseFile<T>(schema: z.ZodType<T>, bytes: Uint8Array | undefined, file: string): T {
  let value: unknown = {};
  try {
    if (bytes) value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`Cannot read ${file}: expected JSON, found ${detail}`, { cause });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0];
  // deno-lint-ignore no-explicit-any -- walks a path that the schema reported, in JSON of unknown type
  const found = path.reduce((inner: any, key) => inner?.[key], value);
  throw refuse(file, path.join(".") || "the whole", message, found);
}

/** By hand, not by schema: a vocabulary has up to 10^6 entries, and an error must name the token. */
function readVocab(vocab: unknown, place: { type: string; file: string }): Map<string, number> {
  const { type, file } = place;
  if (type === "Unigram") return readScoredVocab(vocab, file);
  if (typeof vocab !== "object" || vocab === null || Array.isArray(vocab)) {
    throw refuse(file, "model.vocab", "an object of token ids", vocab);
  }
  const ids = new Map<string, number>();
  const tokens = new Map<number, string>();
  for (const [token, id] of Object.entries(vocab)) {
    const key = `model.vocab[${JSON.stringify(token)}]`;
    if (!tokenId.safeParse(id).success) throw refuse(file, key, "a token id up to 2^24", id);
    const other = tokens.get(id);
    if (other !== undefined) throw refuse(file, key, `an id other than that of ${JSON.stringify(other)}`, id);
    tokens.set(id, token);
    ids.set(token, id);
  }
  return ids;
}

function readScoredVocab(vocab: unknown, file: string): Map<string, number> {
  if (!Array.isArray(vocab)) throw refuse(file, "model.vocab", "a list of [token, score]", vocab);
  const ids = new Map<string, number>();
  for (const [id, entry] of vocab.entries()) {
    const good = Array.isArray(entry) && typeof entry[0] === "string" && typeof entry[1] === "number";
    if (!good) throw refuse(file, `model.vocab[${id}]`, "[token, score]", entry);
    ids.set(entry[0], id);
  }
  return ids;
}

function checkBpe(
  model: TokenizerJson["model"],
  place: { ids: ReadonlyMap<string, number>; file: string },
): void {
  const { ids, file } = place;
  const prefix = model.continuing_subword_prefix;
  if (prefix) throw refuse(file, "model.continuing_subword_prefix", "none (not supported)", prefix);
  const { merges } = model;
  if (!Array.isArray(merges)) throw refuse(file, "model.merges", "a list of pairs", merges);
  const paired = Array.isArray(merges[0]);
  for (const [i, merge] of merges.entries()) {
    const pair: unknown = paired ? merge : typeof merge === "string" ? merge.split(" ") : merge;
    const good = Array.isArray(pair) && pair.length === 2 && pair.every((piece) => ids.has(piece)) &&
      ids.has(pair[0] + pair[1]);
    if (!good) throw refuse(file, `model.merges[${i}]`, "two tokens whose union is a token", merge);
  }
}

/** The library reads a template's token that does not exist as the unknown token. */
function checkTemplate(processor: unknown, place: { ids: ReadonlyMap<string, number>; file: string }): void {
  const { ids, file } = place;
  const { type, single, processors } = templateSchema.parse(processor ?? {});
  for (const inner of processors ?? []) checkTemplate(inner, place);
  if (type !== "TemplateProcessing") return;
  if (single === undefined) {
    throw refuse(file, "post_processor.single", "a list of tokens and sequences", single);
  }
  for (const [i, { SpecialToken: token }] of single.entries()) {
    if (token && !ids.has(token.id)) {
      throw refuse(
        file,
        `post_processor.single[${i}].SpecialToken.id`,
        "a token of the vocabulary",
        token.id,
      );
    }
  }
}

function addTokens(
  tokens: TokenizerJson["added_tokens"],
  place: { ids: Map<string, number>; file: string },
): void {
  const { ids, file } = place;
  const contents = new Map([...ids].map(([token, id]) => [id, token]));
  for (const [i, { id, content }] of tokens.entries()) {
    const known = ids.get(content);
    const key = `added_tokens[${i}].id`;
    if (known !== undefined && known !== id) {
      throw refuse(file, key, `${known}, the other id of ${JSON.stringify(content)}`, id);
    }
    const other = contents.get(id);
    if (other !== undefined && other !== content) {
      throw refuse(file, key, `an id other than that of ${JSON.stringify(other)}`, id);
    }
    ids.set(content, id);
    contents.set(id, content);
  }
}
