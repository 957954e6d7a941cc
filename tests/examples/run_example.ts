/**
 * Examples as a user runs them: by the command that stands in each, in a process of its own.
 *
 * @module
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

/** The project's folder. */
export const ROOT: string = fileURLToPath(new URL("../..", import.meta.url));

/**
 * The command in an example's header.
 *
 * @param name Of the file in examples/.
 * @returns Its words, `deno` and placeholders in brackets left out.
 */
export function commandOf(name: string): string[] {
  const command = /^ \* {5}deno (run .*)$/m.exec(Deno.readTextFileSync(`${ROOT}/examples/${name}`))?.[1];
  assert.ok(command !== undefined, `examples/${name} has no command`);
  return command.replace(/ \[.*$/, "").split(" ");
}

/** Starts it; what it prints is collected. */
export function startExample(name: string, args: readonly string[] = []): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [...commandOf(name), ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Runs it to its end, which must be a good one; returns what it printed. */
export async function runExample(name: string): Promise<string> {
  const { code, stdout, stderr } = await startExample(name).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
