/**
 * Lines over a number, with bands.
 * @module
 */
import * as Plot from "@observablehq/plot";
import { axisLabel, drawPlot, numberScale, spokenNumber } from "./draw.ts";
import type { Figure, LineFigureOptions, LinePoint, LineSeries } from "./figure.ts";
import { isDashedByDefault, seriesColor } from "./palette.ts";
import { thinPoints } from "./thin_points.ts";

/** Lines of so few points show where they are. */
const MAX_MARKED_POINTS = 12;
/** Points that are drawn of a longer line: about three for each unit of the figure's width. */
const MAX_POINTS = 1200;

/**
 * Draws lines. Of a line of more than 1,200 points the lowest and the highest of each stretch are drawn.
 *
 * @param options title, axes and series
 * @returns the figure; the same options give the same bytes
 * @throws {RangeError} on no points, or numbers that are not finite or do not fit the axis
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const figure = lineFigure({
 *   title: "Loss",
 *   x: { label: "step", unit: "updates" },
 *   y: { label: "loss", unit: "nats" },
 *   series: [{ name: "dpo", points: [{ x: 1, y: 0.69 }, { x: 2, y: 0.52 }] }],
 * });
 * assert.match(figure.svg, /^<svg /);
 * assert.match(figure.svg, /loss \(nats\)/);
 * ```
 */
export function lineFigure(options: LineFigureOptions): Figure {
  const { title, x, y } = options;
  const series = options.series.map((line, place) => ({
    ...line,
    color: line.color ?? place,
    dashed: line.dashed ?? isDashedByDefault(line.color ?? place),
    points: thinPoints(line.points, MAX_POINTS),
  }));
  const points = options.series.flatMap((line) => line.points);
  if (points.length === 0) throw new RangeError(`Cannot draw ${title}: expected points, found none`);
  const description = describe(options);
  const svg = drawPlot({
    x: { ...numberScale(x, points.map((point) => point.x)), grid: false },
    y: numberScale(y, points.flatMap(({ y, low = y, high = y }) => [y, low, high])),
    marks: series.flatMap(lineMarks),
  }, { title, description });
  const legend = series.length > 1
    ? series.map(({ name, color, dashed }) => ({ name, color, dashed, mark: "line" as const }))
    : [];
  return { title, description, legend, svg };
}

function lineMarks(
  { points, color, dashed }: LineSeries & { color: number; dashed: boolean },
): Plot.Markish[] {
  const stroke = seriesColor(color);
  const banded = points.filter(hasBand);
  return [
    ...(banded.length > 0
      ? [Plot.areaY(banded, { x: "x", y1: "low", y2: "high", fill: stroke, fillOpacity: 0.18 })]
      : []),
    Plot.lineY(points, { x: "x", y: "y", stroke, strokeDasharray: dashed ? "5 3" : undefined }),
    ...(points.length <= MAX_MARKED_POINTS
      ? [Plot.dot(points, { x: "x", y: "y", fill: stroke, r: 2.5 })]
      : []),
  ];
}

function hasBand(point: LinePoint): boolean {
  return point.low !== undefined && point.high !== undefined;
}

function describe({ x, y, series }: LineFigureOptions): string {
  const lines = series.filter(({ points }) => points.length > 0).map(({ name, points }) => {
    const last = points[points.length - 1];
    const count = points.length === 1 ? "1 point" : `${points.length} points`;
    return `${name}: from ${spokenNumber(points[0].y)} at ${spokenNumber(points[0].x)} to ${
      spokenNumber(last.y)
    } at ${spokenNumber(last.x)}, ${count}`;
  });
  return `Lines of ${axisLabel(y)} over ${axisLabel(x)}. ${lines.join("; ")}.`;
}
