/**
 * From what `--model` says to a folder.
 * @module
 */
import type { Progress } from "../progress.ts";
import { inMebibytes, type RunHooks, RunStoppedError } from "../session.ts";
import { downloadModel } from "./download_model.ts";
import { findInCache } from "./hub_cache.ts";
import { HubError } from "./hub_error.ts";
import { isHubName } from "./hub_name.ts";
import { hubCache, hubSettings } from "./hub_settings.ts";

/** Where lines and a bar go; without `progress` none is shown. */
export type ResolveHooks = Pick<RunHooks, "log"> & Partial<RunHooks>;

/**
 * Finds the folder of a model: a folder is what it is, and `owner/name` or `owner/name@revision` is looked up in Hugging
 * Face's cache and downloaded when it is not there. The network is used only for that; a branch that has been downloaded
 * stays at the commit it was then.
 *
 * @param model a folder, or the name of a model on the hub
 * @param hooks where lines and a bar go
 * @returns the folder; whether it holds a model is not looked at
 * @throws {HubError} saying what to do
 * @throws {RunStoppedError} when the signal was aborted
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(await resolveModel("./models/mine", { log: () => {} }), "./models/mine");
 * ```
 */
export async function resolveModel(model: string, hooks: ResolveHooks): Promise<string> {
  if (!isHubName(model)) return model;
  const { cacheFolder, isOffline } = hubCache();
  // Online, a look at the hub's listing tells whether another tool left something out.
  const cached = await findInCache(model, { cacheFolder, fromOtherTools: isOffline });
  if (cached !== undefined) return cached;
  if (isOffline) {
    throw new HubError(
      `Cannot load ${model}: expected all of it in ${cacheFolder}, as HF_HUB_OFFLINE is set, found it missing or ` +
        "incomplete; run once without HF_HUB_OFFLINE",
    );
  }
  const settings = hubSettings();
  hooks.log(`There is no folder ${model}: downloading it from ${settings.endpoint} to ${cacheFolder}`);
  return await withBar(model, hooks, (onProgress) => {
    const onWait = (path: string) => hooks.log(`Waiting for another process that downloads ${path}`);
    return downloadModel(model, { settings, onProgress, onWait, signal: hooks.signal });
  });
}

/** A bar in MiB. */
async function withBar(
  model: string,
  { progress, signal }: ResolveHooks,
  body: (onProgress: (doneBytes: number, totalBytes: number) => void) => Promise<string>,
): Promise<string> {
  let bar: Progress | undefined;
  try {
    return await body(inMebibytes((done, total) => {
      bar ??= progress?.("download, MiB", total);
      bar?.update({ step: done });
    }));
  } catch (error) {
    if (!signal?.aborted) throw error;
    throw new RunStoppedError(`Stopped during the download of ${model}; run again to go on from there`);
  } finally {
    bar?.finish();
  }
}
