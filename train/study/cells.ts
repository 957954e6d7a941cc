/**
 * Results on disk, each under a hash of everything that it depends on: a study that was stopped goes on where it was, and
 * one whose settings changed runs anew what they touch.
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import { InputError } from "../errors.ts";
import { writeJson } from "../run_folder.ts";

/** Changes when what is computed does, so that old results are not taken for new ones. */
const CELL_FORMAT = 1;

/** Results of one study's folder. */
export interface Cells {
  /**
   * What was kept under these settings.
   *
   * @param settings everything that the result depends on; what JSON can hold
   */
  find<Result>(settings: unknown): Promise<Result | undefined>;
  /** Keeps a result, whole or not at all. */
  keep(settings: unknown, result: unknown): Promise<void>;
  /** The file of a result. */
  path(settings: unknown): string;
}

/**
 * @param folder of the results; it must exist
 * @param context what all of them depend on besides: the adapter, as kernels round differently on each
 */
export function openCells(folder: string, context: { readonly adapter: string }): Cells {
  const keyOf = (settings: unknown) => ({ format: CELL_FORMAT, keel: project.version, ...context, settings });
  const path = (settings: unknown) => {
    const digest = createHash("sha256").update(JSON.stringify(keyOf(settings))).digest("hex");
    return join(folder, `${digest.slice(0, 32)}.json`);
  };
  return {
    path,
    async find<Result>(settings: unknown) {
      const file = path(settings);
      const text = await readText(file);
      if (text === undefined) return undefined;
      const { key, result } = parse(text, file);
      // The name is a hash of the key: anything else was put there by hand.
      if (JSON.stringify(key) === JSON.stringify(keyOf(settings))) return result as Result;
      throw new InputError(
        `Cannot use ${file}: expected the settings that its name is the hash of, found others`,
      );
    },
    keep: (settings, result) => writeJson(path(settings), { key: keyOf(settings), result }),
  };
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function parse(text: string, path: string): { key?: unknown; result?: unknown } {
  try {
    const value: unknown = JSON.parse(text);
    if (value instanceof Object && "result" in value) return value;
  } catch {
    // Said below.
  }
  throw new InputError(
    `Cannot use ${path}: expected a result of the study, found other text; remove the file`,
  );
}
