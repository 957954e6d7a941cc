/**
 * The config.json of a model folder.
 * @module
 */
import { join } from "node:path";
import { ConfigError } from "../errors.ts";
import { type ModelConfig, parseModelConfig } from "./config.ts";

/**
 * Reads the config.json of a model folder.
 *
 * @param folder A folder in Hugging Face layout.
 * @returns The checked configuration.
 * @throws {ConfigError} When the file is missing, is not JSON, or is refused by {@link parseModelConfig}.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const folder = await Deno.makeTempDir();
 * const sizes = { vocab_size: 16, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4 };
 * await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ model_type: "llama", ...sizes }));
 * const config = await readModelConfig(folder);
 * assert(config.model_type === "llama");
 * assert.equal(config.num_key_value_heads, 4); // a default: one for each query head
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function readModelConfig(folder: string): Promise<ModelConfig> {
  const file = join(folder, "config.json");
  let json: unknown;
  try {
    json = JSON.parse(await Deno.readTextFile(file));
  } catch (cause) {
    await requireFolder(folder);
    const detail = cause instanceof Error ? cause.message : String(cause);
    const found = cause instanceof Deno.errors.NotFound ? "expected a file, found nothing" : detail;
    throw new ConfigError(`Cannot read ${file}: ${found}`, { cause });
  }
  return parseModelConfig(json, { file });
}

/** A mistyped path is missing as a whole: its first file would be the wrong thing to name. */
async function requireFolder(folder: string): Promise<void> {
  let found = "a file";
  try {
    if ((await Deno.stat(folder)).isDirectory) return;
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) return;
    found = "no such folder";
  }
  throw new ConfigError(
    `Cannot read the model ${folder}: expected a folder in Hugging Face layout, or owner/name of a model on the ` +
      `hub, found ${found}`,
  );
}
