/**
 * The text that --help prints.
 * @module
 */
import { type Command, RUN } from "./commands/command.ts";
import { type CommandName, COMMANDS } from "./commands/registry.ts";
import { PAIR_LOSSES } from "./losses/registry.ts";
import { listSettings, type Setting } from "./settings.ts";

/**
 * The help of a command: every flag by section with its meaning, values and default, and examples.
 *
 * @param command all commands in short where it is left out
 * @returns lines, the last one ended
 * @example
 * ```ts
 * if (!helpText("train").includes("--learning-rate <number>")) throw new Error("every flag is there");
 * ```
 */
export function helpText(command?: CommandName): string {
  if (command === undefined) return overview();
  const { summary, meanings, examples, words }: Command = COMMANDS[command];
  const sections = new Map<string, [string, string][]>();
  const settings = new Map(listSettings(COMMANDS[command].schema).map((setting) => [setting.name, setting]));
  for (const [name, [section, meaning]] of Object.entries(meanings)) {
    const lines = sections.get(section) ?? [];
    sections.set(section, [...lines, settingLine(settings.get(name)!, meaning)]);
  }
  sections.set(RUN, [...sections.get(RUN) ?? [], ...commonLines(command)]);
  return [
    `Usage: deno task ${command} ${words === undefined ? "" : `${words} `}[flags]`,
    "",
    summary,
    ...[...sections].flatMap((
      [title, lines],
    ) => ["", `${title}:`, ...aligned(lines, [...sections.values()])]),
    "",
    "Examples:",
    ...examples.map((line) => `  ${line}`),
    "",
  ].join("\n");
}

function overview(): string {
  const names = Object.keys(COMMANDS) as CommandName[];
  const lines = names.map((name): [string, string] => [name, COMMANDS[name].summary]);
  return [
    "Usage: deno task <command> [flags]",
    "",
    "Commands:",
    ...aligned(lines, [lines]),
    "",
    `The flags of a command: deno task ${names[0]} --help`,
    "",
  ].join("\n");
}

/** Columns of the help; longer meanings continue below their start. */
const MAX_COLUMNS = 110;

function aligned(
  lines: readonly [string, string][],
  all: readonly (readonly [string, string][])[],
): string[] {
  const width = Math.max(...all.flat().map(([left]) => left.length));
  return lines.flatMap(([left, right]) =>
    wrapped(right, MAX_COLUMNS - width - 4).map((part, index) =>
      `  ${(index === 0 ? left : "").padEnd(width)}  ${part}`
    )
  );
}

function wrapped(text: string, width: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trimStart();
    if (longer.length <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

function commonLines(command: CommandName): [string, string][] {
  const { takesConfig, json }: Command = COMMANDS[command];
  const config: [string, string] = [
    "--config <path>",
    "YAML or JSON file of settings, named as in a run's config.json; flags override it",
  ];
  return [
    ...(takesConfig ? [config] : []),
    ...(json === undefined ? [] : [["--json", json] as [string, string]]),
    ["--quiet", json === undefined ? "say nothing but errors" : "say nothing but the result and errors"],
    ["--help", "print this text"],
  ];
}

function settingLine(setting: Setting, meaning: string): [string, string] {
  const value = setting.kind === "boolean" ? "" : ` <${placeholder(setting)}>`;
  const notes = [
    setting.kind === "choice" ? setting.choices.join(", ") : "",
    defaultNote(setting),
  ].filter((note) => note !== "");
  return [`${setting.flag}${value}`, notes.length ? `${meaning} (${notes.join("; ")})` : meaning];
}

/** What a text holds that is no path. */
export const TEXTS: Readonly<Record<string, string>> = {
  loss: "names",
  lossWeights: "numbers",
  dataWeights: "numbers",
  marginColumn: "name",
  "lora.targetModules": "text",
  prompt: "text",
  set: "name=value,...",
  stop: "text",
  system: "text",
};

function placeholder({ name, kind, choices }: Setting): string {
  if (kind === "text") return TEXTS[name] ?? "path";
  if (kind === "choice") return "name";
  return kind === "either" ? [...choices, "number"].join("|") : kind;
}

let defaults: { name: string; options: Readonly<Record<string, unknown>> }[] | undefined;

/** Options of every loss as they are where nothing is set. */
function lossDefaults() {
  return defaults ??= Object.values(PAIR_LOSSES).map((loss) => ({
    name: loss.name,
    options: loss.resolve({}).options,
  }));
}

function defaultNote(setting: Setting): string {
  if (setting.default !== undefined && setting.default !== false) return `default ${setting.default}`;
  const losses = new Map<string, string[]>();
  for (const { name, options } of lossDefaults()) {
    const value = options[setting.name];
    if (value === undefined || value === false) continue;
    losses.set(String(value), [...losses.get(String(value)) ?? [], name]);
  }
  // The value that most losses have stands alone.
  const [usual, ...others] = [...losses].sort(([, a], [, b]) => b.length - a.length);
  if (!usual) return "";
  const rest = others.map(([value, names]) => `${value} for ${names.join(", ")}`);
  const [value, names] = usual;
  return `default: ${
    [names.length > 1 || others.length === 0 ? value : `${value} for ${names[0]}`, ...rest].join("; ")
  }`;
}
