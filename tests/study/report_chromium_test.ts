/**
 * The study's report in a real browser.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { markdownReport } from "../../train/report/markdown.ts";
import { writeReport } from "../../train/report/page.ts";
import type { EvolutionPoint } from "../../train/study/measure.ts";
import { studyReport } from "../../train/study/report.ts";
import { comparison, FULL_STUDY, sensitivities, type StudyGroup } from "../../train/study/settings.ts";
import type { GroupResult, StudyResult } from "../../train/study/study.ts";
import type { RunResult } from "../../train/study/train_run.ts";
import { chromiumTest, openPage } from "../chromium.ts";
import { lookAtReport, VIEWS } from "../report/look.ts";
import { comparePictures, type Picture, takePictures } from "../report/screenshot.ts";

const GOLDEN = new URL("../golden/study_screenshot.json", import.meta.url);
/** Set it, and run this file, to keep the pictures of an intended change. */
const KEEPS_PICTURES = Deno.env.has("KEEL_KEEP_PICTURES");

const mass = (step: number, lost: number): EvolutionPoint => ({
  ...{ step, chosen: -0.3 - lost, chosenMass: 0.8 - 0.1 * lost, variantMass: 0.1, variants: -18 - 2 * lost },
  ...{ rejected: -17 - 3 * lost, outOfDistributionMass: 0.1 + 0.1 * lost },
});

/** Numbers of no run, the same each time; SPO loses a tenth of what the rest does. */
function inventedRun(row: number, seed: number, isProtected: boolean): RunResult {
  const lost = (isProtected ? 0.5 : 5) + 0.1 * (row % 5) + 0.1 * seed;
  return {
    evolution: Array.from({ length: 11 }, (_, at) => mass(15 * at, lost * at / 10)),
    final: {
      exactMatch: 0.95 - 0.15 * lost,
      mass: mass(0, lost),
      pairs: {
        ...{ logpsChosen: -1, logpsRejected: -20, chosenDelta: -lost, rejectedDelta: -3 * lost },
        ...{ rewardMargin: 0.2 * lost, rewardAccuracy: 0.9 },
      },
      byDistance: Array.from(
        { length: 10 },
        (_, at) => ({ distance: at - 4, delta: -lost * at / 10, count: 9 }),
      ),
      trainingDeltas: Array.from({ length: 60 }, (_, at) => -lost * (at % 7) / 7),
    },
  };
}

function inventedStudy(): StudyResult {
  const settings = { ...FULL_STUDY, seeds: 2 };
  const withResults = (group: StudyGroup): GroupResult => ({
    ...group,
    rows: group.rows.map((row, index) => ({
      ...row,
      results: row.runs.map(({ seed, spo }) => inventedRun(index, seed, spo.solver !== "none")),
    })),
  });
  const start = { exactMatch: 0.95, mass: mass(0, 0) };
  const ches = Array.from({ length: 60 }, (_, at) => -8 + (at * 7) % 11);
  return {
    ...{ settings, adapter: "none" },
    sft: [0, 1].map((seed) => ({ seed, ...start, ches, earlier: seed ? [] : [{ fraction: 0.5, ...start }] })),
    comparison: withResults(comparison(settings)),
    sensitivities: sensitivities(settings).map(withResults),
  };
}

async function withReport(body: (file: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "keel-study-" });
  try {
    const file = join(folder, "report.html");
    await writeReport(file, studyReport(inventedStudy()));
    await body(file);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (const view of VIEWS) {
  chromiumTest(
    `the study's report loads nothing, fits and is labelled: ${view.width} px, ${view.scheme}`,
    (browser) =>
      withReport(async (file) => {
        const { figures } = await lookAtReport(browser, file, view);
        assert.equal(
          figures.length,
          studyReport(inventedStudy()).sections.flatMap(({ figures = [] }) => figures).length,
        );
      }),
  );
}

chromiumTest("the study's figures look as they did", (browser) =>
  withReport(async (file) => {
    const { page } = await openPage(browser, file, { width: 1400, scheme: "light" });
    const now = await takePictures(browser, page);
    if (KEEPS_PICTURES) await Deno.writeTextFile(GOLDEN, `${JSON.stringify(now)}\n`);
    const expected = JSON.parse(await Deno.readTextFile(GOLDEN)) as Picture[];
    assert.deepEqual(comparePictures(now, expected), []);
    await page.evaluate(`document.querySelectorAll("figure")[1].remove()`);
    assert.match(comparePictures(await takePictures(browser, page), expected).join(), /expected the figures/);
  }));

chromiumTest("pictures of the document stand alone: title, legend and nothing outside", async (browser) => {
  const { pictures } = markdownReport(studyReport(inventedStudy()), "study");
  const folder = await Deno.makeTempDir({ prefix: "keel-study-" });
  try {
    for (const [name, content] of pictures) await Deno.writeTextFile(join(folder, name), content);
    const page = await browser.newPage();
    for (const name of pictures.keys()) {
      await page.goto(pathToFileURL(join(folder, name)).href);
      const seen = await page.evaluate(`(() => {
        const root = document.documentElement;
        const outer = root.getBoundingClientRect();
        const texts = [...root.querySelectorAll("text")];
        return {
          tag: root.tagName,
          title: root.querySelector("title").textContent,
          shown: texts.map((text) => text.textContent),
          outside: texts.filter((text) => {
            const box = text.getBoundingClientRect();
            return box.left < outer.left || box.right > outer.right || box.bottom > outer.bottom;
          }).map((text) => text.textContent),
        };
      })()`) as { tag: string; title: string; shown: string[]; outside: string[] };
      assert.equal(seen.tag, "svg", name);
      assert.ok(seen.shown.includes(seen.title), `${name} shows its title`);
      assert.deepEqual(seen.outside, [], name);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
