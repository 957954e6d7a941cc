/**
 * Every command. A new one adds its line here, and its task to deno.json.
 * @module
 */
import { benchCommand } from "./bench.ts";
import { chatCommand } from "./chat.ts";
import type { Command } from "./command.ts";
import { evalCommand } from "./eval.ts";
import { generateCommand } from "./generate.ts";
import { inspectCommand } from "./inspect.ts";
import { mergeCommand } from "./merge.ts";
import { profileCommand } from "./profile.ts";
import { studyCommand } from "./study.ts";
import { reportCommand } from "./report.ts";
import { trainCommand } from "./train.ts";
import { wgslCommand } from "./wgsl.ts";

/** By name, in the order of the help. */
export const COMMANDS = {
  train: trainCommand,
  inspect: inspectCommand,
  eval: evalCommand,
  generate: generateCommand,
  chat: chatCommand,
  merge: mergeCommand,
  report: reportCommand,
  bench: benchCommand,
  profile: profileCommand,
  study: studyCommand,
  wgsl: wgslCommand,
} as const satisfies Record<string, Command>;

/** A name in {@link COMMANDS}. */
export type CommandName = keyof typeof COMMANDS;
