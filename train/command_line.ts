/**
 * From the words of a command line to raw settings, each with the place it came from.
 * @module
 */
import { parseArgs } from "node:util";
import type { z } from "zod";
import type { Command } from "./commands/command.ts";
import { type CommandName, COMMANDS } from "./commands/registry.ts";
import { type ConfigSource, runConfigSchema } from "./config.ts";
import { readConfigFile } from "./config_file.ts";
import { ConfigError, showFound } from "./errors.ts";
import { gatherSettings, type GivenSetting, nestSettings, translateOption } from "./given_settings.ts";
import { OPTION_NAMES, type OptionName, type OptionValue } from "./option_names.ts";
import { describeIssue } from "./issue.ts";
import { flagOf, listSettings, type Setting, type SettingKind } from "./settings.ts";
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
  /** Whether nothing but the result and errors is to be said. */
  readonly quiet: boolean;
  /** Whether the result is to be JSON, alone on standard output. */
  readonly json: boolean;
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
  const [issue] = flags.error.issues;
  const path = issue.path.map(String);
  const flag = source.describe(path);
  const found = path.reduce<unknown>(
    (value, key) => (value as Record<string, unknown> | undefined)?.[key],
    raw,
  );
  if (found === undefined) throw new ConfigError(`Cannot start: expected ${flag} with a value, found none`);
  throw new ConfigError(`Cannot use ${flag}: expected ${describeIssue(issue)}, found ${showFound(found)}`);
}

/** What parseArgs needs to know of a command's flags, and what we need to know of its answer. */
interface CommandFlags {
  /** Of the command itself. */
  readonly settings: readonly Setting[];
  /** By name without dashes, in every spelling. */
  readonly byName: ReadonlyMap<string, Flag>;
  readonly options: Readonly<Record<string, { type: "string" | "boolean" }>>;
}

/** A flag: of a setting, or another library's name for one. */
type Flag = Pick<Setting, "name" | "flag" | "kind"> & { readonly option?: OptionName };

interface Context extends CommandFlags {
  readonly command: CommandName;
  readonly words: readonly string[];
}

type Token = { kind: string; index: number; name?: string; value?: string | boolean; inlineValue?: boolean };

/** Flags that are no settings of what the command does. */
const COMMON_FLAGS = {
  config: { name: "config", flag: "--config", kind: "text" },
  quiet: { name: "quiet", flag: "--quiet", kind: "boolean" },
  json: { name: "json", flag: "--json", kind: "boolean" },
} as const satisfies Record<string, Flag>;
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
  const { schema, takesConfig, sharesRunConfig, json }: Command = COMMANDS[command];
  const settings = listSettings(schema);
  const byName = new Map<string, Flag>(sharesRunConfig ? optionFlags(settings) : []);
  const { config, quiet, json: asJson } = COMMON_FLAGS;
  for (const flag of [quiet, ...(takesConfig ? [config] : []), ...(json === undefined ? [] : [asJson])]) {
    byName.set(flag.name, flag);
  }
  for (const setting of settings) {
    byName.set(setting.flag.slice(2), setting);
    if (setting.path.length > 1) byName.set(setting.name, setting);
  }
  const types = [...byName].map(([name, { kind }]) => {
    return [name, { type: kind === "boolean" ? "boolean" as const : "string" as const }] as const;
  });
  return { settings, byName, options: Object.fromEntries([...types, ["help", { type: "boolean" }]]) };
}

/** Other libraries' names for these settings, each with underscores and with hyphens. */
function optionFlags(settings: readonly Setting[]): [string, Flag][] {
  return Object.entries(OPTION_NAMES).flatMap(([name, option]) => {
    const kind = kindOfOption(option, settings);
    if (kind === undefined) return [];
    const hyphened = name.replaceAll("_", "-");
    const flag = { name, flag: `--${hyphened}`, kind, option };
    return [[name, flag], [hyphened, flag]];
  });
}

/** Undefined where the command has no such setting. */
function kindOfOption(option: OptionName, settings: readonly Setting[]): SettingKind | undefined {
  if ("instead" in option) return "text";
  const target = "switches" in option ? option.switches : "setting" in option ? option.setting : undefined;
  const setting = settings.find(({ name }) => name === target);
  if (target !== undefined && setting === undefined) return undefined;
  const beside = "setting" in option ? option.beside : undefined;
  if (beside !== undefined && !settings.some(({ name }) => name === beside)) return undefined;
  const words = "always" in option ? option.always : "switches" in option ? [option.on] : undefined;
  if (words) return kindOfValue(words[0]);
  const { values } = option as Extract<OptionName, { setting: string }>;
  if (values === undefined) return setting?.kind;
  return Object.hasOwn(values, "true") ? "boolean" : "text";
}

function kindOfValue(value: OptionValue): SettingKind {
  return typeof value === "string" ? "text" : typeof value as "number" | "boolean";
}

function collect(tokens: readonly Token[], context: Context): Omit<Invocation, "help" | "command"> {
  const flags = gatherSettings(readFlags(tokens, context));
  const common = takeCommon(flags);
  const given = new Map([
    ...common.config === undefined ? [] : readSettings(common.config, context),
    ...flags,
  ]);
  const names = context.settings.map((setting) => setting.name);
  return {
    raw: nestSettings(given),
    ...(common.config === undefined ? {} : { configFile: common.config }),
    source: sourceOf(given),
    given: new Set(names.filter((name) => given.has(name))),
    words: takesWords(context) ? tokens.filter(isWord).map((token) => String(token.value)) : [],
    quiet: common.quiet === true,
    json: common.json === true,
  };
}

function takeCommon(flags: Map<string, GivenSetting>): { config?: string; quiet?: boolean; json?: boolean } {
  const names = Object.keys(COMMON_FLAGS);
  const taken = names.flatMap((name) => flags.has(name) ? [[name, flags.get(name)!.value]] : []);
  for (const name of names) flags.delete(name);
  return Object.fromEntries(taken);
}

function readSettings(file: string, { command, settings }: Context): Map<string, GivenSetting> {
  const { sharesRunConfig }: Command = COMMANDS[command];
  const passedOver = sharesRunConfig ? listSettings(runConfigSchema) : [];
  return gatherSettings(
    readConfigFile(file, { settings, passedOver, takesOptionNames: sharesRunConfig ?? false }),
  );
}

/** A group that only flags set, such as `spo`, goes by the first of them. */
function sourceOf(given: ReadonlyMap<string, GivenSetting>): ConfigSource {
  return {
    describe(path) {
      const name = path.join(".");
      const member = [...given.keys()].find((key) => key.startsWith(`${name}.`));
      return (given.get(name) ?? (member === undefined ? undefined : given.get(member)))?.described ??
        flagOf(path);
    },
  };
}

function readFlags(tokens: readonly Token[], context: Context): GivenSetting[] {
  const found: GivenSetting[] = [];
  let previous: Flag | undefined;
  for (const token of tokens) {
    const typed = context.words[token.index].split("=", 1)[0];
    const flag = context.byName.get(token.name ?? "");
    // Behind `--` everything is a word.
    if (takesWords(context) && token.kind !== "option") continue;
    if (token.kind !== "option") throw strayWord(context.words[token.index], previous);
    // `-beta` arrives letter by letter, and no flag is a single letter: the word as a whole is what was meant.
    if (flag === undefined || !typed.startsWith("--")) throw unknownFlag(typed, context);
    found.push(readFlag(token, { flag, typed }));
    previous = flag;
  }
  return found;
}

function readFlag(token: Token, { flag, typed }: { flag: Flag; typed: string }): GivenSetting {
  const { name, option } = flag;
  // What is refused anyway needs no value.
  if (option && "instead" in option) return translateOption(name, undefined, typed);
  const value = flagValue(token, { flag, typed });
  return option ? translateOption(name, value, typed) : { name, value, described: typed };
}

function takesWords({ command }: Context): boolean {
  const { words }: Command = COMMANDS[command];
  return words !== undefined;
}

function isWord(token: Token): boolean {
  return token.kind === "positional";
}

function strayWord(word: string, previous: Flag | undefined): ConfigError {
  const hint = previous?.kind === "boolean" && /^(true|false)$/i.test(word)
    ? ` (write ${previous.flag}=${word.toLowerCase()})`
    : "";
  return new ConfigError(`Cannot use ${showFound(word)}: expected a flag, found a word of no flag${hint}`);
}

function unknownFlag(typed: string, context: Context): ConfigError {
  const word = typed.replace(/^-+/, "");
  const own = context.settings.map((setting) => setting.flag.slice(2));
  const nearest = nearestName(word, own) ?? nearestName(word, [...context.byName.keys()]);
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
  { flag: { kind }, typed }: { flag: Flag; typed: string },
): string | number | boolean {
  const { value, inlineValue } = token;
  if (kind === "boolean") return booleanValue(value, typed);
  if (typeof value !== "string" || value === "") {
    throw new ConfigError(`Cannot use ${typed}: expected a value, found nothing`);
  }
  // A dash alone is a name for standard input.
  if (!inlineValue && value.startsWith("-") && value !== "-" && !NUMBER.test(value)) {
    throw new ConfigError(
      `Cannot use ${typed}: expected a value, found ${value} (for a value with a leading dash, write ${typed}=...)`,
    );
  }
  const isNumeric = kind === "number" || kind === "integer" || kind === "either";
  return isNumeric && NUMBER.test(value) ? Number(value) : value;
}

function booleanValue(value: string | boolean | undefined, typed: string): boolean {
  if (value === undefined || value === "true") return true;
  if (value === "false") return false;
  throw new ConfigError(`Cannot use ${typed}: expected true or false, found ${showFound(value)}`);
}
