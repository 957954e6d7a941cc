/**
 * Figures as text.
 *
 * @module
 */
import assert from "node:assert/strict";
import { barFigure } from "../../train/report/bar_figure.ts";
import type { LineFigureOptions } from "../../train/report/figure.ts";
import { lineFigure } from "../../train/report/line_figure.ts";
import { BACKGROUNDS, DARK_PALETTE, LIGHT_PALETTE } from "../../train/report/palette.ts";
import { scatterFigure } from "../../train/report/scatter_figure.ts";
import { thinPoints } from "../../train/report/thin_points.ts";
import { HOSTILE } from "./generated_run.ts";

const AXES = { x: { label: "step", unit: "updates" }, y: { label: "loss", unit: "nats" } } as const;
const line = (change: Partial<LineFigureOptions> = {}) =>
  lineFigure({
    ...{ title: "Loss", ...AXES },
    series: [
      { name: "a", points: [{ x: 1, y: 2, low: 1, high: 3 }, { x: 2, y: 1, low: 0.5, high: 2 }] },
      { name: "b", points: [{ x: 1, y: 3 }, { x: 2, y: 1 }], color: 0, dashed: true },
    ],
    ...change,
  });
const bar = () =>
  barFigure({
    ...{ title: "Bars", x: { label: "method", unit: "name" }, y: AXES.y, groups: ["one", "two"] },
    series: [{ name: "a", bars: [{ value: 1, low: 0.5, high: 2 }, undefined] }, {
      name: "b",
      bars: [{ value: -3 }, { value: 2 }],
    }],
  });
const scatter = (points = [{ x: 1, y: 2 }, { x: 2, y: 3 }]) =>
  scatterFigure({ title: "Points", ...AXES, series: [{ name: "a", points }], fitLine: true });

Deno.test("the same options give the same bytes, whatever was drawn before", () => {
  for (const draw of [line, bar, scatter]) {
    const first = draw();
    line();
    bar();
    assert.deepEqual(draw(), first);
  }
});

Deno.test("figures name their axes with units, speak, and bring no style or identifier of their own", () => {
  for (const { svg, title, description } of [line(), bar(), scatter()]) {
    assert.match(svg, /^<svg .*role="img".*<\/svg>$/s);
    assert.ok(svg.includes(`aria-label="${title}"`));
    assert.ok(svg.includes(`<desc>${description}</desc>`), description);
    assert.match(svg, />loss \(nats\)<\/text>/);
    assert.match(svg, />(step \(updates\)|method \(name\))<\/text>/);
    assert.doesNotMatch(svg, /<style|style=|\bid=/);
  }
});

Deno.test("each series has its mark, its color and its place in the legend", () => {
  const { svg, legend } = line();
  assert.equal(svg.match(/stroke-dasharray="5 3"/g)?.length, 1);
  assert.equal(svg.match(/aria-label="area"/g)?.length, 1, "the first has a band");
  assert.deepEqual(legend.map(({ name, color, dashed }) => [name, color, dashed]), [["a", 0, false], [
    "b",
    0,
    true,
  ]]);
  const bars = bar();
  assert.equal(bars.svg.match(/<rect /g)?.length, 3);
  assert.equal(bars.svg.match(/aria-label="tick"/g)?.length, 2, "both ends of an error bar");
  assert.deepEqual(bars.legend.map(({ color }) => color), [0, 1]);
  assert.deepEqual(scatter().legend, []);
  assert.equal(line({ series: [{ name: "a", points: [{ x: 1, y: 1 }] }] }).legend.length, 0);
});

Deno.test("a seventh line takes the first color and is dashed", () => {
  const series = Array.from(
    { length: 7 },
    (_, index) => ({ name: `${index}`, points: [{ x: 1, y: index }] }),
  );
  assert.deepEqual(line({ series }).legend.map(({ dashed }) => dashed), [...Array(6).fill(false), true]);
  assert.equal(
    line({ series }).svg.match(/var\(--series-0, /g)?.length,
    4,
    "a line and a dot for each of two",
  );
});

Deno.test("texts from strangers stay text", () => {
  const { svg } = line({ title: HOSTILE, series: [{ name: HOSTILE, points: [{ x: 1, y: 1 }] }] });
  assert.doesNotMatch(svg, /<script|<img/);
  const groups = barFigure({
    ...{ title: HOSTILE, x: { label: HOSTILE, unit: HOSTILE }, y: AXES.y, groups: ["<img src=x>"] },
    series: [{ name: HOSTILE, bars: [{ value: 1 }] }],
  });
  assert.doesNotMatch(groups.svg, /<script|<img/);
});

Deno.test("figures refuse what they cannot draw", () => {
  assert.throws(() => line({ series: [] }), /Cannot draw Loss: expected points, found none/);
  const bad = (y: number) => [{ name: "a", points: [{ x: 1, y }] }];
  assert.throws(() => line({ series: bad(NaN) }), /loss \(nats\): expected finite numbers, found NaN/);
  const y = { ...AXES.y, scale: "log" } as const;
  assert.throws(() => line({ y, series: bad(0) }), /loss \(nats\): expected positive numbers, found 0/);
  assert.match(line({ y, series: bad(1e-7) }).svg, />1e-7<\/text>/);
  assert.throws(() => scatter([]), /expected points, found none/);
  const series = [{ name: "a", bars: [] }];
  assert.throws(
    () => barFigure({ title: "Bars", ...AXES, groups: ["one"], series }),
    /expected 1 bars of a, found 0/,
  );
  assert.throws(() => barFigure({ title: "Bars", ...AXES, groups: [], series }), /expected bars, found none/);
});

Deno.test("points above each other have no line through them", () => {
  const marks = (svg: string) => svg.match(/linear-regression/g)?.length ?? 0;
  assert.ok(marks(scatter().svg) > 0);
  assert.equal(marks(scatter([{ x: 1, y: 2 }, { x: 1, y: 3 }]).svg), 0);
});

Deno.test("a long line keeps its first stretch, its last, and what sticks out", () => {
  const points = Array.from({ length: 100_000 }, (_, x) => ({ x, y: x === 70_001 ? 50 : Math.sin(x) }));
  const thinned = thinPoints(points, 1200);
  assert.ok(thinned.length <= 1200 && thinned.length > 600, `${thinned.length}`);
  assert.ok(thinned.some(({ y }) => y === 50));
  assert.ok(thinned.every(({ x }, index) => index === 0 || x > thinned[index - 1].x));
  assert.ok(line({ series: [{ name: "a", points }] }).svg.length < 100_000);
});

/** Linear sRGB of `#rrggbb`. */
function linear(hex: string): number[] {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
}

const apply = (matrix: readonly (readonly number[])[], vector: readonly number[]) =>
  matrix.map((row) => row.reduce((total, value, index) => total + value * vector[index], 0));

/** Simulations of full dichromacy on linear sRGB: Machado, Oliveira, Fernandes 2009, table 1. */
const EYES = {
  usual: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [
    -0.003882,
    -0.048116,
    1.051998,
  ]],
  deuteranopia: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [
    -0.01182,
    0.04294,
    0.968881,
  ]],
};

/** Ottosson 2020. */
function oklab(rgb: readonly number[]): number[] {
  const cones = apply([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
  ], rgb.map((value) => Math.min(1, Math.max(0, value)))).map(Math.cbrt);
  return apply([
    [0.2104542553, 0.793617785, -0.0040720468],
    [1.9779984951, -2.428592205, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.808675766],
  ], cones);
}

Deno.test("series stand out from both pages and from each other, for colour-blind eyes too", () => {
  const luminance = (hex: string) => apply([[0.2126, 0.7152, 0.0722]], linear(hex))[0];
  for (
    const [palette, background] of [[LIGHT_PALETTE, BACKGROUNDS.light], [
      DARK_PALETTE,
      BACKGROUNDS.dark,
    ]] as const
  ) {
    for (const color of palette) {
      const [dark, light] = [luminance(color), luminance(background)].toSorted((a, b) => a - b);
      assert.ok((light + 0.05) / (dark + 0.05) >= 3, `${color} on ${background} (WCAG 2.2, 1.4.11)`);
    }
    for (const [eyes, matrix] of Object.entries(EYES)) {
      const seen = palette.map((color) => oklab(apply(matrix, linear(color))));
      seen.forEach((a, first) =>
        seen.slice(first + 1).forEach((b, second) => {
          // A difference of 0.02 can be seen in patches side by side; lines are thin.
          const distance = Math.hypot(...a.map((value, index) => value - b[index]));
          assert.ok(
            distance > 0.09,
            `${palette[first]}, ${palette[first + 1 + second]}, ${eyes}: ${distance}`,
          );
        })
      );
    }
  }
});
