/**
 * What a study takes, before it starts: every kind of its runs on a device that computes nothing.
 * @module
 */
import type { PlanningOptions } from "../../engine/planning_gpu.ts";
import { exactMatch } from "../evaluate.ts";
import { type MemoryPlan, planRun } from "../plan.ts";
import { studyData } from "./data.ts";
import { chesOf, measureBaseline, measureMass } from "./measure.ts";
import { comparison, sensitivities, type StudyRun, type StudySettings } from "./settings.ts";
import { createStudyModel, fineTune, trainRun } from "./train_run.ts";

/**
 * Plans the first seed, which has the most runs; the others' data have the same sizes.
 *
 * @param options whose limits, adapter and budget count
 * @param settings of the study
 * @returns its memory
 * @throws {PlanError} when a size is past what a kernel or the adapter can do
 */
export async function planStudy(options: PlanningOptions, settings: StudySettings): Promise<MemoryPlan> {
  const runs = [comparison(settings), ...sensitivities(settings)].flatMap(({ rows }) =>
    rows.flatMap((row) => row.runs.filter(({ seed }) => seed === settings.seed))
  );
  return await planRun(options, async ({ gpu, log, progress }) => {
    const hooks = { log, progress };
    const { seed } = settings;
    using stack = new DisposableStack();
    using model = createStudyModel(gpu, settings);
    const data = studyData(settings, seed);
    // Steps of shapes that were seen are left out here, and with them the later weights that a study keeps.
    const [start] = (await fineTune(model, data, { settings, seed, fractions: [0], hooks })).values();
    stack.use(start);
    for (const fraction of new Set([...runs.map(({ initialization }) => initialization), 1])) {
      if (fraction > 0) stack.use(model.parameters.snapshot());
    }
    await exactMatch(model, { task: data.task, tokenizer: data.tokenizer });
    await measureMass(model, data, { problems: settings.massProblems, step: 0 });
    await chesOf(model, data.pairs(1));
    for (const run of differentRuns(runs)) {
      const [trainingPairs, problems] = [data.pairs(run.corruptedDigits), settings.evolutionProblems];
      const baseline = await measureBaseline(model, data, { trainingPairs, problems });
      await trainRun(model, data, { settings, run, baseline, label: "", hooks });
    }
  });
}

/** One run of each kind: numbers such as the learning rate take no memory. */
function differentRuns(runs: readonly StudyRun[]): StudyRun[] {
  const kindOf = ({ loss, spo: { lambda: _, ...spo }, corruptedDigits }: StudyRun) =>
    JSON.stringify([loss, spo, corruptedDigits]);
  return [...new Map(runs.map((run) => [kindOf(run), run])).values()];
}
