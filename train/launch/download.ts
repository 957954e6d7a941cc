/**
 * Models that are not on this machine, for the launcher: fetched before the command starts, which has no network.
 * @module
 */
import { resolveModel } from "../hub/resolve_model.ts";
import { terminalProgress } from "../command_console.ts";
import { stopOnSignal } from "../terminal.ts";

/**
 * Downloads a model, with a bar on standard error.
 *
 * @param name on the hub
 * @returns its folder
 * @throws {HubError} saying what to do
 * @throws {RunStoppedError} on Ctrl-C
 */
export async function downloadForCommand(name: string): Promise<string> {
  using stop = stopOnSignal();
  return await resolveModel(name, { log: console.error, progress: terminalProgress, signal: stop.signal });
}
