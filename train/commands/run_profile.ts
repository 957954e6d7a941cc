/**
 * `profile`: measures, and prints a table.
 * @module
 */
import type { Invocation } from "../command_line.ts";
import { formatProfile } from "../profile.ts";
import { parseProfile, profileRun, profileShape } from "../profile/target.ts";
import { openDevice, stopOnSignal, terminalProgress } from "../terminal.ts";

/**
 * @param invocation of `profile`
 * @returns the exit code
 */
export async function runProfile(invocation: Invocation): Promise<number> {
  const flags = parseProfile(invocation);
  const log = (line: string) => console.error(line);
  using stop = stopOnSignal();
  const hooks = { log, progress: terminalProgress, signal: stop.signal };
  using gpu = await openDevice(flags.config, hooks);
  const isRun = flags.config.model !== undefined || flags.config.data !== undefined;
  const report = isRun ? await profileRun(gpu, flags, hooks) : await profileShape(gpu, flags, hooks);
  console.log(flags.json ? JSON.stringify(report, null, 2) : formatProfile(report, flags));
  return 0;
}
