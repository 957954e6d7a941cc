/**
 * The tokens that end a text: those of generation_config.json, which chat models need more than one of, and the
 * tokenizer's.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import type { Tokenizer } from "../data/tokenizer.ts";
import { ConfigError, showFound } from "../errors.ts";

/** Of all its keys, sampling included, these are read alone: how text is chosen is said by flags. */
const schema = z.object({
  eos_token_id: z.union([z.int().nonnegative(), z.array(z.int().nonnegative())]).nullish(),
});

/**
 * Reads a model folder's end tokens.
 *
 * @param folder the model's; it may be without generation_config.json
 * @param tokenizer whose end token counts too
 * @returns ids, each once
 * @throws {ConfigError} naming file and key
 */
export async function readStopIds(
  folder: string,
  tokenizer: Pick<Tokenizer, "eosTokenId">,
): Promise<number[]> {
  const file = join(folder, "generation_config.json");
  const own = tokenizer.eosTokenId === undefined ? [] : [tokenizer.eosTokenId];
  let text: string;
  try {
    text = await Deno.readTextFile(file);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return own;
    throw new ConfigError(`Cannot read ${file}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
  return [...new Set([...[parse(text, file) ?? []].flat(), ...own])];
}

function parse(text: string, file: string): number | number[] | null | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new ConfigError(`Cannot read ${file}: expected JSON: ${(cause as Error).message}`, { cause });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data.eos_token_id;
  const key = parsed.error.issues[0].path[0];
  const found = key === undefined ? json : (json as Record<string, unknown>)[String(key)];
  throw new ConfigError(
    `Cannot read ${file}: ${
      key === undefined ? "expected an object" : `${String(key)}: expected a token id or a list of them`
    }, ` +
      `found ${showFound(found)}`,
  );
}
