/**
 * The set-up task: makes sure that a WebGPU adapter opens on this machine and says which one, or what to install.
 * With --quiet it speaks only where it does or misses something.
 * @module
 */
import {
  type AdapterSource,
  AdapterUnavailableError,
  ensureAdapter,
  SYSTEM_DRIVER_ADVICE,
} from "./software_driver.ts";

/**
 * Prepares and opens the adapter.
 *
 * @param log gets the line that announces a download
 * @returns one line that names the adapter and where it comes from
 * @throws {AdapterUnavailableError} where no adapter opens
 */
export async function setUp(log: (line: string) => void): Promise<string> {
  const source = await ensureAdapter({ log });
  const adapter = await navigator.gpu.requestAdapter();
  if (adapter === null) throw new AdapterUnavailableError(rejectionReason(source));
  const device = await adapter.requestDevice({ label: "setup" });
  device.destroy();
  const { description, vendor } = adapter.info;
  const origin = source.kind === "system"
    ? "the system's driver"
    : `the software driver in ${source.folder}; ${SYSTEM_DRIVER_ADVICE}`;
  return `WebGPU adapter: ${description || vendor || "unnamed"}, ${origin}.`;
}

function rejectionReason(source: AdapterSource): string {
  if (source.kind === "system") return "WebGPU accepts no device of the system's driver";
  return `WebGPU rejects the software driver in ${source.folder} (Mesa before 22.3 is too old: ` +
    "update the package sources, remove that folder and try again)";
}

// An entry of its own, like cli.ts: it must run before any part of the engine may be loaded, so it prints by itself.
if (import.meta.main) {
  try {
    const line = await setUp((text) => console.log(text));
    if (!Deno.args.includes("--quiet")) console.log(line);
  } catch (error) {
    if (!(error instanceof AdapterUnavailableError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
