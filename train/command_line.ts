/**
 * From the words of a command line to raw settings, each with the place it came from.
 * @module
 */
import { parseArgs } from "node:util";
import type { z } from "zod";
import type { Command } from "./commands/command.ts";
import { type CommandName, COMMANDS } from "./commands/registry.ts";
import type { ConfigSource } from "./config.ts";
import { describeFileKey, readConfigFile } from "./config_file.ts";
import { ConfigError, showFound } from "./errors.ts";
import { flagOf, listSettings, type Setting } from "./settings.ts";
import { nearestName } from "./suggest.ts";

/** A command with what was set for it. */
export interface Invocation {
  readonly help: false;
  readonly command: CommandName;
  /** Nested settings as the user gave them, defaults not filled in: flags over the config file. */
  readonly raw: Readonly<Record<string, unknown>>;
  /** Names a setting by the flag as typed, or by the file and key that gave it. */
  readonly source: ConfigSource;
  /** Dotted names of what was set, `spo.lambda`. */
  readonly given: ReadonlySet<string>;
  /** Words that belong to no flag, where the command takes any. */
  readonly words: readonly string[];
  /** The file of settings, where one was named. */
  readonly configFile?: string;
}

/** A request for help, on one command or on all. */
export interface HelpRequest {
  readonly help: true;
  readonly command?: CommandName;
}

/**
 * Parses a command line: a command, then flags derived from its schema. Values have the type that the schema gives
 * them; their ranges are left to {@link parseRunConfig}.
 *
 * @param argv the words after the program's name
 * @returns the command and its settings; no words at all ask for help
 * @throws {ConfigError} on an unknown command, flag or config key (with a suggestion), a flag without its value or
 *   given twice, a word that belongs to no flag, or an unusable config file
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const line = parseCommandLine(["train", "--learning-rate", "5e-6", "--spo.v-star=initial", "--overwrite"]);
 * assert.ok(!line.help);
 * assert.deepEqual(line.raw, { learningRate: 5e-6, spo: { vStar: "initial" }, overwrite: true });
 * ```
 */
export function parseCommandLine(argv: readonly string[]): Invocation | HelpRequest {
  const [word, ...words] = argv;
  if (word === undefined) return { help: true };
  if (word === "help" || isHelpFlag(word)) {
    return isCommand(words[0]) ? { help: true, command: words[0] } : { help: true };
  }
  if (!isCommand(word)) throw unknownCommand(word);
  const flags = commandFlags(word);
  const { tokens } = parseArgs({ args: words, options: flags.options, tokens: true, strict: false });
  if (tokens.some((token) => token.kind === "option" && isHelpFlag(words[token.index]))) {
    return { help: true, command: word };
  }
  return { help: false, command: word, ...collect(tokens, { ...flags, command: word, words }) };
}

/**
 * Checks the flags of a command that is no run, and fills in defaults.
 *
 * @param schema of the flags
 * @param invocation what was set
 * @throws {ConfigError} naming the flag and what was expected
 */
export function parseFlags<Schema extends z.ZodObject>(
  schema: Schema,
  { raw, source }: Pick<Invocation, "raw" | "source">,
): z.output<Schema> {
  const flags = schema.safeParse(raw);
  if (flags.success) return flags.data;
  const { path, message } = flags.error.issues[0];
  throw new ConfigError(`Cannot use ${source.describe(path.map(String))}: ${message}`);
}

/** What parseArgs needs to know of a command's flags, and what we need to know of its answer. */
interface CommandFlags {
  readonly settings: readonly Setting[];
  /** By name without dashes, in both spellings where there are two. */
  readonly byName: ReadonlyMap<string, Setting>;
  readonly options: Readonly<Record<string, { type: "string" | "boolean" }>>;
}

interface Context extends CommandFlags {
  readonly command: CommandName;
  readonly words: readonly string[];
}

type Token = { kind: string; index: number; name?: string; value?: string | boolean; inlineValue?: boolean };

/** The file that `--config` names; no setting of the run itself. */
const CONFIG_SETTING: Setting = { path: [], name: "config", flag: "--config", kind: "text", choices: [] };
const NUMBER = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?$/i;

function isHelpFlag(word: string): boolean {
  return word === "--help" || word === "-h";
}

function isCommand(word: string | undefined): word is CommandName {
  return word !== undefined && Object.hasOwn(COMMANDS, word);
}

function unknownCommand(word: string): ConfigError {
  const names = Object.keys(COMMANDS);
  const hint = suggestion(nearestName(word, names));
  return new ConfigError(
    `Cannot run ${showFound(word)}: expected a command, found none of that name (${
      hint ?? `known: ${names.join(", ")}`
    })`,
  );
}

function commandFlags(command: CommandName): CommandFlags {
  const { schema, takesConfig } = COMMANDS[command];
  const settings = [...listSettings(schema), ...(takesConfig ? [CONFIG_SETTING] : [])];
  const byName = new Map(settings.flatMap((setting) => {
    const names = [setting.flag.slice(2), ...(setting.path.length > 1 ? [setting.name] : [])];
    return names.map((name) => [name, setting]);
  }));
  const types = [...byName].map(([name, { kind }]) => {
    return [name, { type: kind === "boolean" ? "boolean" as const : "string" as const }] as const;
  });
  return { settings, byName, options: Object.fromEntries([...types, ["help", { type: "boolean" }]]) };
}

function collect(tokens: readonly Token[], context: Context): Omit<Invocation, "help" | "command"> {
  const flags = readFlags(tokens, context);
  const raw: Record<string, unknown> = {};
  const origins = new Map<string, string>();
  const file = flags.get(CONFIG_SETTING)?.value as string | undefined;
  if (file !== undefined) {
    const settings = context.settings.filter((setting) => setting !== CONFIG_SETTING);
    mergeFile(readConfigFile(file, settings), { raw, origins, file });
  }
  for (const [setting, { typed, value }] of flags) {
    if (setting === CONFIG_SETTING) continue;
    setValue(raw, setting.path, { value });
    origins.set(setting.name, typed);
  }
  const names = context.settings.map((setting) => setting.name);
  return {
    raw,
    ...(file === undefined ? {} : { configFile: file }),
    source: sourceOf(origins),
    given: new Set(names.filter((name) => origins.has(name))),
    words: takesWords(context) ? tokens.filter(isWord).map((token) => String(token.value)) : [],
  };
}

function mergeFile(
  values: Readonly<Record<string, unknown>>,
  options: { raw: Record<string, unknown>; origins: Map<string, string>; file: string },
): void {
  const { raw, origins, file } = options;
  for (const [key, value] of Object.entries(values)) {
    raw[key] = value;
    const isGroup = typeof value === "object" && value !== null;
    const names = isGroup ? [key, ...Object.keys(value).map((child) => `${key}.${child}`)] : [key];
    for (const name of names) origins.set(name, describeFileKey(file, name));
  }
}

function setValue(
  target: Record<string, unknown>,
  path: readonly string[],
  { value }: { value: unknown },
): void {
  const [key, ...rest] = path;
  if (rest.length === 0) target[key] = value;
  else setValue((target[key] ??= {}) as Record<string, unknown>, rest, { value });
}

/** A group that only flags set, such as `spo`, goes by the first of them. */
function sourceOf(origins: ReadonlyMap<string, string>): ConfigSource {
  return {
    describe(path) {
      const name = path.join(".");
      const member = [...origins.keys()].find((key) => key.startsWith(`${name}.`));
      return origins.get(name) ?? (member && origins.get(member)) ?? flagOf(path);
    },
  };
}

function readFlags(
  tokens: readonly Token[],
  context: Context,
): Map<Setting, { typed: string; value: string | number | boolean }> {
  const found = new Map<Setting, { typed: string; value: string | number | boolean }>();
  let previous: Setting | undefined;
  for (const token of tokens) {
    const typed = context.words[token.index].split("=", 1)[0];
    const setting = context.byName.get(token.name ?? "");
    // Behind `--` everything is a word.
    if (takesWords(context) && token.kind !== "option") continue;
    if (token.kind !== "option") throw strayWord(context.words[token.index], previous);
    // `-beta` arrives letter by letter, and no flag is a single letter: the word as a whole is what was meant.
    if (setting === undefined) throw unknownFlag(typed, context);
    if (found.has(setting)) {
      throw new ConfigError(`Cannot use ${typed}: expected it once, found it twice`);
    }
    found.set(setting, { typed, value: flagValue(token, { setting, typed }) });
    previous = setting;
  }
  return found;
}

function takesWords({ command }: Context): boolean {
  const { words }: Command = COMMANDS[command];
  return words !== undefined;
}

function isWord(token: Token): boolean {
  return token.kind === "positional";
}

function strayWord(word: string, previous: Setting | undefined): ConfigError {
  const hint = previous?.kind === "boolean" && /^(true|false)$/.test(word)
    ? ` (write ${previous.flag}=${word})`
    : "";
  return new ConfigError(`Cannot use ${showFound(word)}: expected a flag, found a word of no flag${hint}`);
}

function unknownFlag(typed: string, context: Context): ConfigError {
  const flags = context.settings.map((setting) => setting.flag);
  const nearest = nearestName(typed.replace(/^-+/, ""), flags.map((flag) => flag.slice(2)));
  const hint = suggestion(nearest && `--${nearest}`) ?? "--help lists them";
  return new ConfigError(
    `Cannot use ${typed}: expected a flag of ${context.command}, found none of that name (${hint})`,
  );
}

function suggestion(nearest: string | undefined): string | undefined {
  return nearest && `did you mean ${nearest}?`;
}

/** What cannot be read as the setting's type stays text: the schema then refuses it in its own words. */
function flagValue(
  token: Token,
  { setting, typed }: { setting: Setting; typed: string },
): string | number | boolean {
  const { value, inlineValue } = token;
  if (setting.kind === "boolean") return booleanValue(value, typed);
  if (typeof value !== "string" || value === "") {
    throw new ConfigError(`Cannot use ${typed}: expected a value, found nothing`);
  }
  // A dash alone is a name for standard input.
  if (!inlineValue && value.startsWith("-") && value !== "-" && !NUMBER.test(value)) {
    throw new ConfigError(
      `Cannot use ${typed}: expected a value, found ${value} (for a value with a leading dash, write ${typed}=...)`,
    );
  }
  const isNumeric = setting.kind === "number" || setting.kind === "integer" || setting.kind === "either";
  return isNumeric && NUMBER.test(value) ? Number(value) : value;
}

function booleanValue(value: string | boolean | undefined, typed: string): boolean {
  if (value === undefined || value === "true") return true;
  if (value === "false") return false;
  throw new ConfigError(`Cannot use ${typed}: expected true or false, found ${showFound(value)}`);
}
