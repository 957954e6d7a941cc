/**
 * Points in a plane, with a line through them.
 * @module
 */
import * as Plot from "@observablehq/plot";
import { axisLabel, drawPlot, numberScale } from "./draw.ts";
import type { Figure, ScatterFigureOptions } from "./figure.ts";
import { seriesColor } from "./palette.ts";

/**
 * Draws points.
 *
 * @param options title, axes, series, and whether to fit a line
 * @returns the figure; the same options give the same bytes
 * @throws {RangeError} on no points, or numbers that are not finite or do not fit the axis
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const figure = scatterFigure({
 *   title: "Similar pairs lose most",
 *   x: { label: "CHES", unit: "squared norm of the hidden state" },
 *   y: { label: "change of log-prob", unit: "nats" },
 *   series: [{ name: "dpo", points: [{ x: 1, y: -2 }, { x: 2, y: -5 }, { x: 3, y: -6 }] }],
 *   fitLine: true,
 * });
 * assert.equal(figure.svg.match(/<circle/g)?.length, 3);
 * ```
 */
export function scatterFigure(options: ScatterFigureOptions): Figure {
  const { title, x, y, fitLine = false } = options;
  const series = options.series.map((one, place) => ({ ...one, color: one.color ?? place }));
  const points = series.flatMap((one) => one.points);
  if (points.length === 0) throw new RangeError(`Cannot draw ${title}: expected points, found none`);
  const description = describe(options, points.length);
  const svg = drawPlot({
    x: numberScale(x, points.map((point) => point.x)),
    y: numberScale(y, points.map((point) => point.y)),
    marks: [
      ...series.map(({ points, color }) =>
        Plot.dot(points, { x: "x", y: "y", r: 3, fill: seriesColor(color), fillOpacity: 0.7 })
      ),
      // No line goes through points above each other.
      ...(fitLine && new Set(points.map((point) => point.x)).size > 1
        ? [
          Plot.linearRegressionY(points, {
            x: "x",
            y: "y",
            ci: 0,
            stroke: "currentColor",
            strokeDasharray: "5 3",
          }),
        ]
        : []),
    ],
  }, { title, description });
  const legend = series.length > 1
    ? series.map(({ name, color }) => ({ name, color, mark: "dot" as const }))
    : [];
  return { title, description, legend, svg };
}

function describe({ x, y, series, fitLine }: ScatterFigureOptions, count: number): string {
  const parts = series.map(({ name, points }) => `${name}: ${points.length}`);
  return `${count} points of ${axisLabel(y)} over ${axisLabel(x)}${
    fitLine ? ", with the least-squares line" : ""
  }. ${parts.join("; ")}.`;
}
