/**
 * What a reader of a report finds in the browser.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Browser } from "puppeteer-core";
import { BACKGROUNDS } from "../../train/report/palette.ts";
import { openPage, type View } from "../chromium.ts";

/** Every view that a report must bear: a telephone's width and a wide window, light and dark. */
export const VIEWS: readonly View[] = [400, 1400].flatMap((width) =>
  (["light", "dark"] as const).map((scheme) => ({ width, scheme }))
);

/**
 * Opens a report and asserts that it loads and runs nothing, complains of nothing, is of its scheme, fits the window, and
 * that every figure has axes with units, a name for a screen reader, and a legend where it has several series.
 *
 * @param file The page.
 * @param view Of it.
 * @returns What was seen, for more.
 */
export async function lookAtReport(browser: Browser, file: string, view: View): Promise<Seen> {
  const { page, requests, complaints } = await openPage(browser, file, view);
  assert.deepEqual(complaints, []);
  assert.equal(requests.length, 1, `the page alone is loaded, found ${requests}`);
  const seen = await page.evaluate(LOOK) as Seen;
  assert.equal(seen.background, rgb(BACKGROUNDS[view.scheme]));
  assert.deepEqual(seen.outside, []);
  assert.equal(seen.scripts, 0);
  for (const { title, x, y, legend, label, lineColors, seriesColors } of seen.figures) {
    assert.match(x, /^\S.* \(.+\)$/s, `${title}: label and unit of x`);
    assert.match(y, /^\S.* \(.+\)$/s, `${title}: label and unit of y`);
    assert.equal(label, title, "what a screen reader says");
    assert.ok(legend.every((name) => name !== ""), `${title}: legend ${legend}`);
    assert.ok(legend.length > 0 || seriesColors === 1, `${title}: ${seriesColors} colours, no legend`);
    assert.ok(lineColors.every((color) => color !== "none"), `${title}: ${lineColors}`);
  }
  const columns = new Set(seen.figures.map(({ left }) => left)).size;
  assert.equal(columns, view.width === 400 ? 1 : 3);
  return seen;
}

/** What {@link LOOK} finds. */
export interface Seen {
  readonly background: string;
  /** Elements that stick out of the page, and texts that stick out of their picture. */
  readonly outside: readonly string[];
  readonly scripts: number;
  readonly text: string;
  readonly figures: readonly {
    readonly title: string;
    readonly x: string;
    readonly y: string;
    readonly legend: readonly string[];
    readonly label: string;
    readonly lineColors: readonly string[];
    /** How many colours its marks have. */
    readonly seriesColors: number;
    readonly left: number;
  }[];
}

/** Run in the page. */
const LOOK = `(() => {
  const name = (element) => element.tagName + " " + (element.textContent ?? "").slice(0, 40);
  const isOutside = (inner, outer) =>
    inner.width > 0 && (inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1 ||
      inner.bottom > outer.bottom + 1);
  const page = { left: 0, right: innerWidth, top: -Infinity, bottom: Infinity };
  const wide = [...document.body.querySelectorAll("*")]
    .filter((element) => !element.closest(".scroll > *, pre > *"))
    .filter((element) => isOutside(element.getBoundingClientRect(), page));
  const cut = [...document.querySelectorAll("figure > svg text")]
    .filter((text) => isOutside(text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()));
  const scrolls = document.documentElement.scrollWidth > innerWidth ? ["the page scrolls sideways"] : [];
  const figures = [...document.querySelectorAll("figure")].map((figure) => {
    const svg = figure.querySelector(":scope > svg");
    const label = (axis) => svg.querySelector('[aria-label="' + axis + '-axis label"] text')?.textContent;
    return {
      title: figure.querySelector("figcaption").textContent,
      x: label("x") ?? label("fx") ?? "",
      y: label("y") ?? "",
      legend: [...figure.querySelectorAll(".legend li")].map((entry) => entry.textContent),
      label: svg.getAttribute("aria-label"),
      lineColors: [...svg.querySelectorAll('[aria-label="line"]')].map((line) => getComputedStyle(line).stroke),
      seriesColors: new Set([...svg.querySelectorAll('[fill*="--series"], [stroke*="--series"]')].map((mark) =>
        mark.getAttribute("fill")?.includes("--series") ? mark.getAttribute("fill") : mark.getAttribute("stroke"))).size,
      left: Math.round(figure.getBoundingClientRect().left),
    };
  });
  return {
    background: getComputedStyle(document.body).backgroundColor,
    outside: [...scrolls, ...wide.map(name), ...cut.map(name)],
    scripts: document.scripts.length,
    text: document.body.textContent,
    figures,
  };
})()`;

function rgb(hex: string): string {
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgb(${parts.join(", ")})`;
}
