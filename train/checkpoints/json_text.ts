/**
 * JSON of a checkpoint: bounded in size and depth, each key once, checked by a schema.
 * @module
 */
import type { z } from "zod";
import { CheckpointError, showFound } from "../errors.ts";
import { findDuplicateKey } from "../models/duplicate_keys.ts";

/** Of one JSON file: a longer one is none that was written here. */
export const MAX_JSON_BYTES = 2 ** 24;

/** Deeper values overflow the stack of those who walk them. */
const MAX_DEPTH = 64;

/**
 * Parses and checks JSON.
 *
 * @param bytes UTF-8
 * @param options.file its name, for messages
 * @param options.schema what is expected
 * @throws {CheckpointError} naming the file and the key
 */
export function parseJson<Schema extends z.ZodType>(
  bytes: Uint8Array,
  options: { file: string; schema: Schema },
): z.output<Schema> {
  const { file, schema } = options;
  const refuse = (expected: string, found: string, cause?: unknown) =>
    new CheckpointError(`Cannot read ${file}: expected ${expected}, found ${found}`, { cause });
  if (bytes.byteLength > MAX_JSON_BYTES) {
    throw refuse(`at most ${MAX_JSON_BYTES} bytes`, `${bytes.byteLength}`);
  }
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    if (depthOf(text) > MAX_DEPTH) throw refuse(`values nested at most ${MAX_DEPTH} deep`, "deeper ones");
    value = JSON.parse(text);
    const duplicate = findDuplicateKey(text);
    if (duplicate) throw refuse(`one key ${showFound(duplicate.join("."))}`, "two");
  } catch (error) {
    if (error instanceof CheckpointError) throw error;
    throw refuse("JSON", error instanceof Error ? error.message : String(error), error);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0];
  // deno-lint-ignore no-explicit-any -- walks a path that the schema reported, in JSON of unknown type
  const found = path.reduce((inner: any, key) => inner?.[key], value);
  const key = path.length > 0 ? `${path.map(String).join(".")}: ` : "";
  throw new CheckpointError(`Cannot read ${file}: ${key}expected ${message}, found ${showFound(found)}`);
}

/** How deep brackets are nested outside strings; of text that is no JSON, any number. */
function depthOf(text: string): number {
  let [depth, deepest] = [0, 0];
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === "{" || character === "[") deepest = Math.max(deepest, ++depth);
    else if (character === "}" || character === "]") depth--;
    else if (character === '"') {
      for (i++; i < text.length && text[i] !== '"'; i++) if (text[i] === "\\") i++;
    }
  }
  return deepest;
}
