/**
 * Fewer points for the same picture.
 * @module
 */
import type { LinePoint } from "./figure.ts";

/**
 * Keeps the lowest and the highest point of each stretch of a long line: what sticks out stays.
 *
 * @param points in the order of x
 * @param maxPoints to keep, 2 or more
 * @returns the points themselves where there are no more than that
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const points = Array.from({ length: 1000 }, (_, x) => ({ x, y: x === 500 ? 9 : 0 }));
 * const thinned = thinPoints(points, 20);
 * assert.ok(thinned.length <= 20);
 * assert.ok(thinned.some(({ y }) => y === 9));
 * ```
 */
export function thinPoints(points: readonly LinePoint[], maxPoints: number): readonly LinePoint[] {
  if (points.length <= maxPoints) return points;
  const stretches = Math.floor(maxPoints / 2);
  return Array.from({ length: stretches }, (_, stretch) => {
    const start = Math.floor(stretch * points.length / stretches);
    const end = Math.floor((stretch + 1) * points.length / stretches);
    let [lowest, highest] = [start, start];
    for (let index = start; index < end; index++) {
      if (points[index].y < points[lowest].y) lowest = index;
      if (points[index].y > points[highest].y) highest = index;
    }
    return lowest === highest
      ? [points[lowest]]
      : [points[Math.min(lowest, highest)], points[Math.max(lowest, highest)]];
  }).flat();
}
