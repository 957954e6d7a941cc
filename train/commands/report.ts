/**
 * `report`: flags and help.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import { type Command, type Meanings, RUN } from "./command.ts";

/** Flags of `report`. */
export const reportFlagsSchema = z.strictObject({
  /** The HTML file. */
  output: z.string().min(1).optional(),
});

const REPORT_MEANINGS: Meanings<keyof z.output<typeof reportFlagsSchema>> = {
  output: [RUN, "the HTML file (default: report.html in the folder of the first run)"],
};

/** Where the page goes by default. */
export function defaultReport(firstRun: string): string {
  return join(firstRun, "report.html");
}

/** Shows what runs have logged. */
export const reportCommand: Command<typeof reportFlagsSchema> = {
  schema: reportFlagsSchema,
  takesConfig: false,
  json: "print one JSON object: output, runs",
  words: "RUN...",
  summary:
    "Shows what runs have logged, side by side: figures and tables in one HTML file that needs no network.",
  meanings: REPORT_MEANINGS,
  examples: [
    "deno task report runs/dpo",
    "deno task report runs/dpo runs/simpo --output comparison.html",
  ],
  access: { paths: { output: "newFile" }, words: "folder", usesGpu: () => false, caches: [] },
  settle: ({ raw, words }) => {
    const [first] = words;
    return first === undefined ? raw : { output: defaultReport(first), ...raw };
  },
  load: async () => (await import("./run_report.ts")).runReport,
};
