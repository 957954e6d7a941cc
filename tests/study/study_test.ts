/**
 * The study's whole pipeline at toy size.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { DEMO_PREFERENCE, DEMO_SFT } from "../../train/demo_settings.ts";
import { writeMarkdown } from "../../train/report/markdown.ts";
import { writeReport } from "../../train/report/page.ts";
import { type RunHooks, RunStoppedError } from "../../train/session.ts";
import { openCells } from "../../train/study/cells.ts";
import { studyReport } from "../../train/study/report.ts";
import { BASE_METHODS, FULL_STUDY, type StudySettings } from "../../train/study/settings.ts";
import { runStudy } from "../../train/study/study.ts";
import { gpuTest } from "../gpu.ts";

const TOY: StudySettings = {
  ...FULL_STUDY,
  sft: { ...DEMO_SFT, steps: 4, batchSize: 8, examples: 64 },
  preference: { ...DEMO_PREFERENCE, steps: 2, batchSize: 4, pairs: 16 },
  heldOut: 8,
  massProblems: 2,
  evolutionProblems: 2,
  evolutionEvery: 1,
  seeds: 2,
  sweeps: {
    initialization: [0, 0.5],
    corruptedDigits: [4],
    beta: [1],
    learningRate: [1e-3],
    lambda: [0.1],
    solvers: true,
  },
};

const NO_SWEEPS: StudySettings["sweeps"] = {
  initialization: [],
  corruptedDigits: [],
  beta: [],
  learningRate: [],
  lambda: [],
  solvers: false,
};

/** Hooks that keep the labels of what was run. */
function recorded(signal?: AbortSignal): RunHooks & { readonly labels: string[] } {
  const labels: string[] = [];
  return {
    labels,
    signal,
    log() {},
    progress(label) {
      labels.push(label);
      return { update() {}, finish() {} };
    },
  };
}

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

gpuTest(
  "a study runs every method, is written as page and document, and read back without running",
  async (gpu) => {
    await inFolder(async (folder) => {
      const cells = openCells(folder, { adapter: gpu.adapter.name });
      const first = recorded();
      const study = await runStudy(gpu, TOY, { cells, hooks: first });
      assert.deepEqual(study.comparison.rows.map(({ label }) => label), [
        ...Object.values(BASE_METHODS).flatMap((label) => [label, `${label} + SPO`]),
        "DPO + SFT",
        "SFT continued",
      ]);
      for (const { results } of study.comparison.rows) {
        assert.equal(results.length, 2, "one a seed");
        assert.deepEqual(results[0].evolution.map(({ step }) => step), [0, 1, 2]);
      }
      assert.deepEqual(study.sensitivities.map(({ title }) => title), [
        ...["Initialization", "Edit distance", "Beta", "Learning rate", "Lambda", "Solvers"],
      ]);
      assert.deepEqual(study.sft.map(({ earlier }) => earlier.map(({ fraction }) => fraction)), [
        [0, 0.5],
        [],
      ]);
      // What is shared by groups was run once: the names are all different.
      assert.equal(new Set(first.labels).size, first.labels.length);

      const again = recorded();
      const report = studyReport(await runStudy(gpu, TOY, { cells, hooks: again }));
      assert.deepEqual(again.labels, []);
      assert.deepEqual(report, studyReport(study));
      await writeReport(join(folder, "report.html"), report);
      const document = join(folder, "study.md");
      await Deno.mkdir(join(folder, "study"));
      await Deno.writeTextFile(join(folder, "study", "stale.svg"), "<svg/>");
      await writeMarkdown(document, report);
      const text = await Deno.readTextFile(document);
      const pictures = [...text.matchAll(/\]\((study\/[^)]+\.svg)\)/g)].map(([, path]) => path).sort();
      const files = [...Deno.readDirSync(join(folder, "study"))].map(({ name }) => `study/${name}`).sort();
      assert.deepEqual(files, pictures, "every picture is there, and none of an earlier report");
      assert(pictures.length > 15);
    });
  },
);

gpuTest(
  "equal by construction: the linear penalty and DPO + SFT, R-DPO on answers of one length and DPO",
  async (gpu) => {
    await inFolder(async (folder) => {
      const cells = openCells(folder, { adapter: gpu.adapter.name });
      const settings = { ...TOY, seeds: 1, sweeps: NO_SWEEPS };
      const { comparison } = await runStudy(gpu, settings, { cells, hooks: recorded() });
      const logps = (label: string) => {
        const { results: [{ final }] } = comparison.rows.find((row) => row.label === label)!;
        return [final.pairs.logpsChosen, final.pairs.logpsRejected];
      };
      assert.deepEqual(logps("R-DPO"), logps("DPO"));
      assert.notDeepEqual(logps("DPO"), logps("DPO + SPO"));
      logps("DPO + SFT").forEach((value, side) => {
        // AdamW divides gradients by their size, so rounding differs by more than an ulp of it.
        assert(
          Math.abs(value - logps("DPO + SPO")[side]) < 1e-4,
          `${value} against ${logps("DPO + SPO")[side]}`,
        );
      });
    });
  },
);

gpuTest("a study that is stopped keeps what it finished, and goes on there", async (gpu) => {
  await inFolder(async (folder) => {
    const cells = openCells(folder, { adapter: gpu.adapter.name });
    const settings = { ...TOY, seeds: 1, sweeps: NO_SWEEPS };
    const controller = new AbortController();
    const stopping = recorded(controller.signal);
    const progress = (label: string, total: number) => {
      if (label.startsWith("3/")) controller.abort();
      return stopping.progress(label, total);
    };
    await assert.rejects(
      runStudy(gpu, settings, { cells, hooks: { ...stopping, progress } }),
      RunStoppedError,
    );
    const rest = recorded();
    await runStudy(gpu, settings, { cells, hooks: rest });
    assert.match(rest.labels[0], /SFT/);
    assert.match(rest.labels[1], /^3\//);
  });
});
