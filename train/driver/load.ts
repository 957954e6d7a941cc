/**
 * Loads an unpacked driver into this process and points the Vulkan loader at it.
 * @module
 */
import { basename, join } from "node:path";
import { AdapterUnavailableError } from "./adapter_unavailable.ts";

/** What loading found in a driver folder. */
export interface LoadedDriver {
  /** Absolute path of the driver's manifest, for VK_DRIVER_FILES. */
  manifest: string;
}

/**
 * Loads every library of the folder and writes the driver's manifest, where it is not there yet.
 *
 * @param folder a complete driver folder
 * @returns where the manifest is
 * @throws {AdapterUnavailableError} where the Vulkan loader or the driver cannot be loaded
 */
export function loadDriver(folder: string): LoadedDriver {
  const libraries = listLibraries(folder);
  const failures = loadLibraries(libraries);
  const driver = libraries.find((path) => basename(path) === "libvulkan_lvp.so");
  const loader = libraries.find((path) => basename(path).startsWith("libvulkan.so."));
  if (driver === undefined || loader === undefined) {
    throw new AdapterUnavailableError(
      `${folder} holds no software driver; remove that folder to unpack it anew`,
    );
  }
  const failed = failures.get(driver) ?? failures.get(loader);
  if (failed !== undefined) {
    throw new AdapterUnavailableError(`${failed}; remove ${folder} to unpack it anew`);
  }
  const manifest = join(folder, "lavapipe.json");
  writeIfChanged(manifest, manifestText(driver, readApiVersion(folder)));
  return { manifest };
}

/**
 * The manifest by which the Vulkan loader finds a driver.
 *
 * @param libraryPath absolute path of the driver's library
 * @param apiVersion the Vulkan version that the driver states
 * @returns JSON text
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { manifestText } from "./load.ts";
 *
 * const manifest = JSON.parse(manifestText("/cache/libvulkan_lvp.so", "1.3.255"));
 * assert.equal(manifest.ICD.library_path, "/cache/libvulkan_lvp.so");
 * ```
 */
export function manifestText(libraryPath: string, apiVersion: string): string {
  const ICD = { library_path: libraryPath, api_version: apiVersion };
  return JSON.stringify({ file_format_version: "1.0.0", ICD }, null, 2) + "\n";
}

/**
 * Opens libraries for the rest of the process, again and again over those that still fail, until none fails or a pass
 * helps none: each one opened satisfies others by its name, so no order and no search path need be known.
 *
 * @param paths absolute paths
 * @param open opens one library and throws where it cannot (default: Deno.dlopen)
 * @returns the reason of each library that never opened
 */
export function loadLibraries(paths: readonly string[], open = openLibrary): Map<string, string> {
  let failures = new Map<string, string>(paths.map((path) => [path, "not tried"]));
  for (let before = Infinity; failures.size > 0 && failures.size < before;) {
    before = failures.size;
    const pending = [...failures.keys()];
    failures = new Map();
    for (const path of pending) {
      try {
        open(path);
      } catch (error) {
        if (error instanceof Deno.errors.NotCapable) throw error;
        failures.set(path, error instanceof Error ? error.message : String(error));
      }
    }
  }
  return failures;
}

// Never closed: the drivers must outlive every device.
function openLibrary(path: string): void {
  Deno.dlopen(path, {});
}

/**
 * Lists the libraries to load: regular files (a link is the same library twice) beside the drivers of other devices
 * and the optional layers, which nothing loads.
 *
 * @param folder a driver folder
 * @returns absolute paths, sorted
 */
export function listLibraries(folder: string): string[] {
  const libraries: string[] = [];
  for (const base of [join(folder, "lib"), join(folder, "usr", "lib")]) {
    for (const entry of readFolder(base)) {
      if (!entry.isDirectory) continue;
      for (const file of readFolder(join(base, entry.name))) {
        if (file.isFile && isNeeded(file.name)) libraries.push(join(base, entry.name, file.name));
      }
    }
  }
  return libraries.sort();
}

function isNeeded(name: string): boolean {
  if (name === "libvulkan_lvp.so") return true;
  return /^lib.*\.so(\.|$)/.test(name) && !/^libvulkan_|^libVkLayer/.test(name);
}

function readApiVersion(folder: string): string {
  const manifests = join(folder, "usr", "share", "vulkan", "icd.d");
  const entry = readFolder(manifests).find((file) => /^lvp_icd\..*json$/.test(file.name));
  if (entry === undefined) return "1.3.0";
  return String(JSON.parse(Deno.readTextFileSync(join(manifests, entry.name))).ICD?.api_version ?? "1.3.0");
}

function readFolder(path: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(path)];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

// Another process may read the manifest right now: it is replaced whole, and only where it says something else.
function writeIfChanged(path: string, text: string): void {
  try {
    if (Deno.readTextFileSync(path) === text) return;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const temporary = `${path}.${Deno.pid}`;
  Deno.writeTextFileSync(temporary, text);
  Deno.renameSync(temporary, path);
}
