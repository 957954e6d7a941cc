/**
 * Errors of the file system as errors of the user's: one line that names the file.
 * @module
 */
import { InputError } from "./errors.ts";

/**
 * Whether the system refused something, and nobody has put it into a line yet. Deno gives most of its errors a code, but
 * not all: a file past its size limit has none.
 *
 * @param cause what was thrown
 */
export function isSystemError(cause: unknown): cause is Error {
  if (!(cause instanceof Error) || cause instanceof InputError) return false;
  return "code" in cause || /\(os error \d+\)/.test(cause.message);
}

/**
 * What to throw where a file or folder could not be written.
 *
 * @param path the file or folder
 * @param cause what was thrown
 * @returns an InputError that names it; the cause itself where that is no error of the system
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const full = Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" });
 * const error = cannotWrite("runs/dpo/results.json", full) as Error;
 * assert.match(error.message, /^Cannot write to runs.dpo.results\.json: expected a place to write, found No space/);
 * ```
 */
export function cannotWrite(path: string, cause: unknown): unknown {
  // Anything else is a fault of the program.
  if (!isSystemError(cause)) return cause;
  return new InputError(`Cannot write to ${path}: expected a place to write, found ${faultOf(cause)}`, {
    cause,
  });
}

/**
 * A system's error in words.
 *
 * @param cause what was thrown
 */
export function faultOf(cause: unknown): string {
  if (cause instanceof Deno.errors.NotADirectory) return "a file where a folder is needed";
  if (cause instanceof Deno.errors.AlreadyExists) return "something else of that name";
  if (cause instanceof Deno.errors.IsADirectory) return "a folder where a file is needed";
  if (cause instanceof Deno.errors.PermissionDenied) return "that permission is denied";
  if (cause instanceof Deno.errors.NotFound) return "no such folder";
  return (cause as Error).message;
}

/**
 * Makes a folder and those above it, where they are not there.
 *
 * @param path the folder
 * @throws {InputError} naming it
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true });
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}
