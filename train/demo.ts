/**
 * The built-in demonstration: a small model learns arithmetic from random weights; from those same weights a preference
 * loss alone damages it, and SPO around that loss does not. Every number it prints comes from the run itself.
 * @module
 */
import type { EncodedPair } from "./data/encode.ts";
import { type DemoSettings, phaseOptions, type PhaseSettings } from "./demo_settings.ts";
import { evaluatePairs, exactMatch, outOfDistributionMass } from "./evaluate.ts";
import type { ResolvedPairLoss } from "./losses/pair_loss.ts";
import { parseSpoOptions, type SpoOptions } from "./losses/spo.ts";
import { LOG_ENTRIES } from "./logs/run_logs.ts";
import { parseModelConfig } from "./models/config.ts";
import { createModel, type Model } from "./models/model.ts";
import { initializeModel } from "./models/initialize.ts";
import { preferenceObjective, sftObjective } from "./objective.ts";
import { createRandom, deriveSeed } from "./random.ts";
import { type ReferenceLogps, referenceLogps } from "./reference.ts";
import { writeSamples } from "./samples.ts";
import {
  formatResults,
  type PhaseResult,
  saveToRun,
  type Session,
  trainPhase,
  withProgress,
} from "./session.ts";
import { spoStrategy } from "./solvers/spo_strategy.ts";
import { type StudyData, studyData } from "./study/data.ts";
import type { TrainOptions } from "./trainer.ts";

/** Names in a demonstration's folder besides config.json. */
export const DEMO_ENTRIES = [
  ...LOG_ENTRIES,
  ...["results.json", "samples.jsonl", "report.html"],
  ...["model", "model-sft", "model-preference"],
];

/**
 * Runs the demonstration: SFT, then from its weights the loss alone, then the loss with SPO.
 *
 * @param session the run; models and metrics go to its folder
 * @param settings every number
 * @param options.loss the pairwise loss of `settings`, resolved
 * @param options.data of `settings`; made here by default
 * @returns a result per phase, in order
 * @throws {RunStoppedError} when it was stopped
 */
export async function runDemo(
  session: Session,
  settings: DemoSettings,
  options: { loss: ResolvedPairLoss; data?: DemoData },
): Promise<PhaseResult[]> {
  const { loss, data = demoData(settings) } = options;
  const config = parseModelConfig(settings.model, { file: "the demonstration" });
  using model = createModel(session.gpu, config, { trainable: true });
  initializeModel(model, createRandom(deriveSeed(settings.seed, "weights")));
  const results: PhaseResult[] = [];
  const answers = data.heldOut.map((pair) => pair.chosen);
  const report = async (result: PhaseResult) => {
    results.push(result);
    session.log(`\n${formatResults([result])}\n`);
    const { phase } = result;
    await writeSamples(session, model, { phase, tokenizer: data.tokenizer, answers });
  };
  const save = (name: string) => saveToRun(session, model, { name, tokenizer: data.tokenizer });

  await trainPhase(session, {
    name: "sft",
    objective: sftObjective(model, data.completions),
    train: trainOptions(settings.sft, settings),
  });
  const reference = {
    training: await withProgress(
      session,
      "reference log-probs",
      (onProgress) => referenceLogps(model, data.pairs(1), { onProgress, ldAlpha: loss.ldAlpha }),
    ),
    heldOut: await referenceLogps(model, data.heldOut),
  };
  using sftWeights = model.parameters.snapshot();
  await save("model-sft");
  const evaluate = (phase: string) =>
    evaluatePhase(session, model, { phase, data, reference: reference.heldOut, loss });
  await report(await evaluate("sft"));

  const methods: [string, SpoOptions, string][] = [
    [loss.name, parseSpoOptions({}), "model-preference"],
    [`${loss.name}+spo`, settings.spo, "model"],
  ];
  for (const [name, spo, folder] of methods) {
    model.parameters.restore(sftWeights);
    await preferencePhase(session, model, {
      name,
      spo,
      settings,
      loss,
      pairs: data.pairs(1),
      reference: reference.training,
    });
    await save(folder);
    await report(await evaluate(name));
  }
  session.log(`\n${formatResults(results)}`);
  return results;
}

/** What the demonstration trains on and is measured by: a seed of the study's. */
export type DemoData = StudyData;

/** Everything that is generated, from the seed alone; held-out problems never appear in training. */
export function demoData(settings: DemoSettings): DemoData {
  return studyData({ ...settings, evolutionProblems: 0 }, settings.seed);
}

async function preferencePhase(
  session: Session,
  model: Model,
  options: {
    name: string;
    spo: SpoOptions;
    settings: DemoSettings;
    loss: ResolvedPairLoss;
    pairs: readonly EncodedPair[];
    reference: ReferenceLogps;
  },
): Promise<void> {
  const { name, spo, settings, loss, pairs, reference } = options;
  const { steps } = settings.preference;
  using objective = preferenceObjective(model, {
    pairs,
    reference,
    loss,
    ...spoStrategy(spo, { maxSteps: steps, chosen: pairs.map((pair) => pair.chosen) }),
  });
  await trainPhase(session, { name, objective, train: trainOptions(settings.preference, settings) });
}

async function evaluatePhase(
  session: Session,
  model: Model,
  { phase, data, reference, loss }: {
    phase: string;
    data: DemoData;
    reference: ReferenceLogps;
    loss: ResolvedPairLoss;
  },
): Promise<PhaseResult> {
  const { tokenizer, task } = data;
  return {
    phase,
    isReference: phase === "sft",
    exactMatch: await withProgress(
      session,
      "decoding held-out problems",
      (onProgress) => exactMatch(model, { task, tokenizer, onProgress }),
    ),
    outOfDistributionMass: await outOfDistributionMass(model, data.groups),
    evaluation: await evaluatePairs(model, data.heldOut, { reference, beta: loss.beta }),
  };
}

function trainOptions(phase: PhaseSettings, settings: DemoSettings): Omit<TrainOptions, "onLog" | "signal"> {
  return { ...phaseOptions(phase), seed: settings.seed, logEvery: settings.logEvery };
}
