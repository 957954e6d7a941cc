/**
 * The settings of an adapter's folder, without its weights.
 * @module
 */
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { parseLoraConfig, type StoredLoraConfig } from "./lora_config.ts";

/** The file that tells an adapter's folder from a model's. */
export const ADAPTER_CONFIG = "adapter_config.json";

/** @returns whether a folder holds an adapter */
export async function isAdapterFolder(folder: string): Promise<boolean> {
  try {
    return (await Deno.stat(join(folder, ADAPTER_CONFIG))).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/**
 * @param folder of an adapter
 * @returns its settings
 * @throws {CheckpointError} naming file and key
 */
export async function readAdapterConfig(folder: string): Promise<StoredLoraConfig> {
  const file = join(folder, ADAPTER_CONFIG);
  let json: unknown;
  try {
    json = JSON.parse(await Deno.readTextFile(file));
  } catch (cause) {
    const found = cause instanceof Deno.errors.NotFound
      ? "expected a file, found nothing"
      : (cause as Error).message;
    throw new CheckpointError(`Cannot read ${file}: ${found}`, { cause });
  }
  return parseLoraConfig(json, file);
}
