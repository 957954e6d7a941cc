/**
 * `profile`: measures, and prints a table.
 * @module
 */
import type { Invocation } from "../command_line.ts";
import { formatProfile } from "../profile.ts";
import { parseProfile, profileRun, profileShape } from "../profile/target.ts";
import { openDevice, terminalProgress } from "../terminal.ts";

/**
 * @param invocation of `profile`
 * @returns the exit code
 */
export async function runProfile(invocation: Invocation): Promise<number> {
  const flags = parseProfile(invocation);
  const log = (line: string) => console.error(line);
  using gpu = await openDevice(flags.config, { log });
  const isRun = flags.config.model !== undefined || flags.config.data !== undefined;
  const report = isRun
    ? await profileRun(gpu, flags, { log, progress: terminalProgress })
    : await profileShape(gpu, flags, { log });
  console.log(flags.json ? JSON.stringify(report, null, 2) : formatProfile(report, flags));
  return 0;
}
