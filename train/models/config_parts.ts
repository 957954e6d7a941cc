/**
 * What the configurations of several architectures share: checks of numbers and token ids, and how a key is refused.
 * @module
 */
import { z } from "zod";
import type { DType } from "../../engine/dtype.ts";
import { ConfigError, showFound } from "../errors.ts";

/** An integer within bounds that no model of today comes near: beyond them a file is damaged. */
export function integer(least: number, most: number) {
  const expected = `an integer from ${least} to ${most}`;
  return z.int(expected).min(least, expected).max(most, expected);
}

/** A number above a bound and up to another one. */
export function real(above: number, most: number) {
  const expected = `a number above ${above} and at most ${most}`;
  return z.number(expected).gt(above, expected).max(most, expected);
}

/** true or false. */
export const flag = z.boolean("true or false");

/** The size of a head that attention and rotation can do. */
export const HEAD_DIM = z.int("a multiple of 4 from 4 to 256").min(4, "a multiple of 4 from 4 to 256")
  .max(256, "a multiple of 4 from 4 to 256").multipleOf(4, "a multiple of 4 from 4 to 256");

const tokenId = integer(0, 2 ** 24);

/** Which tokens begin and end a text, and which fill up; absent where config.json does not say. */
export const TOKEN_IDS = {
  bos_token_id: tokenId.nullable().optional(),
  eos_token_id: z.union(
    [tokenId, z.array(tokenId).min(1, "a token id or a list of them")],
    "a token id or a list of them",
  ).nullable().optional(),
  // The first Llama conversions wrote -1 for "no padding token".
  pad_token_id: z.union([tokenId, z.literal(-1).transform(() => null)], "a token id or null").nullable()
    .optional(),
};

/** Which tokens begin and end a text, and which fill up. */
export interface TokenIds {
  /** Begins a text. */
  bos_token_id: number | null;
  /** End a text. */
  eos_token_id: number | number[] | null;
  /** Fills up. */
  pad_token_id: number | null;
}

/**
 * The token ids of a configuration, with the defaults of its architecture for those that it does not name.
 *
 * @throws {ConfigError} when one is no row of the embedding
 */
export function tokenIdsOf(
  config: Partial<TokenIds> & { vocab_size: number },
  defaults: TokenIds,
  file: string,
): TokenIds {
  const given = (key: keyof TokenIds) => config[key] === undefined ? defaults[key] : config[key];
  const ids = {
    bos_token_id: given("bos_token_id"),
    eos_token_id: given("eos_token_id"),
    pad_token_id: given("pad_token_id"),
  } as TokenIds;
  for (const key of ["bos_token_id", "eos_token_id", "pad_token_id"] as const) {
    if ([ids[key] ?? []].flat().every((id) => id < config.vocab_size)) continue;
    throw refuse(file, key, { expected: `an id below vocab_size ${config.vocab_size}`, found: ids[key] });
  }
  return ids;
}

/** The error for a key of config.json. */
export function refuse(
  file: string,
  key: string,
  what: { expected: string; found: unknown },
): ConfigError {
  return new ConfigError(
    `Cannot read ${file}: ${key}: expected ${what.expected}, found ${showFound(what.found)}`,
  );
}

/**
 * Checks JSON against a schema.
 *
 * @param schema whose messages are what was expected
 * @param json of config.json, or the part under `under`
 * @param options.file for messages
 * @param options.under the key of that part
 * @throws {ConfigError} naming the first key that does not fit
 */
export function parsePart<Schema extends z.ZodType>(
  schema: Schema,
  json: unknown,
  options: { file: string; under?: string },
): z.output<Schema> {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const { under, file } = options;
  const [issue] = result.error.issues;
  const { path } = issue;
  const key = [...under ? [under] : [], ...path];
  if (issue.code === "unrecognized_keys") {
    const [unknown] = issue.keys;
    throw refuse(file, [...key, unknown].join("."), {
      expected: "no such key (it is not supported)",
      found: (json as Record<string, unknown>)[unknown],
    });
  }
  // deno-lint-ignore no-explicit-any -- walks a path that the schema reported, in JSON of unknown type
  const found = path.reduce((inner: any, step) => inner?.[step], json);
  throw refuse(file, key.join("."), { expected: issue.message, found });
}

/** Keys that change the mathematics, with the values that leave it as implemented. Null or absent always is neutral. */
export type NeutralValues = Readonly<Record<string, unknown>>;

/**
 * Refuses what is not implemented.
 *
 * @throws {ConfigError} naming the first such key
 */
export function checkNeutral(json: Record<string, unknown>, neutral: NeutralValues, file: string): void {
  for (const [key, value] of Object.entries(neutral)) {
    const found = json[key];
    if (found === undefined || found === null || found === value) continue;
    throw refuse(file, key, { expected: `${value} (other values are not supported)`, found });
  }
}

/** Hugging Face's name of an element type. */
export function torchDtype(dtype: DType): string {
  return { f32: "float32", f16: "float16", bf16: "bfloat16" }[dtype];
}

/** Sorted, as transformers does: a value that was a default when the model was made stands where it does when read. */
export function sortKeys(json: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(json).sort(([a], [b]) => (a < b ? -1 : 1)));
}
