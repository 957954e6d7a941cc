/**
 * What is measured of a model in the study.
 * @module
 */
import { release, scope, toHost } from "../../engine/tensor.ts";
import { noGrad } from "../../engine/tape.ts";
import { chesScores } from "../../engine/ops/ches.ts";
import { packPairs, packSequences } from "../data/batch.ts";
import type { EncodedCompletion, EncodedPair } from "../data/encode.ts";
import { comparePairs, exactMatch, type PairEvaluation } from "../evaluate.ts";
import { uploadBatch } from "../models/batch_tensors.ts";
import { batchTokenLogps, type Model } from "../models/model.ts";
import { completionLogps, type ReferenceLogps, referenceLogps } from "../reference.ts";
import type { StudyData } from "./data.ts";
import type { StudySettings } from "./settings.ts";

/** Where the probability of an answer is, mean over problems. */
export interface EvolutionPoint {
  readonly step: number;
  /** Of the right chain: mean log-prob in nats, and probability. */
  readonly chosen: number;
  readonly chosenMass: number;
  /** Of all one-digit corruptions together: probability, and the mean of their log-probs. */
  readonly variantMass: number;
  readonly variants: number;
  /** Of the first corruption that the held-out pairs have: mean log-prob. */
  readonly rejected: number;
  /** Of everything else. */
  readonly outOfDistributionMass: number;
}

/** A model after training. */
export interface FinalMeasures {
  /** Share of held-out problems that greedy decoding answers exactly. */
  readonly exactMatch: number;
  readonly mass: EvolutionPoint;
  readonly pairs: PairEvaluation;
  /** Change of a chosen token's log-prob, by its distance from the token in which the rejected answer differs. */
  readonly byDistance: readonly {
    readonly distance: number;
    readonly delta: number;
    readonly count: number;
  }[];
  /** Per training pair of {@link chesOf}: the change of the chosen answer's log-prob. */
  readonly trainingDeltas: readonly number[];
}

/** The model before preference training: the loss's reference, and what changes are measured against. */
export interface Baseline {
  /** `[P]` of the training pairs. */
  readonly training: ReferenceLogps;
  /** `[P]` of the held-out pairs. */
  readonly heldOut: ReferenceLogps;
  /** Log-probs of the tokens of the held-out chosen answers. */
  readonly tokens: readonly Float32Array[];
  /** The first point of every evolution that begins here. */
  readonly mass: EvolutionPoint;
}

/** Training pairs whose CHES is compared with their displacement. */
export const CHES_PAIRS = 500;

/**
 * @param model before preference training
 * @param data what changes will be measured on
 * @param options.trainingPairs what will be trained on
 * @param options.problems of the evolution
 */
export async function measureBaseline(
  model: Model,
  data: StudyData,
  { trainingPairs, problems }: { trainingPairs: readonly EncodedPair[]; problems: number },
): Promise<Baseline> {
  return {
    training: await referenceLogps(model, trainingPairs),
    heldOut: await referenceLogps(model, data.heldOut),
    tokens: await tokenLogps(model, data.heldOut.map(({ chosen }) => chosen)),
    mass: await measureMass(model, data, { problems, step: 0 }),
  };
}

/**
 * @param model as it is now
 * @param data what it is measured on
 * @param options.problems how many problems of the data
 * @param options.step to be noted
 */
export async function measureMass(
  model: Model,
  data: StudyData,
  { problems, step }: { problems: number; step: number },
): Promise<EvolutionPoint> {
  const groups = data.groups.slice(0, problems);
  const sums = await completionLogps(model, groups.flat());
  const size = groups[0].length;
  const mean = (of: (logps: Float32Array, problem: number) => number) =>
    groups.reduce(
      (total, _, problem) => total + of(sums.subarray(problem * size, (problem + 1) * size), problem),
      0,
    ) /
    groups.length;
  const sum = (values: Float32Array) => values.reduce((total, value) => total + value, 0);
  const [chosenMass, variantMass] = [
    mean(([chosen]) => Math.exp(chosen)),
    mean((logps) => sum(logps.subarray(1).map(Math.exp))),
  ];
  const rejected = groups.map((group, problem) => indexOf(group, data.heldOut[problem].rejected));
  return {
    step,
    chosen: mean(([chosen]) => chosen),
    chosenMass,
    variantMass,
    variants: mean((logps) => sum(logps.subarray(1)) / (size - 1)),
    rejected: mean((logps, problem) => logps[rejected[problem]]),
    outOfDistributionMass: 1 - chosenMass - variantMass,
  };
}

function indexOf(group: readonly EncodedCompletion[], wanted: EncodedCompletion): number {
  const text = wanted.completionIds.join();
  return group.findIndex(({ completionIds }) => completionIds.join() === text);
}

/**
 * @param model after training
 * @param data what it is measured on
 * @param options.baseline of the model before
 * @param options.beta scales rewards
 */
export async function measureFinal(
  model: Model,
  data: StudyData,
  options: {
    baseline: Baseline;
    beta: number;
    settings: StudySettings;
    trainingPairs: readonly EncodedPair[];
  },
): Promise<FinalMeasures> {
  const { baseline, beta, settings, trainingPairs } = options;
  const { task, tokenizer } = data;
  const chosen = trainingPairs.slice(0, CHES_PAIRS).map((pair) => pair.chosen);
  const training = await completionLogps(model, chosen);
  return {
    exactMatch: await exactMatch(model, { task, tokenizer }),
    mass: await measureMass(model, data, { problems: settings.massProblems, step: 0 }),
    pairs: comparePairs(await referenceLogps(model, data.heldOut), { reference: baseline.heldOut, beta }),
    byDistance: changeByDistance(
      baseline.tokens,
      await tokenLogps(model, data.heldOut.map((pair) => pair.chosen)),
      data.corruptedAt,
    ),
    trainingDeltas: Array.from(training, (logp, pair) => logp - baseline.training.chosen[pair]),
  };
}

/**
 * @param before log-probs of each answer's tokens
 * @param after of the same tokens
 * @param corruptedAt per answer, the token that its rejected twin differs in
 * @returns means, by distance: negative before the token
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const before = [Float32Array.of(-1, -1)];
 * const after = [Float32Array.of(-1, -3)];
 * assert.deepEqual(changeByDistance(before, after, [1]), [
 *   { distance: -1, delta: 0, count: 1 },
 *   { distance: 0, delta: -2, count: 1 },
 * ]);
 * ```
 */
export function changeByDistance(
  before: readonly Float32Array[],
  after: readonly Float32Array[],
  corruptedAt: readonly number[],
): FinalMeasures["byDistance"] {
  const sums = new Map<number, { delta: number; count: number }>();
  before.forEach((tokens, answer) =>
    tokens.forEach((logp, at) => {
      const distance = at - corruptedAt[answer];
      const { delta, count } = sums.get(distance) ?? { delta: 0, count: 0 };
      sums.set(distance, { delta: delta + after[answer][at] - logp, count: count + 1 });
    })
  );
  return [...sums].sort(([a], [b]) => a - b).map(([distance, { delta, count }]) => ({
    distance,
    delta: delta / count,
    count,
  }));
}

/** Sequences of a forward pass. */
const BATCH = 256;

/** Log-probs of each completion's tokens, given what is before them. */
async function tokenLogps(model: Model, sequences: readonly EncodedCompletion[]): Promise<Float32Array[]> {
  const found: Float32Array[] = [];
  for (let start = 0; start < sequences.length; start += BATCH) {
    const batch = sequences.slice(start, start + BATCH);
    const tensor = scope(
      model.gpu,
      () => noGrad(model.gpu, () => batchTokenLogps(model, uploadBatch(model, packSequences(batch)))),
    );
    const values = await toHost(tensor);
    release(tensor);
    let at = 0;
    for (const { completionIds: { length } } of batch) found.push(values.slice(at, at += length));
  }
  return found;
}

/**
 * CHES of each of the first training pairs: how alike the model sees its two sides (arXiv 2410.08847).
 *
 * @param model before preference training
 * @param pairs of the training data
 * @returns `[P]`, the form that is normalised by lengths
 */
export async function chesOf(model: Model, pairs: readonly EncodedPair[]): Promise<number[]> {
  const found: number[] = [];
  for (let start = 0; start < Math.min(pairs.length, CHES_PAIRS); start += BATCH) {
    const batch = pairs.slice(start, Math.min(start + BATCH, CHES_PAIRS));
    const scores = scope(model.gpu, () =>
      noGrad(model.gpu, () => {
        const tensors = uploadBatch(model, packPairs(batch));
        let scores;
        batchTokenLogps(model, tensors, {
          observe: (hidden) => void (scores = chesScores(hidden, tensors.sequences.offsets).normalized),
        });
        return scores!;
      }));
    found.push(...await toHost(scores));
    release(scores);
  }
  return found;
}
