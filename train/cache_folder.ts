/**
 * Where a user's caches lie on each system.
 * @module
 */
import { homedir } from "node:os";
import { join } from "node:path";
import { cacheHome } from "./driver/driver_folder.ts";

/**
 * @returns the folder for Keel's caches: under XDG_CACHE_HOME or ~/.cache, ~/Library/Caches on macOS, LOCALAPPDATA on
 * Windows; it need not exist
 */
export function cacheFolder(): string {
  const home = homedir();
  switch (Deno.build.os) {
    case "darwin":
      return join(home, "Library", "Caches", "keel");
    case "windows":
      return join(Deno.env.get("LOCALAPPDATA") ?? join(home, "AppData", "Local"), "keel");
    default:
      return join(cacheHome(Deno.env.get("XDG_CACHE_HOME"), home), "keel");
  }
}
