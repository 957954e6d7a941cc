/**
 * What the checks of all tokenizer files share: reading JSON by a schema, and errors that name file and key.
 *
 * @module
 */
import { z } from "zod";
import { CheckpointError, showFound } from "../errors.ts";

/** No embedding has more rows. */
const MAX_TOKEN_ID = 2 ** 24;

/** A token id. */
export const tokenId = z.int("a token id").min(0, "a token id").max(MAX_TOKEN_ID, "a token id up to 2^24");

/** Whether a value is a token id; without the schema, which takes seconds for a vocabulary. */
export function isTokenId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_TOKEN_ID;
}

/**
 * The error for a key of a file.
 *
 * @param place the file and the key
 * @param values what was expected, in words, and what was found
 */
export function refuse(
  place: { file: string; key: string },
  values: { expected: string; found: unknown },
): CheckpointError {
  return new CheckpointError(
    `Cannot read ${place.file}: ${place.key}: expected ${values.expected}, found ${showFound(values.found)}`,
  );
}

/**
 * The text of a file. A byte order mark at its start is left out.
 *
 * @throws {CheckpointError} other bytes than UTF-8
 */
export function readText(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new CheckpointError(`Cannot read ${file}: expected UTF-8 text, found other bytes`, { cause });
  }
}

/**
 * The JSON of a file.
 *
 * @param bytes its content; `{}` where there is none
 * @param file its name, for messages
 * @throws {CheckpointError} naming the file
 */
export function readJson(bytes: Uint8Array | undefined, file: string): unknown {
  if (bytes === undefined) return {};
  const text = readText(bytes, file);
  try {
    return JSON.parse(text);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`Cannot read ${file}: expected JSON, found ${detail}`, { cause });
  }
}

/**
 * Checks a value of a file by a schema whose messages say what was expected.
 *
 * @throws {CheckpointError} naming file and key
 */
export function checkKeys<T>(schema: z.ZodType<T>, value: unknown, file: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0];
  // deno-lint-ignore no-explicit-any -- walks a path that the schema reported, in JSON of unknown type
  const found = path.reduce((inner: any, key) => inner?.[key], value);
  throw refuse({ file, key: path.join(".") || "the whole" }, { expected: message, found });
}
