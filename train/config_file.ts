/**
 * Settings from a JSON or YAML file.
 * @module
 */
import { findJsonError } from "./data/json_position.ts";
import { ConfigError, showFound } from "./errors.ts";
import { type GivenSetting, translateOption } from "./given_settings.ts";
import { findDuplicateKey } from "./models/duplicate_keys.ts";
import { OPTION_NAMES } from "./option_names.ts";
import { STAMP_KEY } from "./run_folder.ts";
import type { Setting } from "./settings.ts";
import { nearestName } from "./suggest.ts";
import { isYamlFile } from "./yaml_files.ts";
import { parseYaml } from "./yaml_text.ts";

/** What a config file may hold. */
export interface ConfigFileOptions {
  /** What may be set. */
  readonly settings: readonly Setting[];
  /** What may stand there as well, and sets nothing: a run's settings that the command does not read. */
  readonly passedOver?: readonly Setting[];
  /** Whether other libraries' names are known, too. */
  readonly takesOptionNames?: boolean;
}

/**
 * Reads a config file: one object with the keys of the run's configuration, in JSON, or in YAML where the name ends with
 * .yaml or .yml. Keys are checked here, so that the message can suggest one; values are checked where flags are.
 *
 * @param path the file
 * @param options what may be set
 * @returns the settings; a group such as `spo` comes before its members, as an empty object
 * @throws {ConfigError} on a file that is missing or malformed, with a key twice or a key that is not known
 */
export function readConfigFile(path: string, options: ConfigFileOptions): GivenSetting[] {
  const isYaml = isYamlFile(path);
  const text = readText(path, isYaml ? "YAML" : "JSON");
  const { value, describe } = isYaml ? readYaml(text, path) : readJson(text, path);
  // A run's own config.json may be given: its stamp is no setting.
  if (isObject(value)) delete value[STAMP_KEY];
  if (!isObject(value)) {
    throw new ConfigError(`Cannot read ${path}: expected an object of settings, found ${showFound(value)}`);
  }
  return listKeys(value, { ...options, describe, parents: [] });
}

/**
 * How errors name a key of a config file.
 *
 * @param place the file, and where in it
 * @param key dotted, `spo.lambda`
 */
export function describeFileKey(place: string, key: string): string {
  // A key of a damaged file may be as long as the file.
  return `${place}: key ${key.length <= 200 ? key : `${key.slice(0, 197)}...`}`;
}

/** A file's content, and how errors name a key of it. */
interface Content {
  readonly value: unknown;
  readonly describe: (keys: readonly string[]) => string;
}

function readText(path: string, format: string): string {
  let bytes: Uint8Array;
  try {
    bytes = Deno.readFileSync(path);
  } catch (cause) {
    throw new ConfigError(`Cannot read ${path}: expected a ${format} file, found ${readFault(cause)}`, {
      cause,
    });
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

function readYaml(text: string, path: string): Content {
  const { value, positionOf } = parseYaml(text, path);
  return {
    value,
    describe(keys) {
      const position = positionOf(keys);
      const place = position === undefined ? path : `${path}:${position.line}:${position.column}`;
      return describeFileKey(place, keys.join("."));
    },
  };
}

function readJson(text: string, path: string): Content {
  const describe = (keys: readonly string[]) => describeFileKey(path, keys.join("."));
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
  // JSON.parse keeps the last of two equal keys and says nothing.
  const repeated = findDuplicateKey(text);
  if (repeated) throw new ConfigError(`Cannot use ${describe(repeated)}: expected it once, found it twice`);
  return { value, describe };
}

interface KeyOptions extends ConfigFileOptions {
  readonly describe: (keys: readonly string[]) => string;
  readonly parents: readonly string[];
}

function listKeys(value: Record<string, unknown>, options: KeyOptions): GivenSetting[] {
  return Object.entries(value).flatMap(([key, child]) => listKey(key, child, options));
}

function listKey(key: string, child: unknown, options: KeyOptions): GivenSetting[] {
  const { settings, passedOver = [], takesOptionNames, describe, parents } = options;
  const keys = [...parents, key];
  const [name, described] = [keys.join("."), describe(keys)];
  const isKnown = (known: readonly Setting[]) => known.some((setting) => setting.name === name);
  const isGroup = [...settings, ...passedOver].some((setting) => setting.name.startsWith(`${name}.`));
  if (isGroup) {
    if (!isObject(child)) {
      throw new ConfigError(
        `Cannot use ${described}: expected an object of settings, found ${showFound(child)}`,
      );
    }
    return [{ name, value: {}, described }, ...listKeys(child, { ...options, parents: keys })];
  }
  const isOther = takesOptionNames && parents.length === 0 && Object.hasOwn(OPTION_NAMES, key);
  if (!isKnown(settings) && !isKnown(passedOver) && !isOther) throw unknownKey(name, described, options);
  if (child === null) {
    throw new ConfigError(
      `Cannot use ${described}: expected a value, found null (leave the key out for its default)`,
    );
  }
  if (isKnown(settings)) return [{ name, value: child, described }];
  if (isKnown(passedOver)) return [];
  return readOption(translateOption(key, child, described), options);
}

/** What of another library's name concerns the command: nothing, where it is of settings that are passed over. */
function readOption(given: GivenSetting, { settings, passedOver = [] }: ConfigFileOptions): GivenSetting[] {
  const isPassedOver = (name: string) =>
    passedOver.some((setting) => setting.name === name) && !settings.some((setting) => setting.name === name);
  if (isPassedOver(given.name)) return [];
  const { demand, ...terms } = given.terms ?? {};
  return [demand && isPassedOver(demand.setting) ? { ...given, terms } : given];
}

function unknownKey(name: string, described: string, options: ConfigFileOptions): ConfigError {
  const names = options.settings.map((setting) => setting.name);
  const others = options.takesOptionNames ? Object.keys(OPTION_NAMES) : [];
  const nearest = nearestName(name, [...names, ...others]);
  const hint = nearest === undefined ? "" : ` (did you mean ${nearest}?)`;
  return new ConfigError(`Cannot use ${described}: expected a known setting, found none of that name${hint}`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
