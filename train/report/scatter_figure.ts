/**
 * @module
 */
import type { Figure, ScatterFigureOptions } from "./figure.ts";

/**
 * @param options title, axes and series
 * @returns the figure; the same options give the same bytes
 * @throws {RangeError} on no points, numbers that are not finite or do not fit the axis
 */
export function scatterFigure(options: ScatterFigureOptions): Figure {
  return { title: options.title, description: "", legend: [], svg: "" };
}
