/**
 * What a command of the command line is: its flags, its help, and the program behind it.
 * @module
 */
import type { z } from "zod";
import type { Invocation } from "../command_line.ts";
import type { Access, SettingValues } from "./access.ts";

/** Section and meaning of each flag. A default that the schema cannot know stands here, in words. */
export type Meanings<Name extends string = string> = Readonly<
  Record<Name, readonly [section: string, meaning: string]>
>;

/** Runs a command; returns the exit code. */
export type Program = (invocation: Invocation) => Promise<number>;

/** A command. */
export interface Command<Schema extends z.ZodObject = z.ZodObject> {
  /** Its flags. */
  readonly schema: Schema;
  /** Whether a file may set them too. */
  readonly takesConfig: boolean;
  /**
   * Whether they are settings of a training run: other libraries' names are known, and its file may be a run's, of which
   * what the command does not read is passed over.
   */
  readonly sharesRunConfig?: boolean;
  /** What it prints as JSON with `--json`; without it there is no such flag. */
  readonly json?: string;
  /** What the words without a flag are called in its help; without it the command takes none. */
  readonly words?: string;
  /** What it does, in a line. */
  readonly summary: string;
  /** One line for each flag, in the order of the help. */
  readonly meanings: Meanings;
  /** Command lines that work. */
  readonly examples: readonly string[];
  /** What it does to the machine. */
  readonly access: Access;
  /** Checks what was set and fills in the rest, where that takes more than the schema. */
  readonly settle?: (invocation: Invocation) => SettingValues | Promise<SettingValues>;
  /** Loads the program; asking for help does not need it. */
  readonly load: () => Promise<Program>;
}

// Sections of the help.
export const DATA = "Model and data";
export const LOSS = "Loss";
export const SPO = "Stable Preference Optimization, around any pairwise loss";
export const LORA = "LoRA: small adapters are trained in place of the model";
export const OPTIMIZER = "Optimizer";
export const SAMPLING = "Text";
export const RUN = "Run";

/** Of a flag that several commands have. */
export const TUNE_MEANING =
  "measure tilings of the matrix product once per GPU and keep the choice, or take the built-in ones";
