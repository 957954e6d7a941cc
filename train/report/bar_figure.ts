/**
 * Bars side by side in groups, with error bars.
 * @module
 */
import * as Plot from "@observablehq/plot";
import { axisLabel, drawPlot, FIGURE_SIZE, numberScale, spokenNumber } from "./draw.ts";
import type { BarFigureOptions, Figure } from "./figure.ts";
import { seriesColor } from "./palette.ts";

/** Of a group's name; a longer one is cut. */
const MAX_NAME_LENGTH = 18;
/** Width of a letter, about. */
const LETTER_WIDTH = 7;

/**
 * Draws grouped bars.
 *
 * @param options title, axes, groups and series
 * @returns the figure; the same options give the same bytes
 * @throws {RangeError} on no bars, a series of another length than the groups, or numbers that are
 * not finite
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const figure = barFigure({
 *   title: "Exact match",
 *   x: { label: "method", unit: "name" },
 *   y: { label: "exact match", unit: "%" },
 *   groups: ["DPO", "SimPO"],
 *   series: [
 *     { name: "alone", bars: [{ value: 37, low: 30, high: 44 }, { value: 41 }] },
 *     { name: "with SPO", bars: [{ value: 96 }, undefined] },
 *   ],
 * });
 * assert.deepEqual(figure.legend.map(({ name }) => name), ["alone", "with SPO"]);
 * ```
 */
export function barFigure(options: BarFigureOptions): Figure {
  checkBars(options);
  const { title, x, y, groups, series } = options;
  const bars = series.flatMap((one, place) =>
    one.bars.flatMap((bar, group) =>
      bar ? [{ ...bar, group, place, fill: seriesColor(one.color ?? place) }] : []
    )
  );
  const description = describe(options);
  const names = groups.map((name) => [...name].length > MAX_NAME_LENGTH ? cut(name) : name);
  const groupWidth = (FIGURE_SIZE.width - 80) / groups.length;
  const isCrowded = names.some((name) => [...name].length * LETTER_WIDTH > groupWidth);
  const svg = drawPlot({
    ...(isCrowded ? { height: FIGURE_SIZE.height + 70, marginBottom: 114 } : {}),
    fx: { domain: groups.map((_, group) => group), label: axisLabel(x), padding: 0.15 },
    x: { domain: series.map((_, place) => place), axis: null, padding: 0.1 },
    y: numberScale(y, bars.flatMap(({ value, low = value, high = value }) => [0, value, low, high])),
    marks: [
      Plot.axisFx({
        anchor: "bottom",
        label: axisLabel(x),
        labelAnchor: "center",
        labelArrow: "none",
        labelOffset: isCrowded ? 106 : 38,
        tickFormat: (group: number) => names[group],
        ...(isCrowded ? { tickRotate: -40, textAnchor: "end" as const } : {}),
      }),
      Plot.barY(bars, { fx: "group", x: "place", y: "value", fill: "fill" }),
      Plot.ruleX(bars.filter(({ low, high }) => low !== undefined && high !== undefined), {
        ...{ fx: "group", x: "place", y1: "low", y2: "high", stroke: "currentColor", strokeWidth: 1.5 },
        marker: "tick",
      }),
      Plot.ruleY([0]),
    ],
  }, { title, description });
  const legend = series.length > 1
    ? series.map(({ name, color }, place) => ({ name, color: color ?? place, mark: "bar" as const }))
    : [];
  return { title, description, legend, svg };
}

function checkBars({ title, groups, series }: BarFigureOptions): void {
  const wrong = series.find(({ bars }) => bars.length !== groups.length);
  if (wrong) {
    throw new RangeError(
      `Cannot draw ${title}: expected ${groups.length} bars of ${wrong.name}, found ${wrong.bars.length}`,
    );
  }
  if (!series.some(({ bars }) => bars.some((bar) => bar !== undefined))) {
    throw new RangeError(`Cannot draw ${title}: expected bars, found none`);
  }
}

function cut(name: string): string {
  return `${[...name].slice(0, MAX_NAME_LENGTH - 1).join("")}…`;
}

function describe({ x, y, groups, series }: BarFigureOptions): string {
  const parts = series.map(({ name, bars }) => {
    const values = bars.flatMap((bar, group) => bar ? [`${groups[group]} ${spokenNumber(bar.value)}`] : []);
    return `${name}: ${values.join(", ")}`;
  });
  return `Bars of ${axisLabel(y)} by ${axisLabel(x)}. ${parts.join("; ")}.`;
}
