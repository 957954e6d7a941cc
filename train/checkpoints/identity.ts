/**
 * What the result of a run depends on: by it a run that goes on is told from another run.
 * @module
 */
import { join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import { ADAPTER_CONFIG } from "../adapters/adapter_config.ts";
import { ADAPTER_WEIGHTS } from "../adapters/adapter_files.ts";
import { effectiveSettings, type RunConfig } from "../config.ts";
import { listFiles } from "../data/data_files.ts";
import { TOKENIZER_FILES } from "../data/tokenizer_files.ts";
import { INDEX_FILE, openCheckpoint } from "../models/checkpoint.ts";
import type { RunData } from "../run_data.ts";
import { hashFile } from "./files.ts";

/** Settings that say where things are and what is written when, or what a run may take: none changes a result. */
const WITHOUT_EFFECT = [
  ...["model", "base", "data", "evalData", "output", "overwrite", "maxShardGb"],
  ...["saveSteps", "saveMinutes", "saveTotalLimit", "memoryBudgetGb", "csv", "tensorboard"],
];

/**
 * Everything that a run's metrics and weights follow from: settings, the contents of its files wherever they lie, the
 * adapter and the version of Keel. Files are read whole, the model's weights too.
 *
 * @param data what the run reads
 * @param options.adapter name of the GPU or of what stands for it
 * @returns values that JSON can hold
 * @throws {InputError} where a file cannot be read
 */
export async function runIdentity(
  { config, folder, adapter: trainedOn }: RunData,
  { adapter }: { adapter: string },
): Promise<Record<string, unknown>> {
  return {
    keelVersion: project.version,
    adapter,
    settings: settingsWithEffect(config),
    model: await hashFiles(folder, await modelFiles(folder)),
    ...(trainedOn === undefined ? {} : {
      trainedOn: await hashFiles(trainedOn, [ADAPTER_CONFIG, ADAPTER_WEIGHTS, ...TOKENIZER_FILES]),
    }),
    data: await hashData(config.data),
    evalData: await hashData(config.evalData),
    sftData: await hashData(config.spo.sftData),
  };
}

/**
 * The settings of a run that its result depends on: neither where its files are, nor what is written when.
 *
 * @param config effective settings
 */
export function settingsWithEffect(config: RunConfig): Record<string, unknown> {
  const { spo, ...settings } = effectiveSettings(config);
  const kept = Object.entries(settings).filter(([name]) => !WITHOUT_EFFECT.includes(name));
  const { sftData: _, ...ofSpo } = (spo ?? {}) as Record<string, unknown>;
  return { ...Object.fromEntries(kept), ...(spo ? { spo: ofSpo } : {}) };
}

async function modelFiles(folder: string): Promise<string[]> {
  using checkpoint = await openCheckpoint(folder);
  const weights = [...new Set(checkpoint.layout.files.values())].sort();
  return ["config.json", INDEX_FILE, ...weights, ...TOKENIZER_FILES];
}

/** Name -> SHA-256, of those that are there. */
async function hashFiles(folder: string, names: readonly string[]): Promise<Record<string, string>> {
  const hashes: Record<string, string> = {};
  for (const name of names) {
    const hash = await hashIfThere(join(folder, name));
    if (hash !== undefined) hashes[name] = hash;
  }
  return hashes;
}

/** SHA-256 of each file, in their order; their names may change. */
async function hashData(paths: string | undefined): Promise<string[] | undefined> {
  if (paths === undefined) return undefined;
  const hashes: string[] = [];
  for (const path of await listFiles(paths)) hashes.push(await hashIfThere(path) ?? "no such file");
  return hashes;
}

async function hashIfThere(path: string): Promise<string | undefined> {
  try {
    const { size } = await Deno.stat(path);
    return await hashFile(path, { sizeBytes: size });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
