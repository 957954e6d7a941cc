/**
 * The study: what preference losses alone do to a model, and what they do inside SPO.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import type { ParameterSnapshot } from "../../engine/parameters.ts";
import type { Model } from "../models/model.ts";
import type { RunHooks } from "../session.ts";
import type { Cells } from "./cells.ts";
import { type StudyData, studyData } from "./data.ts";
import { type Baseline, chesOf, type EvolutionPoint, measureBaseline, measureMass } from "./measure.ts";
import {
  comparison,
  sensitivities,
  type StudyGroup,
  type StudyRow,
  type StudyRun,
  type StudySettings,
} from "./settings.ts";
import { createStudyModel, fineTune, lossOf, type RunResult, trainRun } from "./train_run.ts";
import { exactMatch } from "../evaluate.ts";

/** A fine-tuned model, before any preference training. */
export interface SftMeasures {
  readonly exactMatch: number;
  readonly mass: EvolutionPoint;
}

/** Supervised fine-tuning of a seed. */
export interface SftResult extends SftMeasures {
  readonly seed: number;
  /** The same after a share of its steps, where runs start there. */
  readonly earlier: readonly (SftMeasures & { readonly fraction: number })[];
  /** Per training pair: CHES, normalised by lengths. */
  readonly ches: readonly number[];
}

/** A group whose runs have been run. */
export interface GroupResult extends Omit<StudyGroup, "rows"> {
  readonly rows: readonly (StudyRow & { readonly results: readonly RunResult[] })[];
}

/** Everything that the tables and figures show. */
export interface StudyResult {
  readonly settings: StudySettings;
  readonly adapter: string;
  /** One a seed. */
  readonly sft: readonly SftResult[];
  readonly comparison: GroupResult;
  readonly sensitivities: readonly GroupResult[];
}

/**
 * Runs what is missing of the study, and reads back the rest.
 *
 * @param gpu the device
 * @param settings every number
 * @param options.cells where results are kept, and looked for
 * @param options.hooks how progress is shown, and what stops it
 * @throws {RunStoppedError} when it was stopped; finished runs are kept
 */
export async function runStudy(
  gpu: Gpu,
  settings: StudySettings,
  options: { cells: Cells; hooks: RunHooks },
): Promise<StudyResult> {
  const groups = [comparison(settings), ...sensitivities(settings)];
  const byKey = new Map<string, StudyRun>();
  for (const run of groups.flatMap(({ rows }) => rows.flatMap(({ runs }) => runs))) {
    // The first name stays: groups repeat the comparison's runs.
    const key = options.cells.path(keyOf(settings, run));
    if (!byKey.has(key)) byKey.set(key, run);
  }
  const bySeed = Map.groupBy(byKey.values(), ({ seed }) => seed);
  const results = new Map<string, RunResult>();
  const sft: SftResult[] = [];
  const counter = { done: 0, total: byKey.size };
  using model = createStudyModel(gpu, settings);
  for (const [seed, runs] of bySeed) {
    using start = seedRuns(model, { settings, seed, runs, ...options });
    sft.push(await start.sft());
    for (const run of runs) {
      const result = await start.run(run, `${++counter.done}/${counter.total} seed ${seed}: ${run.name}`);
      results.set(options.cells.path(keyOf(settings, run)), result);
    }
  }
  const withResults = (group: StudyGroup): GroupResult => ({
    ...group,
    rows: group.rows.map((row) => ({
      ...row,
      results: row.runs.map((run) => results.get(options.cells.path(keyOf(settings, run)))!),
    })),
  });
  const [first, ...others] = groups.map(withResults);
  return { settings, adapter: gpu.adapter.name, sft, comparison: first, sensitivities: others };
}

/** What a run's result depends on: names and the other runs of the study do not count. */
function keyOf(
  settings: StudySettings,
  { name: _, loss, lossWeights: __, lossOptions: ___, ...run }: StudyRun,
) {
  const { seeds: _seeds, seed: _seed, sweeps: _sweeps, ...common } = settings;
  const terms = loss === "sft"
    ? "sft"
    : lossOf({ name: "", loss, lossWeights: __, lossOptions: ___, ...run }).head.terms;
  return { ...common, run: { terms, ...run } };
}

/** The runs of one seed, which share a fine-tuned model; it is trained when the first of them is missing. */
function seedRuns(
  model: Model,
  options: {
    settings: StudySettings;
    seed: number;
    runs: readonly StudyRun[];
    cells: Cells;
    hooks: RunHooks;
  },
) {
  const { settings, seed, runs, cells, hooks } = options;
  const stack = new DisposableStack();
  let data: StudyData | undefined;
  let weights: Map<number, ParameterSnapshot> | undefined;
  const fractions = [...new Set([...runs.map(({ initialization }) => initialization), 1])].sort((a, b) =>
    a - b
  );
  const dataOf = () => data ??= studyData(settings, seed);
  const weightsOf = async () => {
    if (weights) return weights;
    weights = await fineTune(model, dataOf(), { settings, seed, fractions, hooks });
    for (const snapshot of weights.values()) stack.use(snapshot);
    return weights;
  };
  // Most runs begin at the same weights, with the same pairs.
  const baselines = new Map<string, Baseline>();
  const baselineOf = async ({ initialization, corruptedDigits }: StudyRun) => {
    const start = `${initialization}, ${corruptedDigits}`;
    const baseline = baselines.get(start) ?? await measureBaseline(model, dataOf(), {
      trainingPairs: dataOf().pairs(corruptedDigits),
      problems: settings.evolutionProblems,
    });
    baselines.set(start, baseline);
    return baseline;
  };
  const { seeds: _, seed: __, sweeps: ___, ...common } = settings;
  const sftKey = { ...common, sftSeed: seed, fractions };
  return {
    async sft(): Promise<SftResult> {
      const found = await cells.find<SftResult>(sftKey);
      if (found) return found;
      const measures = async (fraction: number): Promise<SftMeasures> => {
        model.parameters.restore((await weightsOf()).get(fraction)!);
        const { task, tokenizer } = dataOf();
        return {
          exactMatch: await exactMatch(model, { task, tokenizer }),
          mass: await measureMass(model, dataOf(), { problems: settings.massProblems, step: 0 }),
        };
      };
      const earlier = [];
      for (const fraction of fractions) {
        if (fraction < 1) earlier.push({ fraction, ...await measures(fraction) });
      }
      const result = { seed, earlier, ...await measures(1), ches: await chesOf(model, dataOf().pairs(1)) };
      await cells.keep(sftKey, result);
      return result;
    },
    async run(run: StudyRun, label: string): Promise<RunResult> {
      const key = keyOf(settings, run);
      const found = await cells.find<RunResult>(key);
      if (found) return found;
      model.parameters.restore((await weightsOf()).get(run.initialization)!);
      const baseline = await baselineOf(run);
      const result = await trainRun(model, dataOf(), { settings, run, baseline, label, hooks });
      await cells.keep(key, result);
      return result;
    },
    [Symbol.dispose]: () => stack.dispose(),
  };
}
