/**
 * Where the unpacked software driver lives, and what makes such a folder complete.
 * @module
 */
import { isAbsolute, join } from "node:path";

/** What a complete driver folder says of itself, in its stamp.json. */
export interface DriverStamp {
  /** Layout of the folder; another number is another layout, and the folder is unpacked anew. */
  format: number;
  /** The unpacked packages, each `name=version`. */
  packages: string[];
}

/** The layout that this version of the code writes and reads. */
export const STAMP_FORMAT = 1;

/**
 * The per-user cache folder, by the XDG rules: $XDG_CACHE_HOME where it is an absolute path, else ~/.cache.
 *
 * @param xdgCacheHome the value of XDG_CACHE_HOME, where set
 * @param homeFolder the user's home folder
 * @returns an absolute path
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { cacheHome } from "./driver_folder.ts";
 *
 * assert.equal(cacheHome("/fast/cache", "/home/ada"), "/fast/cache");
 * ```
 */
export function cacheHome(xdgCacheHome: string | undefined, homeFolder: string): string {
  // The XDG base directory specification: a relative path is invalid and ignored.
  if (xdgCacheHome && isAbsolute(xdgCacheHome)) return xdgCacheHome;
  return join(homeFolder, ".cache");
}

/**
 * The folder of the driver of one distribution release and architecture: a home that several machines share must not
 * mix their libraries.
 *
 * @param cache the per-user cache folder
 * @param machine the text of /etc/os-release and the name of the architecture
 * @returns an absolute path
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { driverFolder } from "./driver_folder.ts";
 *
 * const osRelease = 'ID=debian\nVERSION_ID="12"\n';
 * const folder = driverFolder("/cache", { osRelease, architecture: "aarch64" });
 * assert.match(folder, /debian-12-aarch64$/);
 * ```
 */
export function driverFolder(cache: string, machine: { osRelease: string; architecture: string }): string {
  const value = (key: string) => machine.osRelease.match(new RegExp(`^${key}=["']?([\\w.-]+)`, "m"))?.[1];
  const release = value("VERSION_ID") ?? value("VERSION_CODENAME") ?? "rolling";
  const name = `${value("ID") ?? "linux"}-${release}-${machine.architecture}`;
  return join(cache, "keel", "software_driver", name);
}

/**
 * Reads the stamp of a driver folder.
 *
 * @param folder the folder
 * @returns the stamp, or undefined where the folder is absent, incomplete or of another layout
 */
export function readStamp(folder: string): DriverStamp | undefined {
  let stamp: DriverStamp;
  try {
    stamp = JSON.parse(Deno.readTextFileSync(join(folder, "stamp.json")));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return undefined;
    throw error;
  }
  return stamp?.format === STAMP_FORMAT ? stamp : undefined;
}
