/**
 * Errors that callers catch: what is wrong lies in the user's files or options, not in the program, so a command line
 * prints the message alone and ends with exit code 1. Every message reads "Cannot <action>: <expected>, found <actual>"
 * and names the file and the key or line.
 *
 * @module
 */

/**
 * Something the user gave is unusable. The parent of the errors below: catch this to print a message without a stack.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { readModelConfig } from "./models/config_file.ts";
 *
 * const error = await readModelConfig("no/such/folder").catch((error) => error);
 * assert(error instanceof InputError); // the message says all: print it without a stack
 * assert.match(error.message, /no\/such\/folder/);
 * ```
 */
export class InputError extends Error {
  /** The class, as messages print it. */
  override name = "InputError";
}

/**
 * A file of a model folder (weights, tokenizer) is missing, damaged, or does not fit the rest.
 *
 * @example
 * ```ts
 * const error: Error = new CheckpointError("Cannot read model.safetensors: expected 8 bytes, found 3");
 * if (!(error instanceof InputError)) throw new Error("a bad checkpoint is the user's to repair");
 * ```
 */
export class CheckpointError extends InputError {
  /** The class, as messages print it. */
  override name = "CheckpointError";
}

/**
 * A configuration holds a key or value that cannot be honoured.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseModelConfig } from "./models/config.ts";
 *
 * assert.throws(() => parseModelConfig({ model_type: "other" }, { file: "config.json" }), ConfigError);
 * ```
 */
export class ConfigError extends InputError {
  /** The class, as messages print it. */
  override name = "ConfigError";
}

/**
 * Prints a value from outside for the "found ..." part of a message: JSON, cut to a length that fits a line.
 *
 * @param value Any value; `undefined` stands for a key that is not there.
 * @returns Text such as `"gptq"`, `[512, 64]` or `nothing`.
 * @example
 * ```ts
 * if (showFound([512, 64]) !== "[512, 64]") throw new Error("a shape is printed in full");
 * if (showFound(undefined) !== "nothing") throw new Error("an absent key is nothing");
 * ```
 */
export function showFound(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  const flat = Array.isArray(value) && value.every((item) => typeof item === "number");
  const text = flat ? `[${value.join(", ")}]` : JSON.stringify(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}
