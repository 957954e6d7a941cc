/**
 * A report: one HTML file that needs nothing else, neither network nor script.
 * @module
 */
import { createHash } from "node:crypto";
import { writeFileAtomically } from "../atomic_file.ts";
import { type Cell, isNumberColumn } from "../table.ts";
import { escapeHtml } from "./escape.ts";
import type { Figure } from "./figure.ts";
import { REPORT_STYLE } from "./style.ts";
import { swatch, SWATCH_SIZE } from "./swatch.ts";

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

/** Reports of so many sections begin with links to them. */
const MIN_LINKED_SECTIONS = 4;

/**
 * Makes a report's page. It loads nothing and runs nothing: its policy forbids everything but its own style sheet.
 *
 * @param report its content
 * @returns an HTML document; the same report gives the same bytes
 * @throws {RangeError} on a row of another length than its headers
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const html = reportPage({ title: "<run>", sections: [{ title: "Loss", paragraphs: ["It fell."] }] });
 * assert.match(html, /<h1>&lt;run&gt;<\/h1>/);
 * ```
 */
export function reportPage(report: Report): string {
  const { title, subtitle, sections, configuration } = report;
  const styleHash = createHash("sha256").update(REPORT_STYLE).digest("base64");
  const policy = `default-src 'none'; style-src 'sha256-${styleHash}'; base-uri 'none'; form-action 'none'`;
  const links = sections.map((section, index) =>
    `<li><a href="#section-${index + 1}">${escapeHtml(section.title)}</a></li>`
  );
  return [
    "<!doctype html>",
    '<html lang="en">',
    "<head>",
    '<meta charset="utf-8">',
    `<meta http-equiv="Content-Security-Policy" content="${policy}">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<meta name="referrer" content="no-referrer">',
    `<title>${escapeHtml(title)}</title>`,
    `<style>${REPORT_STYLE}</style>`,
    "</head>",
    "<body>",
    `<header><h1>${escapeHtml(title)}</h1>`,
    ...(subtitle === undefined ? [] : [`<p class="subtitle">${escapeHtml(subtitle)}</p>`]),
    "</header>",
    ...(sections.length < MIN_LINKED_SECTIONS
      ? []
      : [`<nav aria-label="Sections"><ul>${links.join("")}</ul></nav>`]),
    "<main>",
    ...sections.map((section, index) => sectionHtml(section, `section-${index + 1}`)),
    ...(configuration === undefined ? [] : [configurationHtml(configuration)]),
    "</main>",
    "</body>",
    "</html>",
    "",
  ].join("\n");
}

/**
 * Writes a report's file, whole or not at all.
 *
 * @param path the file; its folder must exist
 * @param report its content
 * @throws {InputError} where it cannot be written
 * @example
 * ```ts
 * const path = `${Deno.makeTempDirSync()}/report.html`;
 * await writeReport(path, { title: "A run", sections: [] });
 * if (!Deno.readTextFileSync(path).includes("<h1>A run</h1>")) throw new Error("the page is whole");
 * ```
 */
export async function writeReport(path: string, report: Report): Promise<void> {
  const bytes = new TextEncoder().encode(reportPage(report));
  await writeFileAtomically(path, (append) => append(bytes));
}

/**
 * A section as HTML, in which every text is shown as it is.
 *
 * @param section its content
 * @param id of its heading, once in a page
 */
export function sectionHtml(
  { title, paragraphs = [], figures = [], tables = [] }: ReportSection,
  id: string,
): string {
  return [
    `<section aria-labelledby="${id}"><h2 id="${id}">${escapeHtml(title)}</h2>`,
    ...paragraphs.map((text) => `<p>${escapeHtml(text)}</p>`),
    ...(figures.length > 0 ? [`<div class="figures">`, ...figures.map(figureHtml), "</div>"] : []),
    ...tables.map((table) => tableHtml(table, title)),
    "</section>",
  ].join("\n");
}

function figureHtml({ title, legend, svg }: Figure): string {
  const entries = legend.map((entry) =>
    `<li><svg width="${SWATCH_SIZE.width}" height="${SWATCH_SIZE.height}" aria-hidden="true">${
      swatch(entry)
    }</svg>${escapeHtml(entry.name)}</li>`
  );
  return [
    `<figure><figcaption>${escapeHtml(title)}</figcaption>`,
    ...(entries.length > 0 ? [`<ul class="legend">${entries.join("")}</ul>`] : []),
    svg,
    "</figure>",
  ].join("\n");
}

function tableHtml({ caption, headers, rows }: ReportTable, section: string): string {
  const wrong = rows.findIndex((row) => row.length !== headers.length);
  if (wrong >= 0) {
    throw new RangeError(
      `Cannot show row ${wrong} of a table: expected ${headers.length} cells, found ${rows[wrong].length}`,
    );
  }
  const isNumber = headers.map((_, column) => isNumberColumn(rows.map((row) => row[column])));
  const cells = (tag: string, row: readonly Cell[]) =>
    row.map((cell, column) =>
      `<${tag}${isNumber[column] ? ' class="number"' : ""}${tag === "th" ? ' scope="col"' : ""}>${
        escapeHtml(String(cell))
      }</${tag}>`
    ).join("");
  // The box scrolls on a narrow screen; with a keyboard it has to take the focus for that.
  return [
    `<div class="scroll" tabindex="0" role="region" aria-label="${escapeHtml(caption ?? section)}"><table>`,
    ...(caption === undefined ? [] : [`<caption>${escapeHtml(caption)}</caption>`]),
    `<thead><tr>${cells("th", headers)}</tr></thead>`,
    `<tbody>${rows.map((row) => `<tr>${cells("td", row)}</tr>`).join("\n")}</tbody>`,
    "</table></div>",
  ].join("\n");
}

/**
 * What made a report, behind a heading that opens it.
 *
 * @param configuration as JSON has it
 */
export function configurationHtml(configuration: unknown): string {
  const json = JSON.stringify(configuration, null, 2);
  return `<section><details><summary>Configuration</summary><pre tabindex="0">${
    escapeHtml(json)
  }</pre></details></section>`;
}
