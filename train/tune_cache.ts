/**
 * The tuner's choice on disk: one file for each adapter, driver and version. Whatever is not such a file is ignored, and
 * written anew.
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import type { Gpu } from "../engine/gpu.ts";
import { type TuneOptions, tuneProducts, type TuneResult } from "../engine/tune.ts";
import project from "../deno.json" with { type: "json" };
import { writeFileAtomically } from "./atomic_file.ts";
import { cacheFolder } from "./cache_folder.ts";
import { InputError } from "./errors.ts";
import { faultOf, isSystemError, makeFolder } from "./write_error.ts";

/** Grows when the candidates or the meaning of the file change. */
const FORMAT = 1;

/** What a choice holds for. */
export interface TuneKey {
  readonly format: number;
  readonly keel: string;
  /** The driver's name of the device, with its version where the driver gives one. */
  readonly adapter: string;
  readonly features: readonly string[];
}

const fileSchema = z.strictObject({
  key: z.strictObject({
    format: z.number(),
    keel: z.string(),
    adapter: z.string(),
    features: z.array(z.string()),
  }),
  choice: z.record(z.string(), z.string()),
});

/** @returns what a choice on this device holds for */
export function tuneKey({ adapter }: Gpu): TuneKey {
  return { format: FORMAT, keel: project.version, adapter: adapter.name, features: adapter.features };
}

/** @returns where choices are kept for this user */
export function tuneFolder(): string {
  return join(cacheFolder(), "tuning");
}

/** Settings of {@link tuneFromCache}. */
export interface CachedTuneOptions extends Omit<TuneOptions, "stored"> {
  /** Where choices are kept; made when it does not exist. */
  readonly folder: string;
}

/**
 * Makes a device's products follow the choice in the cache, or measures and stores it. On a software adapter nothing is
 * measured: its built-in tiling was chosen by hand, and each of the 21 candidates compiles for seconds there.
 *
 * @param gpu the device, before its first product
 * @param options the cache's folder, and what the tuner takes
 * @returns what was found, or null when nothing was tuned
 */
export async function tuneFromCache(gpu: Gpu, options: CachedTuneOptions): Promise<TuneResult | null> {
  if (gpu.adapter.isCpu) return null;
  const key = tuneKey(gpu);
  const path = join(options.folder, `${createHash("sha256").update(JSON.stringify(key)).digest("hex")}.json`);
  const result = await tuneProducts(gpu, { ...options, stored: await readStored(path, key) });
  if (result.isMeasured) {
    await makeFolder(options.folder);
    const text = `${JSON.stringify({ key, choice: result.choice }, null, 2)}\n`;
    await writeFileAtomically(path, (append) => append(new TextEncoder().encode(text)));
  }
  return result;
}

async function readStored(path: string, key: TuneKey): Promise<unknown> {
  try {
    const file: unknown = JSON.parse(await Deno.readTextFile(path));
    const { choice } = fileSchema.parse(file);
    // As a whole: parsing leaves out a choice for `__proto__`.
    return isDeepStrictEqual(file, { key, choice }) ? choice : undefined;
  } catch (error) {
    // Not there, not JSON or not a choice: it is only a cache.
    if (
      error instanceof Deno.errors.NotFound || error instanceof SyntaxError || error instanceof z.ZodError
    ) {
      return undefined;
    }
    if (!isSystemError(error)) throw error;
    throw new InputError(`Cannot read ${path}: expected a readable file, found ${faultOf(error)}`, {
      cause: error,
    });
  }
}
