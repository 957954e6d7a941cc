/** Every code block of a document is run or read by a test; command lines are parsed by the command line's own parser. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import { parseCommandLine, parseFlags } from "../../train/command_line.ts";
import type { Command } from "../../train/commands/command.ts";
import { COMMANDS } from "../../train/commands/registry.ts";
import { parseRunConfig } from "../../train/config.ts";
import { readPreferences } from "../../train/data/preference_files.ts";
import { ROOT } from "../sources.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { codeBlocks, type CommandLine, commandLines, DOCUMENTS } from "./markdown.ts";
import { OWN_DATA_COMMANDS } from "./readme_commands.ts";

const TASKS: Readonly<Record<string, { command: string }>> = project.tasks;

/** Of Deno's own commands those that documents name, beside task, run and test. */
const DENO_COMMANDS = ["bundle", "check", "doc", "fmt", "install", "lint", "publish"];

/** Programs of others, whose flags are theirs. */
const OTHER_PROGRAMS = ["git", "cd", "cp", "tensorboard"];

/** What kind of block a document may have, and who runs or reads it. */
const EXECUTED: Readonly<Record<string, (path: string) => boolean>> = {
  "ts": (path) => TASKS["test:doc"].command.split(" ").some((word) => path === word || path.startsWith(word)),
  "ts ignore": (path) => path === "docs/embedding.md", // tests/browser/browser_test.ts
  "sh": () => true, // here
  // Commands: here; all else is no code, but what a command printed, or mathematics.
  "indented": () => true,
  "jsonl": () => true, // here, and tests/data/docs_test.ts
  "yaml": () => true, // here
  "json": () => true, // here
  "text": () => true, // printed
  "": () => true, // printed
};

Deno.test("every command line of README, docs and examples is one that the project takes", async () => {
  const lines = DOCUMENTS.flatMap(commandLines);
  assert.ok(lines.length > 80, `found ${lines.length} command lines`);
  const wrong: string[] = [];
  for (const line of lines) {
    wrong.push(...(await findMistake(line)).map((mistake) => `${line.place}: ${mistake}`));
  }
  assert.deepEqual(wrong, []);
});

Deno.test("a command line with a mistake is found", async () => {
  const mistaken: [string, RegExp][] = [
    ["deno task trian --model m", /no task trian/],
    ["deno task train --model m --data d --lora.rnak 8", /lora\.rnak/],
    ["deno task train --model m --data d --beta x", /--beta/],
    ["deno task train --model m --data d --loss hinge --label-smoothing 0.1", /label/],
    ["deno task eval --model m --stray word", /--stray/],
    ["deno task fuzz --no-such-flag 1", /--no-such-flag/],
    ["deno run -R tests/no_such_file.ts", /no_such_file/],
    ["deno launch mod.ts", /deno launch/],
    ["npx -y deno@0.0.1 task train", /deno@0\.0\.1/],
    ["bash tests/no_such_file.sh", /no_such_file/],
    ["sudo deno task train", /sudo/],
  ];
  for (const [text, message] of mistaken) {
    const [line] = commandLines({ path: "x", text: `\`\`\`sh\n${text}\n\`\`\`` });
    assert.match((await findMistake(line)).join(), message, text);
  }
});

Deno.test("every block of code is of a kind that a test runs or reads", () => {
  for (const { path, text } of DOCUMENTS) {
    for (const { language, line } of codeBlocks(text)) {
      assert.ok(EXECUTED[language]?.(path), `${path}:${line}: no test runs ${language || "this block"}`);
    }
  }
});

Deno.test("blocks of data and settings are read by the readers", async () => {
  const folder = temporaryFolder();
  let read = 0;
  for (const { path, text } of DOCUMENTS) {
    for (const { language, lines } of codeBlocks(text)) {
      const file = join(folder, `${read}.${language}`);
      if (language === "yaml") {
        await Deno.writeTextFile(file, lines.join("\n"));
        assert.deepEqual(
          await findMistake({ words: ["deno", "task", "train", "--config", file] }),
          [],
        );
      } else if (language === "jsonl" && path !== "docs/data.md") {
        await Deno.writeTextFile(file, lines.join("\n"));
        assert.equal((await readPreferences(file)).records.length, lines.length, path);
      } else if (language === "json") JSON.parse(lines.join("\n"));
      else continue;
      read++;
    }
  }
  assert.ok(read >= 3, `read ${read} blocks`);
});

Deno.test("the README has each of the story's commands once", () => {
  const names = OWN_DATA_COMMANDS.map(([name]) => name);
  assert.deepEqual(names, ["inspect", "train", "train", "report", "eval", "generate", "chat", "merge"]);
});

/** What is wrong with a command line: one text, or none. */
async function findMistake({ words }: Pick<CommandLine, "words">): Promise<string[]> {
  const [program, ...rest] = words.slice(words.findIndex((word) => !/^[A-Z_]+=/.test(word)));
  try {
    if (program === "npx") {
      const mistakes = checkNpx(rest);
      // Without more it stands for `deno` itself.
      if (mistakes.length > 0 || rest.length === 2) return mistakes;
      return await findMistake({ words: ["deno", ...rest.slice(2)] });
    }
    if (program === "deno") return await checkDeno(rest);
    if (["bash", "python", "python3"].includes(program)) return checkFile(rest[0]);
    return OTHER_PROGRAMS.includes(program) ? [] : [`no program ${program} is known here`];
  } catch (error) {
    return [String(error)];
  }
}

/** The pinned Deno that the checks run with. */
function checkNpx([yes, deno]: readonly string[]): string[] {
  const pinned = readFileSync(join(ROOT, ".ci/run"), "utf8").match(/deno@[\d.]+/)?.[0];
  return yes === "-y" && deno === pinned ? [] : [`expected npx -y ${pinned}, found ${yes} ${deno}`];
}

async function checkDeno([command, ...rest]: readonly string[]): Promise<string[]> {
  if (command === "task") return await checkTask(rest);
  if (command === "run" || command === "test") {
    const at = rest.findIndex((word) => !word.startsWith("-"));
    return [...checkFile(rest[at]), ...checkFlagsOf(rest[at], rest.slice(at + 1))];
  }
  return DENO_COMMANDS.includes(command) ? [] : [`no deno ${command} is known here`];
}

async function checkTask([given, ...rest]: readonly string[]): Promise<string[]> {
  // `deno task <command> [flags]` stands for any.
  const name = given === "<command>" ? "train" : given;
  const flags = rest.filter((word) => word !== "[flags]");
  if (TASKS[name] === undefined) return [`deno.json has no task ${name}`];
  if (!Object.hasOwn(COMMANDS, name)) {
    return checkFlagsOf(TASKS[name].command.split(" ").find((word) => word.endsWith(".ts")), flags);
  }
  // A command that is only named.
  if (flags.length === 0) return [];
  const line = parseCommandLine([name, ...flags]);
  if (line.help) return [];
  const command: Command = COMMANDS[line.command];
  if (line.command === "train") {
    if (line.raw.resume !== true) parseRunConfig(line.raw, line.source);
  } else if (command.settle) await command.settle(line);
  else parseFlags(command.schema, line);
  return [];
}

function checkFile(file: string | undefined): string[] {
  return file !== undefined && existsSync(join(ROOT, file)) ? [] : [`no file ${file}`];
}

/** A script's flags stand in its text, or in that of a module beside it. */
function checkFlagsOf(script: string | undefined, words: readonly string[]): string[] {
  const flags = words.filter((word) => word.startsWith("--"));
  if (flags.length === 0) return [];
  if (script === undefined || !existsSync(join(ROOT, script))) {
    return [`no script to take ${flags.join(" ")}`];
  }
  const text = readFileSync(join(ROOT, script), "utf8");
  return flags.filter((flag) => !new RegExp(`\\b${flag.slice(2)}\\b`).test(text)).map((flag) =>
    `${script} takes no ${flag}`
  );
}
