/**
 * `eval`: measures, and prints a table or JSON. Everything but the result goes to standard error.
 * @module
 */
import { writeFileAtomically } from "../atomic_file.ts";
import { openConsole } from "../command_console.ts";
import { type Invocation, parseFlags } from "../command_line.ts";
import { checkOutputFile, withDetails } from "../evaluation/files.ts";
import { refuseEvaluationOverBudget } from "../evaluation/plan.ts";
import { chooseTask, prepareEvaluation } from "../evaluation/prepare.ts";
import { type EvaluationReport, formatReport } from "../evaluation/report.ts";
import { planningOptions, planRun } from "../plan.ts";
import type { RunHooks } from "../session.ts";
import { openDevice, stopOnSignal } from "../terminal.ts";
import { evalFlagsSchema } from "./eval.ts";

/**
 * @param invocation of `eval`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 * @throws {RunStoppedError} on Ctrl-C; no file is left then
 */
export async function runEval(invocation: Invocation): Promise<number> {
  const flags = parseFlags(evalFlagsSchema, invocation);
  const { output, details, overwrite } = flags;
  const task = await chooseTask(flags, invocation.given);
  for (const [flag, path] of [["--output", output], ["--details", details]] as const) {
    if (path !== undefined) await checkOutputFile(path, { overwrite, flag });
  }
  const { log, progress, result } = openConsole(invocation);
  const prepared = await prepareEvaluation(task, flags, { log, progress });
  using stop = stopOnSignal();
  const hooks: RunHooks = { log, progress, signal: stop.signal };
  using gpu = await openDevice(flags, hooks);
  const plan = await planRun(planningOptions(gpu), ({ gpu }) => prepared.plan(gpu));
  refuseEvaluationOverBudget(plan);
  const results = await withDetails(details, (onDetail) => prepared.run(gpu, hooks, onDetail));
  const report: EvaluationReport = {
    task,
    model: flags.model!,
    ...(task === "arithmetic" ? {} : { data: flags.data }),
    adapter: gpu.adapter.name,
    settings: prepared.settings,
    results,
  };
  const text = JSON.stringify(report, null, 2) + "\n";
  if (output !== undefined) {
    await writeFileAtomically(output, (append) => append(new TextEncoder().encode(text)));
  }
  result(report, formatReport(report).trimEnd());
  return 0;
}
