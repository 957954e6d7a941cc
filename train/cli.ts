/**
 * The command line: flags to settings to a call. With the commands' programs, the only owner of the console, of signals
 * and of exit codes: 0 done, 1 refused or failed, 130 stopped by Ctrl-C, 143
 * by SIGTERM.
 * @module
 */
import { parseCommandLine } from "./command_line.ts";
import { COMMANDS } from "./commands/registry.ts";
import { InputError } from "./errors.ts";
import { helpText } from "./help.ts";

async function main(argv: readonly string[]): Promise<number> {
  const invocation = parseCommandLine(argv);
  if (invocation.help) {
    console.log(helpText(invocation.command));
    return 0;
  }
  const program = await COMMANDS[invocation.command].load();
  return await program(invocation);
}

/** What the user can mend is one line; anything else keeps its stack. */
async function report(error: unknown): Promise<number> {
  // By its name: its module loads what asking for help does without.
  if (error instanceof Error && error.name === "RunStoppedError") {
    console.error(error.message);
    return (await import("./terminal.ts")).stoppedExitCode();
  }
  const isExpected = error instanceof InputError ||
    (error instanceof Error && EXPECTED_ERRORS.has(error.name));
  console.error(isExpected ? `error: ${(error as Error).message}` : error);
  return 1;
}

/** Errors whose message says everything. */
const EXPECTED_ERRORS = new Set([
  "AdapterUnavailableError",
  "GpuUnavailableError",
  "GpuFaultError",
  "ShaderError",
  "MemoryBudgetError",
  "TrainingError",
]);

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    Deno.exitCode = await report(error);
  }
}
