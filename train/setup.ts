/**
 * The set-up task: makes sure that a WebGPU adapter opens on this machine and says which one, or what to install.
 * With --quiet it speaks only where it does or misses something.
 * @module
 */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { DRIVER_VARIABLES, flagPath, GPU_VARIABLES } from "./launch/grants.ts";
import { replaceProcess } from "./launch/replace_process.ts";
import {
  type AdapterSource,
  AdapterUnavailableError,
  ensureAdapter,
  missingDriver,
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

/** What unpacking runs. */
const PACKAGE_TOOLS = ["apt-get", "apt-cache", "dpkg", "dpkg-deb"];

/** Starts this program again, so that it may run the package manager and write Keel's cache: once on a machine. */
async function unpackWithPermission(driver: string): Promise<number> {
  // Deno does not run single programs while these are set.
  for (const name of LIBRARY_VARIABLES) Deno.env.delete(name);
  const cache = flagPath(dirname(dirname(driver)), Deno.cwd());
  return await replaceProcess(Deno.execPath(), [
    ...[
      "run",
      "--quiet",
      "--no-prompt",
      "-R",
      `-W=${cache}`,
      `-E=${[...GPU_VARIABLES, ...DRIVER_VARIABLES, "XDG_CACHE_HOME"]}`,
    ],
    ...["-S=homedir", "--allow-ffi", `--allow-run=${PACKAGE_TOOLS}`],
    ...[fileURLToPath(import.meta.url), ...Deno.args],
  ]);
}

const LIBRARY_VARIABLES = ["LD_LIBRARY_PATH", "LD_PRELOAD"];

async function mayUnpack(driver: string): Promise<boolean> {
  return (await Deno.permissions.query({ name: "write", path: driver })).state === "granted";
}

// An entry of its own, like cli.ts: it must run before any part of the engine may be loaded, so it prints by itself.
if (import.meta.main) {
  try {
    const driver = missingDriver();
    if (driver !== undefined && !await mayUnpack(driver)) Deno.exit(await unpackWithPermission(driver));
    const line = await setUp((text) => console.log(text));
    if (!Deno.args.includes("--quiet")) console.log(line);
  } catch (error) {
    if (!(error instanceof AdapterUnavailableError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
