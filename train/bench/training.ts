/**
 * The time of whole training steps: the trainer itself on random tokens.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY, pairLoss, spoState } from "../../engine/ops/pair_loss.ts";
import { noGrad } from "../../engine/tape.ts";
import { release, scope, type Tensor } from "../../engine/tensor.ts";
import type { EncodedCompletion, EncodedPair } from "../data/encode.ts";
import type { ResolvedPairLoss } from "../losses/pair_loss.ts";
import { PAIR_LOSSES } from "../losses/registry.ts";
import { batchSequenceLogps, createModel, type Model } from "../models/model.ts";
import { initializeModel } from "../models/initialize.ts";
import { type Objective, type PairArrays, preferenceObjective, sftObjective } from "../objective.ts";
import { createRandom, type Random, uniformInt } from "../random.ts";
import { referenceLogps } from "../reference.ts";
import { train, type TrainOptions } from "../trainer.ts";
import { summarize, type Summary } from "./measure.ts";
import { shapeConfig } from "./shapes.ts";
import type { TrainingShape } from "./training_shapes.ts";

/** The kinds of step, each with what it does. */
export const STEP_KINDS = {
  sft: "policy forward and backward, clip, AdamW",
  dpo:
    "reference forward (a second, frozen model), policy forward and backward on chosen and rejected, clip, AdamW",
  "dpo, cached reference":
    "policy forward and backward on chosen and rejected, clip, AdamW; the reference's log-probs were computed before",
} as const;

/** A name in {@link STEP_KINDS}. */
export type StepKind = keyof typeof STEP_KINDS;

/** One kind of step, measured. */
export interface TrainingResult {
  readonly kind: StepKind;
  /** Sequences and tokens that the policy sees in a step. */
  readonly sequences: number;
  readonly tokens: number;
  /** Steps between two waits for the device. */
  readonly stepsPerSample: number;
  readonly stepMs: Summary;
  /** Tokens of the policy over that time; the reference's pass counts as time only. */
  readonly tokensPerSecond: Summary;
  readonly dispatchesPerStep: number;
  readonly submitsPerStep: number;
  readonly awaitsPerStep: number;
  /** All GPU memory at the end: of this training, and of whatever the device held before. */
  readonly memoryBytes: number;
}

/** How to measure. */
export interface TrainingBenchOptions {
  readonly shape: TrainingShape;
  readonly samples: number;
  readonly stepsPerSample: number;
}

/**
 * Measures a kind of step as the trainer runs it. The first sample is the warm-up and is dropped.
 *
 * @param gpu the device
 * @param kind which step
 * @param options sizes and repetitions
 * @throws {TrainingError} when a loss is not finite, or DPO's first loss is not log 2
 */
export async function benchTraining(
  gpu: Gpu,
  kind: StepKind,
  options: TrainingBenchOptions,
): Promise<TrainingResult> {
  const { shape, samples, stepsPerSample } = options;
  using objective = await benchObjective(gpu, { kind, shape, loss: PAIR_LOSSES.dpo.resolve({}) });
  const marks: { ms: number; stats: ReturnType<Gpu["stats"]> }[] = [];
  await train(objective, {
    ...benchTrainOptions({ shape, maxSteps: stepsPerSample * (samples + 1) }),
    logEvery: stepsPerSample,
    // Called after the readback: everything before is done.
    onLog: () => void marks.push({ ms: performance.now(), stats: gpu.stats() }),
  });
  const sequences = kind === "sft" ? shape.batch : 2 * shape.batch;
  const tokens = sequences * shape.tokens;
  const times = marks.slice(1).map(({ ms }, index) => (ms - marks[index].ms) / stepsPerSample);
  const perStep = (name: "dispatches" | "submits" | "readbacks") =>
    (marks[samples].stats[name] - marks[0].stats[name]) / (samples * stepsPerSample);
  return {
    kind,
    sequences,
    tokens,
    stepsPerSample,
    stepMs: summarize(times),
    tokensPerSecond: summarize(times.map((ms) => tokens / ms * 1000)),
    dispatchesPerStep: perStep("dispatches"),
    submitsPerStep: perStep("submits"),
    awaitsPerStep: perStep("readbacks"),
    memoryBytes: marks[samples].stats.memory.totalBytes,
  };
}

/**
 * Takes the memory of {@link benchTraining} on a planning device, and gives it back.
 *
 * @param gpu a planning device
 * @param kind which step
 * @param options.shape sizes of model and batch
 * @param options.stepsPerSample steps between two waits for the device
 */
export async function planBenchTraining(
  gpu: Gpu,
  kind: StepKind,
  { shape, stepsPerSample }: Pick<TrainingBenchOptions, "shape" | "stepsPerSample">,
): Promise<void> {
  using objective = await benchObjective(gpu, { kind, shape, loss: PAIR_LOSSES.dpo.resolve({}) });
  await train(objective, {
    ...benchTrainOptions({ shape, maxSteps: stepsPerSample }),
    logEvery: stepsPerSample,
  });
}

/** The same seed every time: a reference made so equals the policy. */
export function benchModel(gpu: Gpu, options: { shape: TrainingShape; trainable: boolean }): Model {
  const model = createModel(gpu, shapeConfig(options.shape), { trainable: options.trainable });
  initializeModel(model, createRandom(1));
  return model;
}

/** How the steps that are measured train; only their time matters. */
export function benchTrainOptions(
  { shape, maxSteps }: { shape: TrainingShape; maxSteps: number },
): Omit<TrainOptions, "logEvery" | "onLog"> {
  return {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-4, warmupSteps: 0, maxSteps },
    batchSize: shape.batch,
    seed: 0,
  };
}

/**
 * One batch of random tokens with the loss of a kind of step.
 *
 * @param gpu the device
 * @param options.loss of the kinds that have a reference
 * @returns an objective that owns its models; dispose it when done
 */
export async function benchObjective(
  gpu: Gpu,
  { kind, shape, loss }: { kind: StepKind; shape: TrainingShape; loss: ResolvedPairLoss },
): Promise<Objective> {
  using stack = new DisposableStack();
  const model = stack.use(benchModel(gpu, { shape, trainable: true }));
  const random = createRandom(2);
  const completions = () => randomCompletions(shape, random);
  const create = async (): Promise<Objective> => {
    if (kind === "sft") return sftObjective(model, completions());
    const rejected = completions();
    const pairs = completions().map((chosen, index): EncodedPair => ({
      chosen,
      rejected: rejected[index],
      source: chosen.source,
    }));
    if (kind === "dpo") {
      const reference = stack.use(benchModel(gpu, { shape, trainable: false }));
      return onlineObjective(model, { pairs, reference, loss });
    }
    const reference = await referenceLogps(model, pairs);
    return preferenceObjective(model, { pairs, reference, loss, spoAt: () => NO_PENALTY, lambda: 0 });
  };
  const objective = stack.use(await create());
  const owned = stack.move();
  return { ...objective, [Symbol.dispose]: () => owned.dispose() };
}

/** A batch of random ids, one of each sequence the prompt: every other position counts, as in pre-training. */
export function randomCompletions(shape: TrainingShape, random: Random): EncodedCompletion[] {
  return Array.from({ length: shape.batch }, () => {
    const ids = Array.from({ length: shape.tokens }, () => uniformInt(random, shape.vocabulary));
    return { promptIds: ids.slice(0, 1), completionIds: ids.slice(1), source: { file: "random", line: 1 } };
  });
}

/** DPO whose reference runs in every step, as trainers do that keep both models: no log-probs come from before. */
function onlineObjective(
  model: Model,
  { pairs, reference, loss }: {
    pairs: readonly EncodedPair[];
    reference: Model;
    loss: ResolvedPairLoss;
  },
): Objective<PairArrays> {
  const { gpu } = model;
  const zeros = new Float32Array(pairs.length);
  const cached = preferenceObjective(model, {
    pairs,
    reference: { chosen: zeros, rejected: zeros },
    loss,
    spoAt: () => NO_PENALTY,
    lambda: 0,
  });
  const spo = spoState(gpu, { lambda: 0 });
  // Each step takes all pairs.
  const chosenTokens = pairs.reduce((total, { chosen }) => total + chosen.completionIds.length, 0);
  return {
    ...cached,
    forward({ batch, lengths }, state): Tensor {
      const sums = batchSequenceLogps(model, batch);
      const referenceSums = noGrad(gpu, () => scope(gpu, () => batchSequenceLogps(reference, batch)));
      return pairLoss(sums, {
        reference: referenceSums,
        lengths,
        metrics: state.metrics,
        metricsRow: () => state.metricsRow,
        state: spo,
        pairLoss: loss.head,
        chosenTokens,
        spo: NO_PENALTY,
        microBatch: { pairsInBatch: pairs.length, isFirst: true, isLast: true },
      });
    },
    [Symbol.dispose]() {
      release(spo);
      cached[Symbol.dispose]();
    },
  };
}
