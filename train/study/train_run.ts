/**
 * The study's trainings: supervised fine-tuning from random weights, and preference training from its weights.
 * @module
 */
import type { ParameterSnapshot } from "../../engine/parameters.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { phaseOptions, type PhaseSettings } from "../demo_settings.ts";
import { resolvePairLoss } from "../losses/weighted_sum.ts";
import { parseModelConfig } from "../models/config.ts";
import { createModel, type Model } from "../models/model.ts";
import { initializeModel } from "../models/initialize.ts";
import { type Objective, preferenceObjective, sftObjective } from "../objective.ts";
import type { EncodedPair } from "../data/encode.ts";
import { createRandom, deriveSeed } from "../random.ts";
import type { ReferenceLogps } from "../reference.ts";
import { type RunHooks, RunStoppedError } from "../session.ts";
import { spoStrategy } from "../solvers/spo_strategy.ts";
import { train } from "../trainer.ts";
import type { StudyData } from "./data.ts";
import {
  type Baseline,
  type EvolutionPoint,
  type FinalMeasures,
  measureFinal,
  measureMass,
} from "./measure.ts";
import type { StudyRun, StudySettings } from "./settings.ts";

/** What a training gives. */
export interface RunResult {
  /** From before the first step to after the last. */
  readonly evolution: readonly EvolutionPoint[];
  readonly final: FinalMeasures;
}

/** A fresh model, with the weights of a seed. */
export function createStudyModel(gpu: Gpu, settings: StudySettings): Model {
  return createModel(gpu, parseModelConfig({ ...settings.model }, { file: "the study" }), {
    trainable: true,
  });
}

/**
 * Supervised fine-tuning from random weights.
 *
 * @param model of the study; it is left as training ends
 * @param data of a seed
 * @param options.fractions of the steps after which the weights are kept
 * @returns them, by fraction; the caller disposes them
 * @throws {RunStoppedError} when the signal was aborted
 */
export async function fineTune(
  model: Model,
  data: StudyData,
  options: { settings: StudySettings; seed: number; fractions: readonly number[]; hooks: RunHooks },
): Promise<Map<number, ParameterSnapshot>> {
  const { settings, seed, fractions, hooks } = options;
  const { steps } = settings.sft;
  initializeModel(model, createRandom(deriveSeed(seed, "weights")));
  const kept = new Map<number, ParameterSnapshot>();
  const keep = (step: number) => {
    for (const fraction of fractions) {
      if (Math.round(fraction * steps) === step) kept.set(fraction, model.parameters.snapshot());
    }
  };
  keep(0);
  using objective = sftObjective(model, data.completions);
  await trainSteps(objective, {
    phase: settings.sft,
    label: `seed ${seed}: SFT`,
    seed,
    // Kept weights must fall on steps that are looked at.
    every: greatestDivisor(steps, fractions),
    hooks,
    onStep: (step) => Promise.resolve(keep(step)),
  });
  return kept;
}

/** Steps between two lines of a fine-tuning's progress, at most. */
const LONGEST_LOOK = 20;

/** The largest number of steps between looks that meets every fraction, and is not too long to wait for. */
function greatestDivisor(steps: number, fractions: readonly number[]): number {
  const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
  const common = fractions.map((fraction) => Math.round(fraction * steps)).reduce(divisor, steps);
  let every = Math.min(common, LONGEST_LOOK);
  while (common % every !== 0) every--;
  return every;
}

/**
 * One training of the study.
 *
 * @param model with the weights that it starts from; it is left as training ends
 * @param data of its seed
 * @param options.run what is trained, and how
 * @param options.baseline of the model as it is
 * @throws {RunStoppedError} when the signal was aborted
 */
export async function trainRun(
  model: Model,
  data: StudyData,
  options: { settings: StudySettings; run: StudyRun; baseline: Baseline; label: string; hooks: RunHooks },
): Promise<RunResult> {
  const { settings, run, baseline, label, hooks } = options;
  const pairs = data.pairs(run.corruptedDigits);
  const problems = settings.evolutionProblems;
  const evolution = [baseline.mass];
  using objective = objectiveOf(model, { run, settings, pairs, reference: baseline.training });
  await trainSteps(objective, {
    phase: { ...settings.preference, learningRate: run.learningRate },
    label,
    seed: run.seed,
    every: settings.evolutionEvery,
    hooks,
    onStep: async (step) => void evolution.push(await measureMass(model, data, { problems, step })),
  });
  const beta = run.loss === "sft" ? 0.1 : lossOf(run).beta;
  const final = await measureFinal(model, data, { baseline, beta, settings, trainingPairs: pairs });
  return { evolution, final };
}

/** The pairwise loss of a run. */
export function lossOf({ loss, lossWeights, lossOptions }: StudyRun) {
  return resolvePairLoss(loss, { weights: lossWeights, options: lossOptions });
}

function objectiveOf(
  model: Model,
  { run, settings, pairs, reference }: {
    run: StudyRun;
    settings: StudySettings;
    pairs: readonly EncodedPair[];
    reference: ReferenceLogps;
  },
): Objective {
  const chosen = pairs.map((pair) => pair.chosen);
  if (run.loss === "sft") return sftObjective(model, chosen);
  return preferenceObjective(model, {
    pairs,
    reference,
    loss: lossOf(run),
    ...spoStrategy(run.spo, { maxSteps: settings.preference.steps, chosen }),
  });
}

async function trainSteps(
  objective: Objective,
  { phase, label, seed, every, hooks, onStep }: {
    phase: PhaseSettings;
    label: string;
    seed: number;
    every: number;
    hooks: RunHooks;
    onStep: (step: number) => Promise<void>;
  },
): Promise<void> {
  const progress = hooks.progress(label, phase.steps);
  try {
    const summary = await train(objective, {
      ...phaseOptions(phase),
      seed,
      logEvery: every,
      signal: hooks.signal,
      async onLog(record) {
        progress.update({ step: Number(record.global_step), loss: Number(record.loss) });
        await onStep(Number(record.global_step));
      },
    });
    if (summary.wasAborted) throw new RunStoppedError(`Stopped in ${label}; what was finished is kept`);
  } finally {
    progress.finish();
  }
}
