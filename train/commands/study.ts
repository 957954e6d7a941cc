/**
 * `study`: flags and help.
 * @module
 */
import { z } from "zod";
import { runConfigSchema } from "../config.ts";
import { type Command, type Meanings, RUN, TUNE_MEANING } from "./command.ts";

const { memoryBudgetGb, tune } = runConfigSchema.shape;

/** Flags of `study`. */
export const studyFlagsSchema = z.strictObject({
  /** Less of everything. */
  quick: z.boolean().default(false),
  /** How many seeds the comparison has. */
  seeds: z.int().min(1).max(100).optional(),
  /** The first of them. */
  seed: z.int().min(0).max(2 ** 31).default(0),
  /** Folder of results and report. */
  output: z.string().min(1).default("runs/study"),
  /** Where the same is written as Markdown. */
  document: z.string().min(1).optional(),
  memoryBudgetGb,
  tune,
});

/** Settings of a study. */
export type StudyFlags = z.output<typeof studyFlagsSchema>;

const STUDY = "Study";

const STUDY_MEANINGS: Meanings<keyof StudyFlags> = {
  quick: [STUDY, "one seed, fewer steps and settings"],
  seeds: [STUDY, "how many seeds the comparison has (default: 3, or 1 with --quick)"],
  seed: [STUDY, "the first of them"],
  output: [RUN, "folder of results and report.html; finished runs in it are not run again"],
  document: [RUN, ".md file for the same report; its figures go to a folder of that name beside it"],
  memoryBudgetGb: [RUN, "upper bound of GPU memory in GiB (default: by the adapter)"],
  tune: [RUN, TUNE_MEANING],
};

/** Shows what SPO changes. */
export const studyCommand: Command<typeof studyFlagsSchema> = {
  schema: studyFlagsSchema,
  takesConfig: false,
  json: "print one JSON object: output, page, document",
  summary: "Trains preference losses without and with SPO, and reports what becomes of the model.",
  meanings: STUDY_MEANINGS,
  examples: [
    "deno task study",
    "deno task study --quick --output runs/quick",
    "deno task study --seeds 5 --document study.md",
  ],
  access: {
    paths: { output: "newFolder", document: "newDocument" },
    usesGpu: () => true,
    caches: ["tuning"],
  },
  load: async () => (await import("./run_study.ts")).runStudyCommand,
};
