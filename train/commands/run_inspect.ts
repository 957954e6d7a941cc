/**
 * `inspect`: reads the data as training would, and prints what it is like. Everything else goes to standard error.
 * @module
 */
import { openConsole } from "../command_console.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { requireWeightPerFile } from "../data_settings.ts";
import { formatDataReport } from "../data/inspect_report.ts";
import { ConfigError } from "../errors.ts";
import { inspectByTokenizer } from "../inspect_run.ts";
import { inspectFlagsSchema } from "./inspect.ts";

/**
 * @param invocation of `inspect`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 */
export async function runInspect(invocation: Invocation): Promise<number> {
  const { model, as, ...settings } = parseFlags(inspectFlagsSchema, invocation);
  const { log, progress, result } = openConsole(invocation);
  if (!model || !settings.data) {
    throw new ConfigError(
      `Cannot inspect: expected --model and --data, found no ${model ? "--data" : "--model"}`,
    );
  }
  requireWeightPerFile(settings, invocation.source);
  if (settings.assistantOnlyLoss && as !== "auto" && as !== "completions") {
    throw new ConfigError(`Cannot use --assistant-only-loss: expected completions, found --as ${as}`);
  }
  const report = await inspectByTokenizer(model, settings, {
    ...(as === "auto" ? {} : { as }),
    hooks: { log, progress },
  });
  result(report, formatDataReport(report).trimEnd());
  return 0;
}
