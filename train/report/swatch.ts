/**
 * @module
 */
import type { LegendEntry } from "./figure.ts";
import { seriesColor } from "./palette.ts";

/** The room that a legend's mark takes. */
export const SWATCH_SIZE = { width: 22, height: 12 } as const;

/**
 * A series as its legend shows it.
 *
 * @param entry of the legend
 * @returns SVG in a box of {@link SWATCH_SIZE}
 */
export function swatch({ mark, color = 0, dashed = false }: LegendEntry): string {
  const fill = seriesColor(color);
  const shapes = {
    line: `<path d="M0 6H22" stroke="${fill}" stroke-width="2.5"${dashed ? ' stroke-dasharray="5 3"' : ""}/>`,
    bar: `<rect x="5" width="12" height="12" fill="${fill}"/>`,
    dot: `<circle cx="11" cy="6" r="4" fill="${fill}"/>`,
  };
  return shapes[mark];
}
