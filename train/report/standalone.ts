/**
 * A figure as a picture of its own.
 * @module
 */
import { FIGURE_SIZE } from "./draw.ts";
import { escapeHtml } from "./escape.ts";
import type { Figure, LegendEntry } from "./figure.ts";
import { COLORS } from "./style.ts";
import { swatch, SWATCH_SIZE } from "./swatch.ts";

const MARGIN = 12;
const LINE = 20;
/** Of a character of the legend, at most: letters are narrower on average. */
const CHARACTER = 6.6;

/**
 * Makes an SVG file of a figure, with its title and legend in it. It follows the reader's colour scheme.
 *
 * @param figure of a report
 * @returns the file's content; the same figure gives the same bytes
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { lineFigure } from "./line_figure.ts";
 * const figure = lineFigure({
 *   title: "Loss",
 *   x: { label: "step", unit: "steps" },
 *   y: { label: "loss", unit: "nats" },
 *   series: [{ name: "a", points: [{ x: 0, y: 1 }, { x: 1, y: 0 }] }, { name: "b", points: [{ x: 0, y: 1 }] }],
 * });
 * const svg = standaloneSvg(figure);
 * assert(["Loss", ">a<", ">b<"].every((text) => svg.includes(text)));
 * ```
 */
export function standaloneSvg(figure: Figure): string {
  const rows = legendRows(figure.legend);
  const top = MARGIN + LINE + rows.length * LINE;
  // Figures of long names are higher than others.
  const inner = Number(/height="(\d+)"/.exec(figure.svg)?.[1] ?? FIGURE_SIZE.height);
  const [width, height] = [FIGURE_SIZE.width + 2 * MARGIN, top + inner + MARGIN];
  const legend = rows.flatMap((row, index) =>
    row.map(({ entry, x }) => {
      const y = MARGIN + LINE + index * LINE;
      return `<g transform="translate(${MARGIN + x} ${y})">${swatch(entry)}` +
        `<text x="${SWATCH_SIZE.width + 4}" y="10" font-size="12">${escapeHtml(entry.name)}</text></g>`;
    })
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    'font-family="system-ui, sans-serif" fill="currentColor">',
    `<title>${escapeHtml(figure.title)}</title>`,
    `<style>${COLORS}:root { color: var(--text); background: var(--background); }</style>`,
    `<text x="${MARGIN}" y="${MARGIN + 10}" font-size="14" font-weight="600">${
      escapeHtml(figure.title)
    }</text>`,
    ...legend,
    `<g transform="translate(${MARGIN} ${top})">${figure.svg}</g>`,
    "</svg>",
    "",
  ].join("\n");
}

/** Entries from left to right, in as many rows as they need. */
function legendRows(legend: readonly LegendEntry[]): { entry: LegendEntry; x: number }[][] {
  const rows: { entry: LegendEntry; x: number }[][] = [];
  let x = Infinity;
  for (const entry of legend) {
    const width = SWATCH_SIZE.width + 20 + Math.ceil(entry.name.length * CHARACTER);
    if (x + width > FIGURE_SIZE.width) {
      rows.push([]);
      x = 0;
    }
    rows[rows.length - 1].push({ entry, x });
    x += width;
  }
  return rows;
}
