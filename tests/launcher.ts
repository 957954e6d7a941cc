/**
 * The command line as the tasks of deno.json start it.
 *
 * @module
 */
import assert from "node:assert/strict";
import project from "../deno.json" with { type: "json" };

const [program, ...words] = project.tasks.train.command.split(" ");
assert.equal(program, "deno");

/** Deno's arguments up to the command: its name and flags follow. */
export const LAUNCHER: readonly string[] = words.slice(0, -1);
