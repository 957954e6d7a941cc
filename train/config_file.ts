/**
 * Settings from a JSON file.
 * @module
 */
import { findJsonError } from "./data/json_position.ts";
import { ConfigError, showFound } from "./errors.ts";
import { findDuplicateKey } from "./models/duplicate_keys.ts";
import type { Setting } from "./settings.ts";
import { STAMP_KEY } from "./run_folder.ts";
import { nearestName } from "./suggest.ts";

/**
 * Reads a config file: one JSON object with the keys of the run's configuration. Keys are checked here, so that the
 * message can suggest one; values are checked where flags are.
 *
 * @param path a JSON file
 * @param settings what may be set
 * @returns the settings, nested as in the file
 * @throws {ConfigError} on a file that is missing, YAML, not JSON, with a key twice or a key that is not known
 */
export function readConfigFile(path: string, settings: readonly Setting[]): Record<string, unknown> {
  if (/\.ya?ml$/i.test(path)) {
    throw new ConfigError(
      `Cannot read ${path}: expected a JSON file, found a YAML file, which is not supported yet`,
    );
  }
  const value = parseJson(readText(path), path);
  if (!isObject(value)) {
    throw new ConfigError(`Cannot read ${path}: expected an object of settings, found ${showFound(value)}`);
  }
  checkKeys(value, { path, settings, parents: [] });
  return value;
}

/**
 * How errors name a key of a config file.
 *
 * @param path the file
 * @param key dotted, `spo.lambda`
 */
export function describeFileKey(path: string, key: string): string {
  // A key of a damaged file may be as long as the file.
  return `${path}: key ${key.length <= 200 ? key : `${key.slice(0, 197)}...`}`;
}

function readText(path: string): string {
  let bytes: Uint8Array;
  try {
    bytes = Deno.readFileSync(path);
  } catch (cause) {
    throw new ConfigError(`Cannot read ${path}: expected a JSON file, found ${readFault(cause)}`, { cause });
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new ConfigError(`Cannot read ${path}: expected UTF-8 text, found other bytes`, { cause });
  }
}

function readFault(cause: unknown): string {
  if (cause instanceof Deno.errors.NotFound) return "no such file";
  if (cause instanceof Deno.errors.IsADirectory) return "a folder";
  return (cause as Error).message;
}

function parseJson(text: string, path: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const error = findJsonError(text);
    if (error === undefined) throw cause;
    const where = `${path}:${error.line}:${error.column}`;
    const detail = `expected ${error.expected}, found ${error.found}`;
    throw new ConfigError(`Cannot read ${where}: malformed JSON: ${detail}`, { cause });
  }
  // A run's own config.json may be given: its stamp is no setting.
  if (isObject(value)) delete value[STAMP_KEY];
  // JSON.parse keeps the last of two equal keys and says nothing.
  const repeated = findDuplicateKey(text);
  if (repeated) {
    const where = describeFileKey(path, repeated.join("."));
    throw new ConfigError(`Cannot use ${where}: expected it once, found it twice`);
  }
  return value;
}

function checkKeys(
  value: Record<string, unknown>,
  options: { path: string; settings: readonly Setting[]; parents: string[] },
): void {
  const { path, settings, parents } = options;
  for (const [key, child] of Object.entries(value)) {
    const name = [...parents, key].join(".");
    if (settings.some((setting) => setting.name === name)) continue;
    const where = describeFileKey(path, name);
    if (!settings.some((setting) => setting.name.startsWith(`${name}.`))) {
      const nearest = nearestName(name, settings.map((setting) => setting.name));
      const hint = nearest === undefined ? "" : ` (did you mean ${nearest}?)`;
      throw new ConfigError(
        `Cannot use ${where}: expected a known setting, found none of that name${hint}`,
      );
    }
    if (!isObject(child)) {
      throw new ConfigError(`Cannot use ${where}: expected an object of settings, found ${showFound(child)}`);
    }
    checkKeys(child, { path, settings, parents: [...parents, key] });
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
