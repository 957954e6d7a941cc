/**
 * The time of whole training steps: the trainer itself on random tokens.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY, pairLoss, spoState } from "../../engine/ops/pair_loss.ts";
import { sizeOf } from "../../engine/shape.ts";
import { noGrad } from "../../engine/tape.ts";
import { release, scope, type Tensor } from "../../engine/tensor.ts";
import type { EncodedCompletion, EncodedPair } from "../data/encode.ts";
import { PAIR_LOSSES } from "../losses/registry.ts";
import { parseModelConfig } from "../models/config.ts";
import { createLlama, type LlamaModel, llamaSequenceLogps } from "../models/llama.ts";
import { llamaParameterShapes } from "../models/llama_parameters.ts";
import { initializeModel } from "../models/model_files.ts";
import { type Objective, type PairArrays, preferenceObjective, sftObjective } from "../objective.ts";
import { createRandom, type Random, uniformInt } from "../random.ts";
import { referenceLogps } from "../reference.ts";
import { train } from "../trainer.ts";
import { summarize, type Summary } from "./measure.ts";

/** Sizes of the model and of a batch. */
export interface TrainingShape {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly mlp: number;
  readonly vocabulary: number;
  /** Sequences of an SFT batch, pairs of a DPO batch. */
  readonly batch: number;
  /** Tokens of every sequence. */
  readonly tokens: number;
}

/**
 * The Llama (untied head) closest to the 940,800 parameters of a GPT-2 of 4 layers, C = 128, 4 heads, F = 512, V = 512,
 * 128 positions and an untied head, the model that other engines were measured with: 941,184 parameters.
 */
export const BENCH_SHAPE: TrainingShape = {
  layers: 4,
  hidden: 128,
  heads: 4,
  mlp: 356,
  vocabulary: 512,
  batch: 8,
  tokens: 128,
};

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
  using model = benchModel(gpu, { shape, trainable: true });
  using reference = kind === "dpo" ? benchModel(gpu, { shape, trainable: false }) : undefined;
  using objective = await benchObjective(model, { kind, shape, reference });
  const marks: { ms: number; stats: ReturnType<Gpu["stats"]> }[] = [];
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: {
      kind: "constant",
      learningRate: 1e-4,
      warmupSteps: 0,
      maxSteps: stepsPerSample * (samples + 1),
    },
    batchSize: shape.batch,
    seed: 0,
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
  };
}

/** Parameters of the model of a shape. */
export function countParameters(shape: TrainingShape): number {
  return [...llamaParameterShapes(benchConfig(shape)).values()].reduce(
    (total, extents) => total + sizeOf(extents),
    0,
  );
}

function benchConfig(shape: TrainingShape) {
  return parseModelConfig({
    model_type: "llama",
    vocab_size: shape.vocabulary,
    hidden_size: shape.hidden,
    intermediate_size: shape.mlp,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    max_position_embeddings: shape.tokens,
  }, { file: "the benchmark's model" });
}

/** The same seed every time: a reference made so equals the policy. */
function benchModel(gpu: Gpu, options: { shape: TrainingShape; trainable: boolean }): LlamaModel {
  const model = createLlama(gpu, benchConfig(options.shape), { trainable: options.trainable });
  initializeModel(model, createRandom(1));
  return model;
}

async function benchObjective(
  model: LlamaModel,
  { kind, shape, reference }: { kind: StepKind; shape: TrainingShape; reference?: LlamaModel },
): Promise<Objective> {
  const random = createRandom(2);
  const completions = () => Array.from({ length: shape.batch }, () => randomCompletion(shape, random));
  if (kind === "sft") return sftObjective(model, completions());
  const rejected = completions();
  const pairs = completions().map((chosen, index): EncodedPair => ({
    chosen,
    rejected: rejected[index],
    source: chosen.source,
  }));
  const loss = PAIR_LOSSES.dpo.resolve({});
  if (reference) return onlineObjective(model, { pairs, reference });
  const logps = await referenceLogps(model, pairs);
  return preferenceObjective(model, { pairs, reference: logps, loss, spoAt: () => NO_PENALTY, lambda: 0 });
}

/** Random ids, one of them the prompt: every other position counts, as in pre-training. */
function randomCompletion(shape: TrainingShape, random: Random): EncodedCompletion {
  const ids = Array.from({ length: shape.tokens }, () => uniformInt(random, shape.vocabulary));
  return { promptIds: ids.slice(0, 1), completionIds: ids.slice(1), source: { file: "random", line: 1 } };
}

/** DPO whose reference runs in every step, as trainers do that keep both models: no log-probs come from before. */
function onlineObjective(
  model: LlamaModel,
  { pairs, reference }: { pairs: readonly EncodedPair[]; reference: LlamaModel },
): Objective<PairArrays> {
  const { gpu } = model;
  const loss = PAIR_LOSSES.dpo.resolve({});
  const zeros = new Float32Array(pairs.length);
  const cached = preferenceObjective(model, {
    pairs,
    reference: { chosen: zeros, rejected: zeros },
    loss,
    spoAt: () => NO_PENALTY,
    lambda: 0,
  });
  const spo = spoState(gpu, { lambda: 0 });
  return {
    ...cached,
    forward({ batch, lengths }, state): Tensor {
      const sums = llamaSequenceLogps(model, batch);
      const referenceSums = noGrad(gpu, () => scope(gpu, () => llamaSequenceLogps(reference, batch)));
      return pairLoss(sums, {
        reference: referenceSums,
        lengths,
        metrics: state.metrics,
        metricsRow: () => state.metricsRow,
        state: spo,
        pairLoss: loss.head,
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
