/**
 * Where the files of models are, the base of an adapter included.
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { isAdapterFolder, readAdapterConfig } from "../adapters/adapter_config.ts";
import { InputError } from "../errors.ts";
import { findInCache, repoFolderOf } from "../hub/hub_cache.ts";
import { isHubName, parseHubName } from "../hub/hub_name.ts";
import { hubCache } from "../hub/hub_settings.ts";
import type { NamedPlace } from "./grants.ts";

/** Models of a command line. */
export interface LocatedModels {
  /** What is read of each, by what the user calls it. */
  readonly models: ReadonlyMap<string, readonly string[]>;
  /** Whether any is the hub's. */
  readonly usesHub: boolean;
}

/** Thrown where a model is not on this machine, and may be fetched. */
export class ModelMissingError extends Error {
  override name = "ModelMissingError";
}

/**
 * Finds models on this machine.
 *
 * @param places what the user named
 * @param download gets a model's name on the hub and returns its folder
 * @throws {HubError} when a name is none, or the download fails
 */
export async function locateModels(
  places: readonly NamedPlace[],
  download: (name: string) => Promise<string>,
): Promise<LocatedModels> {
  const models = new Map<string, readonly string[]>();
  let usesHub = false;
  const locate = async (name: string) => {
    const place = await locateModel(name, download);
    usesHub ||= place.isOfHub;
    return place;
  };
  const hasBase = places.some(({ use }) => use === "base");
  for (const { name, use, value } of places) {
    if (use !== "model" && use !== "base") continue;
    const { folder, read } = await locate(value);
    // A base that is given takes the place of the one that the adapter of --model names.
    const isOnItsOwn = use === "model" && !(hasBase && name === "model");
    const base = isOnItsOwn ? await namedBase(folder) : undefined;
    models.set(value, [...read, ...base === undefined ? [] : baseFiles(await locate(base))]);
  }
  return { models, usesHub };
}

/** A folder that a file names, and not the user, is read only if it is a model's. */
function baseFiles({ folder, read, isOfHub }: LocatedModel): readonly string[] {
  const config = join(folder, "config.json");
  return isOfHub || existsSync(config) ? read : [config];
}

interface LocatedModel {
  readonly folder: string;
  readonly read: readonly string[];
  readonly isOfHub: boolean;
}

async function locateModel(
  name: string,
  download: (name: string) => Promise<string>,
): Promise<LocatedModel> {
  if (!isHubName(name)) return { folder: name, read: [name], isOfHub: false };
  const { cacheFolder, isOffline } = hubCache();
  // Whether a folder of that name is there is looked at again.
  const read = [name, repoFolderOf(cacheFolder, parseHubName(name).repo)];
  const cached = await findInCache(name, { cacheFolder, fromOtherTools: isOffline });
  // What is missing offline is told by the command itself.
  return { folder: cached ?? (isOffline ? name : await download(name)), read, isOfHub: true };
}

/** What is wrong with an adapter's settings is told by the command itself. */
async function namedBase(folder: string): Promise<string | undefined> {
  try {
    return await isAdapterFolder(folder) ? (await readAdapterConfig(folder)).base ?? undefined : undefined;
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
}
