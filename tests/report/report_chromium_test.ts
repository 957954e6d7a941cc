/**
 * A report in a real browser: what it loads, says and shows.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Browser } from "puppeteer-core";
import { BACKGROUNDS } from "../../train/report/palette.ts";
import { barFigure } from "../../train/report/bar_figure.ts";
import { writeReport } from "../../train/report/page.ts";
import { readRun } from "../../train/report/read_run.ts";
import { runsReport } from "../../train/report/runs_report.ts";
import { scatterFigure } from "../../train/report/scatter_figure.ts";
import { chromiumTest, openPage, type View } from "./chromium.ts";
import { HOSTILE, writeGeneratedRun } from "./generated_run.ts";
import { comparePictures, type Picture, takePictures } from "./screenshot.ts";

const GOLDEN = new URL("../golden/report_screenshot.json", import.meta.url);
/** Set it, and run this file, to keep the pictures of an intended change. */
const KEEPS_PICTURES = Deno.env.has("KEEL_KEEP_PICTURES");

const VIEWS: View[] = [400, 1400].flatMap((width) =>
  (["light", "dark"] as const).map((scheme) => ({ width, scheme }))
);

/** A report of two generated runs, and a figure of each other kind. */
async function withReport(body: (file: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "keel-report-" });
  try {
    await writeGeneratedRun(join(folder, "dpo"));
    await writeGeneratedRun(join(folder, "dpo-spo"), { shift: 1, phase: "dpo+spo" });
    const runs = [await readRun(join(folder, "dpo")), await readRun(join(folder, "dpo-spo"))];
    const report = runsReport(runs);
    const file = join(folder, "report.html");
    const sections = [...report.sections, { title: "Other figures", figures: otherFigures() }];
    // The folder's name is another every time, and would be on the page.
    await writeReport(file, { ...report, subtitle: HOSTILE, sections });
    await body(file);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function otherFigures() {
  const y = { label: "exact match", unit: "%" };
  const bars = (values: number[]) => values.map((value) => ({ value, low: value - 4, high: value + 4 }));
  const groups = ["DPO", "a method of a very long name", HOSTILE];
  return [
    barFigure({
      ...{ title: "Bars", x: { label: "method", unit: "name" }, y, groups },
      series: [{ name: "alone", bars: bars([37, 60, 80]) }, { name: "with SPO", bars: bars([90, 70, 95]) }],
    }),
    scatterFigure({
      ...{ title: "Points", x: { label: "CHES", unit: "squared norm" }, y, fitLine: true },
      series: ["a", HOSTILE].map((name, at) => ({
        name,
        points: Array.from({ length: 60 }, (_, index) => ({ x: index, y: index * (at ? 3 : 5) })),
      })),
    }),
  ];
}

for (const view of VIEWS) {
  chromiumTest(
    `a report loads nothing, fits and is labelled: ${view.width} px, ${view.scheme}`,
    async (browser) => {
      await withReport(async (file) => {
        const { page, requests, complaints } = await openPage(browser, file, view);
        assert.deepEqual(complaints, []);
        assert.equal(requests.length, 1, `the page alone is loaded, found ${requests}`);
        const seen = await page.evaluate(LOOK) as Seen;
        assert.equal(seen.background, rgb(BACKGROUNDS[view.scheme]));
        assert.deepEqual(seen.outside, []);
        assert.equal(seen.scripts, 0);
        assert.ok(seen.figures.length > 15, `found ${seen.figures.length} figures`);
        for (const { title, x, y, legend, label, lineColors } of seen.figures) {
          assert.match(x, /^\S.* \(.+\)$/s, `${title}: label and unit of x`);
          assert.match(y, /^\S.* \(.+\)$/s, `${title}: label and unit of y`);
          assert.equal(label, title, "what a screen reader says");
          assert.ok(legend.length > 0 && legend.every((name) => name !== ""), `${title}: legend ${legend}`);
          assert.ok(lineColors.every((color) => color !== "none"), `${title}: ${lineColors}`);
        }
        const columns = new Set(seen.figures.map(({ left }) => left)).size;
        assert.equal(columns, view.width === 400 ? 1 : 3);
        assert.ok(seen.text.includes("<script>alert("), "a prompt is shown as it is");
      });
    },
  );
}

chromiumTest("a report looks as it did, whatever the font, and a missing figure is seen", async (browser) => {
  await withReport(async (file) => {
    const pictures = async (change: string) => await picturesAfter(browser, { file, change });
    const now = await pictures("");
    if (KEEPS_PICTURES) await Deno.writeTextFile(GOLDEN, `${JSON.stringify(now)}\n`);
    const expected = JSON.parse(await Deno.readTextFile(GOLDEN)) as Picture[];
    assert.deepEqual(comparePictures(now, expected), []);
    const inFont = (font: string) =>
      `for (const svg of document.querySelectorAll("figure > svg")) svg.style.fontFamily = "${font}"`;
    assert.deepEqual(comparePictures(await pictures(inFont("monospace")), expected), []);
    assert.deepEqual(comparePictures(await pictures(inFont("serif")), expected), []);
    const gone = await pictures(`document.querySelectorAll("figure")[3].remove()`);
    assert.match(comparePictures(gone, expected).join(), /expected the figures/);
    const marks = `[aria-label="line"], [aria-label="bar"], [aria-label="dot"]`;
    const empty = await pictures(
      `for (const mark of document.querySelectorAll('figure > svg :is(${marks})')) mark.style.display = "none"`,
    );
    assert.equal(comparePictures(empty, expected).length, expected.length, "every empty picture is seen");
  });
});

async function picturesAfter(
  browser: Browser,
  { file, change }: { file: string; change: string },
): Promise<Picture[]> {
  const { page } = await openPage(browser, file, { width: 1400, scheme: "light" });
  try {
    await page.evaluate(change);
    return await takePictures(browser, page);
  } finally {
    await page.close();
  }
}

/** What {@link LOOK} finds. */
interface Seen {
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
