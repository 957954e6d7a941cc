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
  if (adapter === null) {
    throw new AdapterUnavailableError(`WebGPU finds no adapter through ${origin(source)}`);
  }
  const device = await adapter.requestDevice({ label: "setup" });
  device.destroy();
  const { description, vendor } = adapter.info;
  return `WebGPU adapter: ${description || vendor || "unnamed"}, ${origin(source)}.`;
}

function origin(source: AdapterSource): string {
  if (source.kind === "system") return "the system's driver";
  return `the software driver in ${source.folder}; ${SYSTEM_DRIVER_ADVICE}`;
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
