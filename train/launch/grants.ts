/**
 * From a command and its settings to the permissions that its process gets: the paths that the user named, the caches,
 * and what the adapter needs. No programs, ever, and no network but for listening on this machine where that was asked
 * for: what is not on this machine is fetched before.
 * @module
 */
import { basename, dirname, isAbsolute, join, relative, resolve } from "node:path";
import { partialName } from "../atomic_file.ts";
import { partialFolders } from "../atomic_folder.ts";
import type { Access, PathUse, SettingValues } from "../commands/access.ts";
import { ConfigError } from "../errors.ts";
import { isYamlFile, YAML_VARIABLES } from "../yaml_files.ts";
import { HUB_CACHE_VARIABLES } from "../hub/hub_settings.ts";

/** What a process may touch; nothing else, and never another program. */
export interface Grants {
  /** Files, and folders with all below them. */
  readonly read: readonly string[];
  readonly write: readonly string[];
  /** Names of variables. */
  readonly env: readonly string[];
  /** Names that `--allow-sys` takes. */
  readonly sys: readonly string[];
  /** Folders of libraries. */
  readonly ffi: readonly string[];
  /** Hosts of this machine, with or without a port. */
  readonly net: readonly string[];
}

/** What grants depend on besides the settings. */
export interface Machine {
  /** Keel's cache. */
  readonly cacheFolder: string;
  /** Where the software driver is, where an adapter is needed and it comes from there. */
  readonly driverFolder?: string;
  /** Folders and files of each model, by what the user calls it; see `locateModels`. */
  readonly models: ReadonlyMap<string, readonly string[]>;
  /** Whether any of them is the hub's. */
  readonly usesHub: boolean;
  /** Folders and files of Keel's own modules. */
  readonly modules: readonly string[];
  /** Whether something is there. */
  readonly exists: (path: string) => boolean;
}

/** What the process of a command line does. */
export interface Job {
  readonly access: Access;
  /** Nested, defaults filled in. */
  readonly settings: SettingValues;
  readonly words: readonly string[];
  /** The file of settings, if there is one. */
  readonly config?: string;
}

/** A place that the user named. */
export interface NamedPlace {
  /** The setting; nothing for a word. */
  readonly name?: string;
  readonly use: PathUse;
  /** As the user wrote it. */
  readonly value: string;
}

/** Variables by which an adapter is found. */
export const GPU_VARIABLES = ["DENO_WEBGPU_BACKEND", "KEEL_ADAPTER_SOURCE"];
/** Variables by which the software driver is set up. */
export const DRIVER_VARIABLES = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "XDG_RUNTIME_DIR"];
/** Variables that say where caches are. */
export const CACHE_VARIABLES = [Deno.build.os === "windows" ? "LOCALAPPDATA" : "XDG_CACHE_HOME"];

/**
 * Lists what the user named.
 *
 * @param job the command's settings
 */
export function listPlaces({ access, settings, words }: Job): NamedPlace[] {
  const named = Object.entries(access.paths).flatMap(([name, use]): NamedPlace[] => {
    const value = valueAt(settings, name.split("."));
    return typeof value === "string" && value !== "" ? [{ name, use, value }] : [];
  });
  return [
    ...named,
    ...access.words === undefined ? [] : words.map((value) => ({ use: access.words!, value })),
  ];
}

/**
 * What a command's process may touch.
 *
 * @param job the command and its settings
 * @param machine where things are
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { trainCommand } from "../commands/train.ts";
 * const settings = { model: "a", output: "runs/b", inspect: true };
 * const job = { access: trainCommand.access, settings, words: [] };
 * const models = new Map([["a", ["a", "models/base"]]]);
 * const machine = { cacheFolder: "/cache/keel", models, usesHub: false, modules: [], exists: () => true };
 * const { read, write } = grantsOf(job, machine);
 * assert.deepEqual([read, write], [["a", "models/base", "runs/b"], []]); // nothing is trained
 * ```
 */
export function grantsOf(job: Job, machine: Machine): Grants {
  const { access, settings, config } = job;
  const usesGpu = access.usesGpu(settings);
  const places = listPlaces(job).map((place) => grantsOfPlace(place, machine));
  const caches = usesGpu ? access.caches.map((name) => join(machine.cacheFolder, name)) : [];
  const isReadOnly = access.isReadOnly?.(settings) ?? false;
  const listensAt = access.listensAt?.(settings);
  const driver = usesGpu && machine.driverFolder !== undefined ? [machine.driverFolder] : [];
  return {
    read: unique([
      ...places.flatMap(({ read }) => read),
      ...(config === undefined ? [] : [config]),
      ...caches,
      ...driver,
      ...(listensAt === undefined ? [] : machine.modules),
    ]),
    write: unique([...(isReadOnly ? [] : places.flatMap(({ write }) => write)), ...caches]),
    env: unique([
      ...(usesGpu ? [...GPU_VARIABLES, ...CACHE_VARIABLES] : []),
      ...(driver.length > 0 ? DRIVER_VARIABLES : []),
      ...(machine.usesHub ? HUB_CACHE_VARIABLES : []),
      ...(config !== undefined && isYamlFile(config) ? YAML_VARIABLES : []),
    ]),
    sys: unique([
      ...(usesGpu || machine.usesHub ? ["homedir"] : []),
      ...(usesGpu ? ["systemMemoryInfo", ...access.sys ?? []] : []),
    ]),
    ffi: driver,
    net: listensAt === undefined ? [] : [listensAt],
  };
}

function grantsOfPlace(
  { use, value }: NamedPlace,
  { models, exists }: Machine,
): Pick<Grants, "read" | "write"> {
  switch (use) {
    case "model":
    case "base":
      return { read: models.get(value) ?? [value], write: [] };
    case "files":
      return { read: value.split(",").filter((path) => path !== ""), write: [] };
    case "file":
    case "folder":
      return { read: [value], write: [] };
    case "newFolder":
      return { read: [value], write: [missingParent(value, exists) ?? value] };
    case "replacedFolder": {
      const folders = [value, ...Object.values(partialFolders(join(dirname(value), basename(value))))];
      const missing = missingParent(value, exists);
      return { read: folders, write: missing === undefined ? folders : [missing] };
    }
    case "newFile":
      return both([value, partialName(value)]);
    case "newDocument":
      return both([value, partialName(value), join(dirname(value), basename(value, ".md"))]);
  }
}

/** To rename a file takes both. */
function both(paths: readonly string[]): Pick<Grants, "read" | "write"> {
  return { read: paths, write: paths };
}

/** The first folder on the way that is not there, and so has nothing of anyone's in it. */
function missingParent(path: string, exists: (path: string) => boolean): string | undefined {
  let missing: string | undefined;
  for (let parent = dirname(resolve(path)); !exists(parent); parent = dirname(parent)) missing = parent;
  return missing;
}

/**
 * Grants as flags of Deno.
 *
 * @param grants what is allowed
 * @param cwd the folder in which the process starts
 * @throws {ConfigError} on a path that Deno's lists cannot hold
 */
export function permissionFlags({ read, write, env, sys, ffi, net }: Grants, cwd: string): string[] {
  const paths = (list: readonly string[]) => list.map((path) => flagPath(path, cwd));
  const flag = (name: string, values: readonly string[]) =>
    values.length > 0 ? [`--allow-${name}=${values.join()}`] : [];
  return [
    "--no-prompt",
    ...flag("read", paths(read)),
    ...flag("write", paths(write)),
    ...flag("env", env),
    ...flag("sys", sys),
    ...flag("ffi", paths(ffi)),
    ...flag("net", net),
  ];
}

/**
 * A path in Deno's lists, which end it at a comma and know no escape; seen from the process's own folder it may have none.
 *
 * @param path of a file or folder
 * @param cwd the folder in which the process starts
 * @throws {ConfigError} where it has one either way
 */
export function flagPath(path: string, cwd: string): string {
  const full = isAbsolute(path) ? path : join(cwd, path);
  if (!full.includes(",")) return full;
  const short = relative(cwd, full);
  if (short !== "" && !short.includes(",")) return short;
  throw new ConfigError(
    `Cannot use ${path}: expected a path without a comma, which ends a path in Deno's lists of permissions, found one`,
  );
}

function valueAt(settings: SettingValues, [key, ...rest]: readonly string[]): unknown {
  const value = settings[key];
  if (rest.length === 0 || typeof value !== "object" || value === null) {
    return rest.length === 0 ? value : undefined;
  }
  return valueAt(value as SettingValues, rest);
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)];
}
