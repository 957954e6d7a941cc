/**
 * Makes sure that this process can open a WebGPU adapter: the system's own where there is one, else a software Vulkan
 * driver (Mesa's lavapipe) that is unpacked once into the user's cache folder.
 * @module
 */
import { homedir } from "node:os";
import { AdapterUnavailableError } from "./driver/adapter_unavailable.ts";
import { cacheHome, driverFolder, readStamp } from "./driver/driver_folder.ts";
import { loadDriver } from "./driver/load.ts";
import { unpackDriver } from "./driver/unpack.ts";
import { countVulkanDevices } from "./driver/vulkan_probe.ts";

export { AdapterUnavailableError } from "./driver/adapter_unavailable.ts";

/** Where the adapter of this process comes from. */
export type AdapterSource =
  | { readonly kind: "system" }
  | {
    readonly kind: "software";
    /** Where the software driver is unpacked. */
    readonly folder: string;
  };

/** How to get the system's own driver used instead of the software one. */
export const SYSTEM_DRIVER_ADVICE =
  "to use the system's own driver instead, install it: apt's mesa-vulkan-drivers, or the GPU vendor's Vulkan driver";

// Tells the other isolates of this process (each test file is one), and a program that takes this process over, what the
// first one found: a second search would find the software driver and take it for the system's. The process id is part
// of it because a child process inherits the environment, but not the loaded libraries.
const SOURCE_VARIABLE = "KEEL_ADAPTER_SOURCE";

let pending: Promise<AdapterSource> | undefined;

/**
 * Prepares this process so that `navigator.gpu.requestAdapter()` finds an adapter. Call it before the first request:
 * after one that gave null, Deno's main isolate stays without an adapter.
 *
 * Does nothing on macOS and Windows, nor where DENO_WEBGPU_BACKEND names another backend than Vulkan. On Linux it sets
 * DENO_WEBGPU_BACKEND=vulkan, as WebGPU would otherwise fall back to OpenGL without f16.
 *
 * Costs nothing on the second call in a process; on the first about 2 ms where no driver is to be loaded, and 25 to 60 ms
 * with the software driver already unpacked, most of which the first adapter request is then spared.
 *
 * @param options `log` gets one line before the software driver is downloaded; nothing else is ever logged
 * @returns where the adapter comes from
 * @throws {AdapterUnavailableError} where there is no driver and none can be unpacked; its message says what to install
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * const adapter = await navigator.gpu.requestAdapter();
 * assert(adapter !== null);
 * ```
 */
export async function ensureAdapter(
  options: { log?: (line: string) => void } = {},
): Promise<AdapterSource> {
  pending ??= findSource(options.log ?? (() => {}));
  try {
    return await pending;
  } catch (error) {
    pending = undefined; // what was missing may be there at the next call
    throw error;
  }
}

/**
 * Finds where an adapter would come from, for a program that takes this process over and may do less: it loads nothing,
 * and in {@link ensureAdapter} finds what was found here without a search of its own.
 *
 * @returns where the adapter comes from; a software driver is unpacked
 * @throws {AdapterUnavailableError} where there is neither a device nor an unpacked driver
 */
export function announceAdapter(): AdapterSource {
  if (!isSearched()) return { kind: "system" };
  const source = readKnownSource() ?? locateSource();
  if (isMissing(source)) {
    throw new AdapterUnavailableError(
      `no Vulkan driver finds a device, and there is no software driver in ${source.folder} yet (deno task setup unpacks it)`,
    );
  }
  announce(source);
  return source;
}

/**
 * Says whether {@link ensureAdapter} has to unpack the software driver; loads nothing.
 *
 * @returns where it would be, or undefined where an adapter is there already
 */
export function missingDriver(): string | undefined {
  if (!isSearched()) return undefined;
  const source = readKnownSource() ?? locateSource();
  return isMissing(source) ? source.folder : undefined;
}

function isMissing(source: AdapterSource): source is AdapterSource & { kind: "software" } {
  return source.kind === "software" && readStamp(source.folder) === undefined;
}

async function findSource(log: (line: string) => void): Promise<AdapterSource> {
  if (!isSearched()) return { kind: "system" };
  const known = readKnownSource();
  const source = known ?? locateSource();
  if (source.kind === "software") {
    if (isMissing(source)) await unpack(source.folder, log);
    // Libraries that an isolate opened are closed with it: each one opens them for itself.
    useSoftwareDriver(source.folder);
  }
  announce(source);
  return source;
}

/** Whether there is anything to find: other systems and backends have drivers of their own. */
function isSearched(): boolean {
  if (Deno.build.os !== "linux") return false;
  const backend = Deno.env.get("DENO_WEBGPU_BACKEND");
  return !backend || backend === "vulkan";
}

function locateSource(): AdapterSource {
  if (countVulkanDevices() > 0) return { kind: "system" };
  // Deno's own name of the architecture: what is already unpacked must not need the package manager to be found.
  const machine = { osRelease: readOsRelease(), architecture: Deno.build.arch };
  return {
    kind: "software",
    folder: driverFolder(cacheHome(Deno.env.get("XDG_CACHE_HOME"), homedir()), machine),
  };
}

function announce(source: AdapterSource): void {
  Deno.env.set("DENO_WEBGPU_BACKEND", "vulkan");
  Deno.env.set(SOURCE_VARIABLE, JSON.stringify({ pid: Deno.pid, source }));
}

function readKnownSource(): AdapterSource | undefined {
  const text = Deno.env.get(SOURCE_VARIABLE);
  if (text === undefined) return undefined;
  const { pid, source } = JSON.parse(text);
  return pid === Deno.pid ? source : undefined;
}

async function unpack(folder: string, log: (line: string) => void): Promise<void> {
  log(
    `No Vulkan driver finds a device: unpacking Mesa's software driver (about 60 MB to download) into ${folder}; ` +
      `${SYSTEM_DRIVER_ADVICE}.`,
  );
  await unpackOrExplain(folder);
}

function useSoftwareDriver(folder: string): void {
  const { manifest } = loadDriver(folder);
  Deno.env.set("VK_DRIVER_FILES", manifest);
  Deno.env.set("VK_ICD_FILENAMES", manifest); // the name that loaders before 1.3.207 know
  // The driver complains on stderr where this is unset, and uses it for nothing that matters here.
  if (!Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", folder);
}

function readOsRelease(): string {
  try {
    return Deno.readTextFileSync("/etc/os-release");
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

async function unpackOrExplain(folder: string): Promise<void> {
  try {
    await unpackDriver(folder);
  } catch (error) {
    // A missing permission flag is a mistake of the caller; all else (a full disk, a read-only home) is the machine's.
    if (error instanceof AdapterUnavailableError || error instanceof Deno.errors.NotCapable) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new AdapterUnavailableError(
      `nothing could be unpacked into ${folder} (${reason}; XDG_CACHE_HOME chooses another place)`,
      { cause: error },
    );
  }
}
