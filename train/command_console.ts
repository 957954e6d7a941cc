/**
 * How a command speaks: its result on standard output, what happens meanwhile beside it, and nothing of that with
 * `--quiet`. Control characters go to terminals alone.
 * @module
 */
import type { Invocation } from "./command_line.ts";
import { ConfigError } from "./errors.ts";
import { createBars, type Progress } from "./progress.ts";

/** Where a command's words go. */
export interface CommandConsole {
  /** A line about what happens. */
  readonly log: (line: string) => void;
  /** A bar for one phase, on standard error. */
  readonly progress: (label: string, total: number) => Progress;
  /** What the command was started for: the value as JSON with `--json`, else the text. */
  readonly result: (value: unknown, text: string) => void;
}

/**
 * @param invocation whether it is quiet, and whether it answers in JSON
 * @param options.logs where lines go that are no result: standard output is for commands whose lines are read as they
 *   come, and is left to the result with `--json`
 */
export function openConsole(
  { quiet, json }: Pick<Invocation, "quiet" | "json">,
  options: { logs?: "stdout" | "stderr" } = {},
): CommandConsole {
  const isBeside = json || options.logs !== "stdout";
  const log = (line: string) => bars.aside(() => isBeside ? console.error(line) : console.log(line));
  return {
    log: quiet ? () => {} : log,
    progress: quiet ? () => SILENT : terminalProgress,
    result: (value, text) => console.log(json ? JSON.stringify(value, null, 2) : text),
  };
}

/**
 * @param flags whether a table is to be Markdown
 * @param invocation whether the result is to be JSON
 * @throws {ConfigError} where it is to be both
 */
export function refuseTwoForms(
  { markdown }: { markdown: boolean },
  { json }: Pick<Invocation, "json">,
): void {
  if (markdown && json) {
    throw new ConfigError("Cannot use --markdown: expected one form of the result, found --json beside it");
  }
}

const SILENT: Progress = { update() {}, finish() {} };

const encoder = new TextEncoder();
const bars = createBars({
  write: (text) => Deno.stderr.writeSync(encoder.encode(text)),
  isTerminal: Deno.stderr.isTerminal(),
  columns: () => Deno.consoleSize().columns,
});

/** A bar on standard error. */
export function terminalProgress(label: string, total: number): Progress {
  return bars.start(label, total);
}
