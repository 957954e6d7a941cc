/**
 * The launcher with another program at its end: what it may do is what the command's program may.
 *
 * @module
 */
import { parseCommandLine } from "../../train/command_line.ts";
import { permissionFlags } from "../../train/launch/grants.ts";
import { replaceProcess } from "../../train/launch/replace_process.ts";
import { planLaunch } from "../../train/launch.ts";

/**
 * The flags with which a command line's program is started.
 *
 * @param words The command line.
 */
export async function flagsOf(words: readonly string[]): Promise<string[]> {
  const line = parseCommandLine(words);
  if (line.help) throw new TypeError("Cannot launch: expected a command line, found a request for help");
  const launch = await planLaunch(line);
  if (launch === "download") throw new TypeError("Cannot launch: expected models that are there, found none");
  return permissionFlags(launch.grants, Deno.cwd());
}

/** What {@link flagsOf} takes, the program, and its arguments. */
export type LaunchInstead = readonly [words: readonly string[], program: string, args: readonly string[]];

if (import.meta.main) {
  const [words, program, args]: LaunchInstead = JSON.parse(Deno.args[0]);
  const flags = ["run", "--cached-only", ...await flagsOf(words)];
  Deno.exitCode = await replaceProcess(Deno.execPath(), [...flags, program, ...args]);
}
