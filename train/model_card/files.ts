/**
 * A model card on the disk.
 * @module
 */
import { join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import { writeFileAtomically } from "../atomic_file.ts";
import { InputError } from "../errors.ts";
import type { FileSystem } from "../file_system.ts";

/** The card's name in a model's folder. */
export const CARD_FILE = "README.md";

/** Tells a card of Keel's from someone's own text. */
export const CARD_STAMP =
  `<!-- Written by Keel ${project.version}, which replaces it when it saves here again. Remove this line to keep the file. -->`;

const STAMP_LINE = /^<!-- Written by Keel [^\n]* -->$/m;

/**
 * @param folder of a model; need not exist
 * @returns its card, where there is one that Keel wrote
 * @throws {InputError} where it cannot be read
 */
export async function readCard(folder: string): Promise<string | undefined> {
  const text = await readFile(folder);
  return text !== undefined && STAMP_LINE.test(text) ? text : undefined;
}

/**
 * Checks that a card could be written, and changes nothing: for before the long work.
 *
 * @param folder of a model; need not exist
 * @throws {InputError} on a README.md that Keel did not write, or whose stamp was removed
 */
export async function refuseOtherCard(folder: string): Promise<void> {
  const text = await readFile(folder);
  if (text === undefined || STAMP_LINE.test(text)) return;
  throw new InputError(
    `Cannot write ${join(folder, CARD_FILE)}: expected no file or a card of Keel's, found another text`,
  );
}

/**
 * Writes a card, whole or not at all.
 *
 * @param folder of the model, which must exist
 * @param text of the card, with {@link CARD_STAMP}
 * @param options.fileSystem Deno by default
 * @throws {InputError} on a README.md that Keel did not write
 */
export async function writeCard(
  folder: string,
  text: string,
  options: { fileSystem?: FileSystem } = {},
): Promise<void> {
  await refuseOtherCard(folder);
  const bytes = new TextEncoder().encode(text);
  await writeFileAtomically(join(folder, CARD_FILE), (append) => append(bytes), options);
}

async function readFile(folder: string): Promise<string | undefined> {
  const path = join(folder, CARD_FILE);
  try {
    return await Deno.readTextFile(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.NotADirectory) return undefined;
    throw new InputError(`Cannot read ${path}: expected a text, found ${(cause as Error).message}`, {
      cause,
    });
  }
}
