/**
 * Checks of a tokenizer's vocabulary, merges, added tokens and template against each other.
 *
 * @module
 */
import { z } from "zod";
import { isTokenId, refuse } from "./tokenizer_keys.ts";

const templateSchema = z.looseObject({
  type: z.string().optional(),
  single: z.array(z.looseObject({ SpecialToken: z.looseObject({ id: z.string() }).optional() })).optional()
    .catch(undefined),
  processors: z.array(z.unknown()).optional().catch(undefined),
});

/**
 * The ids of a vocabulary. By hand, not by schema: it has up to 10^6 entries, and an error must name the token.
 *
 * @param vocab an object of ids
 * @param place the file, and the key under which the vocabulary stands in it
 * @throws {CheckpointError} naming the token
 */
export function readVocab(vocab: unknown, place: { file: string; key?: string }): Map<string, number> {
  const { file, key: prefix = "" } = place;
  if (typeof vocab !== "object" || vocab === null || Array.isArray(vocab)) {
    throw refuse({ file, key: prefix || "the whole" }, { expected: "an object of token ids", found: vocab });
  }
  const ids = new Map<string, number>();
  const tokens = new Map<number, string>();
  for (const [token, id] of Object.entries(vocab)) {
    const key = `${prefix}[${JSON.stringify(token)}]`;
    if (!isTokenId(id)) throw refuse({ file, key }, { expected: "a token id up to 2^24", found: id });
    const other = tokens.get(id);
    if (other !== undefined) {
      throw refuse({ file, key }, {
        expected: `an id other than that of ${JSON.stringify(other)}`,
        found: id,
      });
    }
    tokens.set(id, token);
    ids.set(token, id);
  }
  return ids;
}

/**
 * The ids of a Unigram vocabulary.
 *
 * @param vocab a list of tokens with scores
 * @param file tokenizer.json, for messages
 * @throws {CheckpointError} naming the entry
 */
export function readScoredVocab(vocab: unknown, file: string): Map<string, number> {
  const key = "model.vocab";
  if (!Array.isArray(vocab)) {
    throw refuse({ file, key }, { expected: "a list of [token, score]", found: vocab });
  }
  const ids = new Map<string, number>();
  for (const [id, entry] of vocab.entries()) {
    const good = Array.isArray(entry) && typeof entry[0] === "string" && typeof entry[1] === "number";
    if (!good) throw refuse({ file, key: `${key}[${id}]` }, { expected: "[token, score]", found: entry });
    ids.set(entry[0], id);
  }
  return ids;
}

/**
 * Checks the merges of a byte-pair encoding in tokenizer.json.
 *
 * @param model its `model`
 * @param place ids of the vocabulary, and the file
 * @throws {CheckpointError} naming the merge
 */
export function checkBpe(
  model: { merges?: unknown; continuing_subword_prefix?: unknown },
  place: { ids: ReadonlyMap<string, number>; file: string },
): void {
  const { ids, file } = place;
  const { merges, continuing_subword_prefix: prefix } = model;
  if (prefix) {
    const key = "model.continuing_subword_prefix";
    throw refuse({ file, key }, { expected: "none (not supported)", found: prefix });
  }
  if (!Array.isArray(merges)) {
    throw refuse({ file, key: "model.merges" }, { expected: "a list of pairs", found: merges });
  }
  const paired = Array.isArray(merges[0]);
  for (const [i, merge] of merges.entries()) {
    const pair: unknown = paired ? merge : typeof merge === "string" ? merge.split(" ") : merge;
    const good = Array.isArray(pair) && pair.length === 2 && pair.every((piece) => ids.has(piece)) &&
      ids.has(pair[0] + pair[1]);
    if (good) continue;
    const expected = "two tokens whose union is a token";
    throw refuse({ file, key: `model.merges[${i}]` }, { expected, found: merge });
  }
}

/**
 * Checks a post-processor. The library reads a template's token that does not exist as the unknown token.
 *
 * @throws {CheckpointError} naming the token
 */
export function checkTemplate(
  processor: unknown,
  place: { ids: ReadonlyMap<string, number>; file: string },
): void {
  const { ids, file } = place;
  const { type, single, processors } = templateSchema.parse(processor ?? {});
  for (const inner of processors ?? []) checkTemplate(inner, place);
  if (type !== "TemplateProcessing") return;
  const key = "post_processor.single";
  if (single === undefined) {
    throw refuse({ file, key }, { expected: "a list of tokens and sequences", found: single });
  }
  for (const [i, { SpecialToken: token }] of single.entries()) {
    if (!token || ids.has(token.id)) continue;
    const expected = "a token of the vocabulary";
    throw refuse({ file, key: `${key}[${i}].SpecialToken.id` }, { expected, found: token.id });
  }
}

/**
 * Adds added tokens to the ids of a vocabulary.
 *
 * @param tokens the added tokens
 * @param place ids, which it changes; and the file
 * @throws {CheckpointError} a token with two ids, an id with two tokens
 */
export function addTokens(
  tokens: readonly { id: number; content: string }[],
  place: { ids: Map<string, number>; file: string },
): void {
  const { ids, file } = place;
  const contents = new Map([...ids].map(([token, id]) => [id, token]));
  for (const [i, { id, content }] of tokens.entries()) {
    const known = ids.get(content);
    const key = `added_tokens[${i}].id`;
    if (known !== undefined && known !== id) {
      throw refuse({ file, key }, {
        expected: `${known}, the other id of ${JSON.stringify(content)}`,
        found: id,
      });
    }
    const other = contents.get(id);
    if (other !== undefined && other !== content) {
      throw refuse({ file, key }, {
        expected: `an id other than that of ${JSON.stringify(other)}`,
        found: id,
      });
    }
    ids.set(content, id);
    contents.set(id, content);
  }
}
