/**
 * A run on a checkpoint and a data file: load, reference, train, evaluate, save.
 * @module
 */
import { join } from "node:path";
import type { RunConfig } from "./config.ts";
import { resolveLoss } from "./config.ts";
import { type EncodeCounts, type EncodedPair, encodePairs } from "./data/encode.ts";
import { formatSkipped, readPreferences } from "./data/records.ts";
import type { Tokenizer } from "./data/tokenizer.ts";
import { ConfigError } from "./errors.ts";
import { comparePairs, evaluatePairs } from "./evaluate.ts";
import { spoPenaltyAt } from "./losses/spo.ts";
import { readModelConfig } from "./models/config.ts";
import { type LoadedModel, loadModel, saveModel } from "./models/model_files.ts";
import { type Objective, preferenceObjective, sftObjective } from "./objective.ts";
import { type ReferenceLogps, referenceLogps } from "./reference.ts";
import {
  formatResults,
  type PhaseResult,
  type RunHooks,
  type Session,
  trainPhase,
  withProgress,
} from "./session.ts";
import type { Gpu } from "../engine/gpu.ts";
import type { TrainOptions } from "./trainer.ts";

/** Names in a run's folder besides config.json. */
export const RUN_ENTRIES = ["metrics.jsonl", "results.json", "model"];

/** Everything a run needs, read and checked; nothing is written yet. */
export interface PreparedRun extends Disposable {
  readonly config: RunConfig;
  readonly loaded: LoadedModel;
  readonly pairs: readonly EncodedPair[];
  /** Held-out pairs, or the first of the training pairs when no held-out file was given. */
  readonly evalPairs: readonly EncodedPair[];
}

/**
 * Reads and checks model and data.
 *
 * @param gpu the device
 * @param config with `model` and `data`
 * @param hooks where counts are told
 * @throws {InputError} naming file and line or key
 */
export async function prepareRun(gpu: Gpu, config: RunConfig, hooks: RunHooks): Promise<PreparedRun> {
  const [model, data] = [config.model, config.data];
  if (!model || !data) {
    throw new ConfigError(
      `Cannot train: expected --model and --data together (or neither, for the demonstration), found only ${
        model ? "--model" : "--data"
      }`,
    );
  }
  const { max_position_embeddings } = await readModelConfig(model);
  const maxLength = Math.min(config.maxLength, max_position_embeddings);
  const loaded = await loadModel(gpu, model, {
    trainable: true,
    positions: maxLength,
    dtype: config.dtype,
  });
  try {
    const encode = (path: string) =>
      encodeFile(path, {
        tokenizer: loaded.tokenizer,
        config,
        maxLength,
        vocabSize: loaded.model.config.vocab_size,
        hooks,
      });
    const pairs = await encode(data);
    const evalPairs = config.evalData ? await encode(config.evalData) : pairs;
    return {
      config,
      loaded,
      pairs,
      evalPairs: evalPairs.slice(0, config.evalRecords),
      [Symbol.dispose]: () => loaded.model[Symbol.dispose](),
    };
  } catch (error) {
    loaded.model[Symbol.dispose]();
    throw error;
  }
}

async function encodeFile(
  path: string,
  options: {
    tokenizer: Tokenizer;
    config: RunConfig;
    maxLength: number;
    vocabSize: number;
    hooks: RunHooks;
  },
): Promise<EncodedPair[]> {
  const { tokenizer, config, maxLength, vocabSize, hooks } = options;
  const { records, skipped } = await readPreferences(path);
  const { pairs, counts } = encodePairs(records, {
    tokenizer,
    vocabSize,
    maxLength,
    overlong: config.overlong,
  });
  const notes = [formatSkipped(skipped), formatCounts(counts)].filter((note) => note !== "");
  hooks.log(`${path}: ${pairs.length} pairs${notes.length > 0 ? ` (${notes.join("; ")})` : ""}`);
  return pairs;
}

function formatCounts(counts: EncodeCounts): string {
  const texts: [number, string][] = [
    [counts.truncated, "completions cut at the end"],
    [counts.repairedBoundary, "boundary tokens counted as completion"],
    [counts.droppedOverlong, "left out: prompt too long"],
    [counts.droppedEmpty, "left out: no completion token"],
    [counts.droppedIdentical, "left out: both sides the same ids"],
  ];
  return texts.filter(([count]) => count > 0).map(([count, text]) => `${count} ${text}`).join("; ");
}

/**
 * Trains a prepared run and saves the model.
 *
 * @param session the run; model and metrics go to its folder
 * @param prepared from {@link prepareRun}
 * @param options.cacheFolder where reference log-probs are kept
 * @returns results before and after
 * @throws {RunStoppedError} when it was stopped
 */
export async function runTraining(
  session: Session,
  prepared: PreparedRun,
  options: { cacheFolder: string },
): Promise<PhaseResult[]> {
  const { config, loaded: { model, tokenizer }, pairs, evalPairs } = prepared;
  const beta = resolveLoss(config)?.head.beta ?? 1;
  const cached = (label: string, of: readonly EncodedPair[]) =>
    withProgress(
      session,
      label,
      (onProgress) => referenceLogps(model, of, { cacheFolder: options.cacheFolder, onProgress }),
    );
  const evalReference = await cached("evaluation before", evalPairs);
  const before = comparePairs(evalReference, { reference: evalReference, beta });
  const reference = config.loss === "sft" ? undefined : await cached("reference log-probs", pairs);
  using objective = makeObjective(prepared, reference);
  const name = config.spo.solver === "none" ? config.loss : `${config.loss}+spo`;
  await trainPhase(session, { name, objective, train: trainOptions(config) });
  await saveModel(join(session.folder, "model"), model, { tokenizer });
  const after = await withProgress(
    session,
    "evaluation after",
    (onProgress) => evaluatePairs(model, evalPairs, { reference: evalReference, beta, onProgress }),
  );
  const results: PhaseResult[] = [
    { phase: "before", isReference: true, evaluation: before },
    { phase: "after", isReference: false, evaluation: after },
  ];
  session.log(`\n${evalPairs.length} ${config.evalData ? "held-out" : "training"} pairs, ${name}:`);
  session.log(formatResults(results));
  return results;
}

/** What a run minimises. */
export function makeObjective(
  { config, loaded: { model }, pairs }: PreparedRun,
  reference?: ReferenceLogps,
): Objective {
  const loss = resolveLoss(config);
  if (!loss || !reference) return sftObjective(model, pairs.map((pair) => pair.chosen));
  return preferenceObjective(model, {
    pairs,
    reference,
    loss,
    spoAt: (step) => spoPenaltyAt(config.spo, step, config.maxSteps),
    lambda: config.spo.lambda,
    sharePrompts: config.promptSharing,
  });
}

/** How a run trains. */
export function trainOptions(config: RunConfig): Omit<TrainOptions, "onLog" | "signal"> {
  return {
    optimizer: {
      beta1: config.adamBeta1,
      beta2: config.adamBeta2,
      eps: config.adamEpsilon,
      weightDecay: config.weightDecay,
      maxGradNorm: config.maxGradNorm,
    },
    schedule: {
      kind: config.learningRateSchedule,
      learningRate: config.learningRate,
      warmupSteps: config.warmupSteps,
      maxSteps: config.maxSteps,
    },
    batchSize: config.batchSize,
    gradientAccumulationSteps: config.gradientAccumulationSteps,
    seed: config.seed,
    logEvery: config.logEvery,
  };
}
