/**
 * Files that an evaluation writes: whole, or not there.
 * @module
 */
import { dirname } from "node:path";
import { writeFileAtomically } from "../atomic_file.ts";
import { InputError } from "../errors.ts";

/** One example of an evaluation, as a line of the details. */
export type Detail = Readonly<Record<string, unknown>>;

/**
 * Checks that a file could be written, and changes nothing: for before the long work.
 *
 * @param path the file
 * @param options.overwrite whether one may be there
 * @param options.flag that named it
 * @throws {InputError} when it is there, is a folder, or its folder is not there
 */
export async function checkOutputFile(
  path: string,
  { overwrite, flag }: { overwrite: boolean; flag: string },
): Promise<void> {
  const found = await statOf(path);
  if (found?.isDirectory) {
    throw new InputError(`Cannot write ${flag} ${path}: expected a file, found a folder`);
  }
  if (found && !overwrite) {
    throw new InputError(
      `Cannot write ${flag} ${path}: expected no file of that name, found one (--overwrite replaces it)`,
    );
  }
  await checkOutputParent(path, { flag });
}

/**
 * Checks that the folder of a new file is there.
 *
 * @param path the file
 * @param options.flag that named it
 * @throws {InputError} when it is not
 */
export async function checkOutputParent(path: string, { flag }: { flag: string }): Promise<void> {
  let folder: Deno.FileInfo | undefined;
  try {
    folder = await statOf(dirname(path));
  } catch (error) {
    // Permission may end at the file itself; the launcher has looked at its folder then.
    if (error instanceof Deno.errors.NotCapable) return;
    throw error;
  }
  if (!folder?.isDirectory) {
    throw new InputError(`Cannot write ${flag} ${path}: expected an existing folder, found none`);
  }
}

async function statOf(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new InputError(`Cannot look at ${path}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Runs something whose examples go to a file, a line each; the file appears when all is done.
 *
 * @param path the file; nothing is written without one
 * @param body gets what writes an example
 * @returns what body returns
 */
export async function withDetails<Result>(
  path: string | undefined,
  body: (write: (detail: Detail) => Promise<void>) => Promise<Result>,
): Promise<Result> {
  if (path === undefined) return await body(() => Promise.resolve());
  let result: { value: Result } | undefined;
  const encoder = new TextEncoder();
  await writeFileAtomically(path, async (append) => {
    result = { value: await body((detail) => append(encoder.encode(JSON.stringify(detail) + "\n"))) };
  });
  return result!.value;
}
