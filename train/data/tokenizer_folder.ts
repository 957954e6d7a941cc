/**
 * Tokenizers from and to model folders.
 * @module
 */
import { join } from "node:path";
import { writeFileAtomically } from "../atomic_file.ts";
import { CheckpointError } from "../errors.ts";
import type { FileSystem } from "../file_system.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";
import { TOKENIZER_FILES } from "./tokenizer_files.ts";
import { readJson } from "./tokenizer_keys.ts";

/**
 * Loads the tokenizer of a model folder.
 *
 * @param folder A folder with tokenizer.json, or vocab.json and merges.txt, and, where there are any, tokenizer_config.json and its companions.
 * @returns The tokenizer.
 * @throws {CheckpointError} When there is neither tokenizer.json nor vocab.json with merges.txt, or a file is malformed, naming file and key.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { characterTokenizerFiles } from "./character_tokenizer.ts";
 * import { createTokenizer } from "./tokenizer.ts";
 *
 * const folder = await Deno.makeTempDir();
 * const made = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * await saveTokenizer(made, folder);
 * const tokenizer = await loadTokenizer(folder);
 * assert.equal(tokenizer.decode(tokenizer.encode("1+10.")), "1+10.");
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const files = new Map<string, Uint8Array>();
  for (const name of TOKENIZER_FILES) {
    try {
      files.set(name, await Deno.readFile(join(folder, name)));
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) continue;
      const detail = cause instanceof Error ? cause.message : String(cause);
      throw new CheckpointError(`Cannot read ${join(folder, name)}: ${detail}`, { cause });
    }
  }
  return createTokenizer(files, { source: folder, modelType: await readModelType(folder) });
}

/**
 * Writes a tokenizer's files into a model folder.
 *
 * @param tokenizer The tokenizer.
 * @param folder An existing folder.
 * @param options.fileSystem Deno by default.
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { characterTokenizerFiles } from "./character_tokenizer.ts";
 * import { createTokenizer } from "./tokenizer.ts";
 *
 * const folder = await Deno.makeTempDir();
 * const made = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * await saveTokenizer(made, folder);
 * const names = Array.from(Deno.readDirSync(folder), (entry) => entry.name).toSorted();
 * assert.deepEqual(names, ["tokenizer.json", "tokenizer_config.json"]);
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function saveTokenizer(
  tokenizer: Tokenizer,
  folder: string,
  options: { fileSystem?: FileSystem } = {},
): Promise<void> {
  for (const [name, bytes] of tokenizer.files) {
    await writeFileAtomically(join(folder, name), (append) => append(bytes), options);
  }
}

/** The model's type, where there is a config.json: old folders of GPT-2 name the tokenizer's class nowhere else. */
async function readModelType(folder: string): Promise<string | undefined> {
  const file = join(folder, "config.json");
  let bytes: Uint8Array;
  try {
    bytes = await Deno.readFile(file);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    throw new CheckpointError(`Cannot read ${file}: ${(cause as Error).message}`, { cause });
  }
  const config = readJson(bytes, file);
  const type = typeof config === "object" && config !== null && "model_type" in config && config.model_type;
  return typeof type === "string" ? type : undefined;
}
