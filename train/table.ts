/**
 * Tables as text.
 * @module
 */

/** A value of a table; numbers are printed as they are, so round them before. */
export type Cell = string | number;

/**
 * Formats a table for a terminal: columns two spaces apart, a rule below the headers, numbers to the right.
 *
 * @param headers one per column
 * @param rows cells, as many as headers; a column whose cells are all numbers (`93.8 %`, `-1.2`, `-` for none) is one
 *   of numbers
 * @returns lines, the last one ended
 * @throws {RangeError} on a row of another length
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(formatTable(["phase", "loss"], [["sft", 0.25]]), "phase  loss\n-----  ----\nsft    0.25\n");
 * ```
 */
export function formatTable(headers: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const { lines, widths, numeric } = layOut(headers, rows);
  const [head, ...body] = lines.map((cells) => align(cells, { widths, numeric }).join("  ").trimEnd());
  const rule = widths.map((width) => "-".repeat(width)).join("  ");
  return [head, rule, ...body].map((line) => `${line}\n`).join("");
}

/**
 * Formats the same table as Markdown.
 *
 * @param headers one per column
 * @param rows cells, as many as headers
 * @returns lines, the last one ended
 * @throws {RangeError} on a row of another length
 */
export function formatMarkdownTable(headers: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const escaped = (cells: readonly Cell[]) => cells.map((cell) => String(cell).replaceAll("|", "\\|"));
  const { lines, widths, numeric } = layOut(escaped(headers), rows.map(escaped));
  const [head, ...body] = lines.map((cells) => align(cells, { widths, numeric }));
  const rule = widths.map((width, column) => {
    return numeric[column] ? `${"-".repeat(Math.max(1, width - 1))}:` : "-".repeat(Math.max(1, width));
  });
  return [head, rule, ...body].map((cells) => `| ${cells.join(" | ")} |\n`).join("");
}

interface Columns {
  readonly widths: readonly number[];
  readonly numeric: readonly boolean[];
}

const NUMBER =
  /^(?:-|[+-]?(?:[0-9][0-9,]*\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?(?: ?[%x])?|NaN|[+-]?Infinity)$/i;

function layOut(
  headers: readonly string[],
  rows: readonly (readonly Cell[])[],
): Columns & { lines: string[][] } {
  const wrong = rows.findIndex((row) => row.length !== headers.length);
  if (wrong >= 0) {
    throw new RangeError(
      `Cannot format row ${wrong} of a table: expected ${headers.length} cells, found ${rows[wrong].length}`,
    );
  }
  const lines = [headers, ...rows].map((cells) => cells.map(oneLine));
  const body = lines.slice(1);
  return {
    lines,
    widths: headers.map((_, column) => Math.max(...lines.map((cells) => countColumns(cells[column])))),
    numeric: headers.map((_, column) => isNumberColumn(body.map((cells) => cells[column]))),
  };
}

/**
 * Whether a column stands to the right: it has cells, and all are numbers, with or without a sign and a unit.
 *
 * @param cells of the column
 */
export function isNumberColumn(cells: readonly Cell[]): boolean {
  return cells.length > 0 && cells.every((cell) => NUMBER.test(String(cell)));
}

/** Decoded text may hold line ends and terminal controls: shown as JSON escapes, they cannot break the table. */
function oneLine(cell: Cell): string {
  // deno-lint-ignore no-control-regex -- they are what is looked for
  return String(cell).replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, (character) => {
    const code = character.charCodeAt(0).toString(16).padStart(4, "0");
    return character === "\n" ? "\\n" : character === "\t" ? "\\t" : `\\u${code}`;
  });
}

function align(cells: readonly string[], { widths, numeric }: Columns): string[] {
  return cells.map((cell, column) => {
    const space = " ".repeat(widths[column] - countColumns(cell));
    return numeric[column] ? space + cell : cell + space;
  });
}

function countColumns(text: string): number {
  return [...text].length;
}
