/**
 * What the tasks start: answers `--help` and wrong command lines by itself, and else gives its process to the command,
 * with the permissions that follow from the flags and no others.
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheFolder } from "./cache_folder.ts";
import { type Invocation, parseCommandLine, parseFlags } from "./command_line.ts";
import type { Command } from "./commands/command.ts";
import { COMMANDS } from "./commands/registry.ts";
import { InputError } from "./errors.ts";
import { checkOutputParent } from "./evaluation/files.ts";
import { helpText } from "./help.ts";
import { HUB_VARIABLES } from "./hub/hub_settings.ts";
import {
  CACHE_VARIABLES,
  GPU_VARIABLES,
  type Grants,
  grantsOf,
  type Job,
  listPlaces,
  permissionFlags,
} from "./launch/grants.ts";
import { refuseStrayLinks, withRealPaths } from "./launch/links.ts";
import { type LocatedModels, locateModels, ModelMissingError } from "./launch/models.ts";
import { replaceProcess } from "./launch/replace_process.ts";
import { flagOf } from "./settings.ts";
import { AdapterUnavailableError, announceAdapter } from "./software_driver.ts";

/** What a download takes: a process of its own, which alone has the network, and links in the hub's cache. */
const DOWNLOAD_PERMISSIONS = [
  ...["--no-prompt", "-R", "-W", "--allow-run", "--allow-sys=homedir", "--allow-ffi"],
  `--allow-env=${[...GPU_VARIABLES, ...CACHE_VARIABLES, ...HUB_VARIABLES]}`,
];

async function main(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(argv);
  if (line.help) {
    console.log(helpText(line.command));
    return 0;
  }
  const launch = await planLaunch(line);
  if (launch === "download") {
    return await startDeno([...DOWNLOAD_PERMISSIONS, moduleFile("./launch.ts"), ...argv]);
  }
  const flags = permissionFlags(launch.grants, Deno.cwd());
  return await startDeno([...flags, "--cached-only", moduleFile("./cli.ts"), ...argv, ...launch.more]);
}

/** A command's process. */
export interface Launch {
  readonly grants: Grants;
  /** Flags besides the user's. */
  readonly more: readonly string[];
}

/**
 * Checks a command line as far as that needs no adapter, and says what its process may touch.
 *
 * @param line of the user
 * @returns `"download"` where a model has to be fetched, which this process may not
 * @throws {InputError} on what the user can mend
 * @throws {AdapterUnavailableError} where an adapter is needed and none is there
 */
export async function planLaunch(line: Invocation): Promise<Launch | "download"> {
  const command: Command = COMMANDS[line.command];
  const settings = await (command.settle?.(line) ?? parseFlags(command.schema, line));
  const job: Job = { access: command.access, settings, words: line.words, config: line.configFile };
  const places = listPlaces(job);
  for (const { use, name, value } of places) {
    if (name === undefined || !line.given.has(name) || (use !== "newFile" && use !== "newDocument")) continue;
    await checkOutputParent(value, { flag: line.source.describe([name]) });
  }
  let located: LocatedModels;
  try {
    located = await locateModels(places, fetchModel);
  } catch (error) {
    if (error instanceof ModelMissingError) return "download";
    throw error;
  }
  const adapter = job.access.usesGpu(settings) ? announceAdapter() : undefined;
  const driverFolder = adapter?.kind === "software" ? adapter.folder : undefined;
  const modules = ["./", "../engine", "../shaders", "../deno.json"].map(moduleFile);
  const machine = { cacheFolder: cacheFolder(), driverFolder, ...located, modules, exists: existsSync };
  const grants = grantsOf(job, machine);
  const own = [
    ...grants.ffi,
    ...modules,
    ...job.access.caches.map((name) => join(machine.cacheFolder, name)),
  ];
  await refuseStrayLinks(
    [...new Set([...grants.read, ...grants.write])].filter((path) => !own.includes(path)),
  );
  return { grants: await withRealPaths(grants), more: chosenFolder(line, job) };
}

/** A folder that was chosen here is the one that is written: it could be taken when the command looks again. */
function chosenFolder({ given }: Invocation, { access, settings }: Job): string[] {
  return Object.entries(access.paths).flatMap(([name, use]) =>
    use !== "newFolder" || given.has(name) ? [] : [`${flagOf([name])}=${settings[name]}`]
  );
}

async function fetchModel(name: string): Promise<string> {
  const { state } = await Deno.permissions.query({ name: "run" });
  if (state !== "granted") throw new ModelMissingError(name);
  const { downloadForCommand } = await import("./launch/download.ts");
  return await downloadForCommand(name);
}

async function startDeno(args: readonly string[]): Promise<number> {
  const config = fileURLToPath(new URL("../deno.json", import.meta.url));
  return await replaceProcess(Deno.execPath(), ["run", "--config", config, ...args]);
}

function moduleFile(specifier: string): string {
  return fileURLToPath(new URL(specifier, import.meta.url));
}

/** What the user can mend is one line; anything else keeps its stack. */
async function report(error: unknown): Promise<number> {
  if (error instanceof InputError || error instanceof AdapterUnavailableError) {
    console.error(`error: ${error.message}`);
    return 1;
  }
  if (error instanceof Error && error.name === "RunStoppedError") {
    console.error(error.message);
    return (await import("./terminal.ts")).stoppedExitCode();
  }
  console.error(error);
  return 1;
}

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    Deno.exitCode = await report(error);
  }
}
