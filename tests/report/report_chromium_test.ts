/**
 * A report in a real browser: what it loads, says and shows.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Browser } from "puppeteer-core";
import { barFigure } from "../../train/report/bar_figure.ts";
import { writeReport } from "../../train/report/page.ts";
import { readRun } from "../../train/report/read_run.ts";
import { runsReport } from "../../train/report/runs_report.ts";
import { scatterFigure } from "../../train/report/scatter_figure.ts";
import { chromiumTest, openPage } from "../chromium.ts";
import { HOSTILE, writeGeneratedRun } from "./generated_run.ts";
import { lookAtReport, VIEWS } from "./look.ts";
import { comparePictures, type Picture, takePictures } from "./screenshot.ts";

const GOLDEN = new URL("../golden/report_screenshot.json", import.meta.url);
/** Set it, and run this file, to keep the pictures of an intended change. */
const KEEPS_PICTURES = Deno.env.has("KEEL_KEEP_PICTURES");

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
        const seen = await lookAtReport(browser, file, view);
        assert.ok(seen.figures.length > 15, `found ${seen.figures.length} figures`);
        assert.ok(seen.figures.every(({ legend }) => legend.length > 0));
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
