/**
 * `profile`: plans, measures, and prints a table.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { openConsole, refuseTwoForms } from "../command_console.ts";
import type { Invocation } from "../command_line.ts";
import { planningOptions, requireFit } from "../plan.ts";
import { findRemedies, refuseOverBudget } from "../plan_fit.ts";
import { formatProfile, type ProfileReport } from "../profile.ts";
import {
  parseProfile,
  planProfileRun,
  planProfileShape,
  type ProfileFlags,
  profileRun,
  profileShape,
} from "../profile/target.ts";
import { readRunData } from "../run_data.ts";
import type { RunHooks } from "../session.ts";
import { openDevice, stopOnSignal } from "../terminal.ts";

/**
 * @param invocation of `profile`
 * @returns the exit code
 * @throws {InputError} on what the user can mend
 */
export async function runProfile(invocation: Invocation): Promise<number> {
  const flags = parseProfile(invocation);
  const { log, progress, result } = openConsole(invocation);
  refuseTwoForms(flags, invocation);
  using stop = stopOnSignal();
  const hooks = { log, progress, signal: stop.signal };
  using gpu = await openDevice(flags.config, hooks);
  const isRun = flags.config.model !== undefined || flags.config.data !== undefined;
  const report = await (isRun ? profileOfRun : profileOfShape)(gpu, flags, hooks);
  result(report, formatProfile(report, flags));
  return 0;
}

async function profileOfRun(
  gpu: Gpu,
  { config, steps }: ProfileFlags,
  hooks: RunHooks,
): Promise<ProfileReport> {
  const data = await readRunData(config, hooks);
  const plan = (of: typeof data) => planProfileRun(planningOptions(gpu), of, steps);
  await refuseOverBudget(await plan(data), () => findRemedies(data, plan), "profile");
  return await profileRun(gpu, data, { steps, log: hooks.log });
}

async function profileOfShape(gpu: Gpu, flags: ProfileFlags, { log }: RunHooks): Promise<ProfileReport> {
  const plan = await planProfileShape(planningOptions(gpu), flags);
  requireFit(plan, { action: "profile", advice: "a smaller --shape takes less" });
  return await profileShape(gpu, flags, { log });
}
