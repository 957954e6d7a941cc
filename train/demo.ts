/**
 * The built-in demonstration: a small model learns arithmetic from random weights; from those same weights DPO damages
 * it and SPO does not. Every number printed comes from the run itself.
 * @module
 */
import type { Gpu } from "../engine/gpu.ts";
import { characterTokenizerFiles } from "./data/character_tokenizer.ts";
import { encodeCompletions, type EncodedCompletion, type EncodedPair, encodePairs } from "./data/encode.ts";
import { createTokenizer, type Tokenizer } from "./data/tokenizer.ts";
import {
  evaluatePairs,
  exactMatch,
  type ExactTask,
  outOfDistributionMass,
  type PairEvaluation,
} from "./evaluate.ts";
import type { ResolvedPairLoss } from "./losses/pair_loss.ts";
import { type SpoOptions, spoPenaltyAt } from "./losses/spo.ts";
import { parseModelConfig } from "./models/config.ts";
import { createLlama, type LlamaModel } from "./models/llama.ts";
import { initializeModel } from "./models/model_files.ts";
import { preferenceObjective, sftObjective } from "./objective.ts";
import { createRandom, deriveSeed } from "./random.ts";
import { type ReferenceLogps, referenceLogps } from "./reference.ts";
import {
  ARITHMETIC_ALPHABET,
  ARITHMETIC_EOS,
  generateExamples,
  generateHeldOut,
  generatePairs,
  isCorrect,
  variants,
} from "./tasks/arithmetic.ts";
import { train, type TrainOptions, type TrainSummary } from "./trainer.ts";
import type { MetricsRecord } from "./metrics.ts";

/** The model and the phases; a run's config.json holds all of it. */
export interface DemoSettings {
  /** Keys of Hugging Face's config.json. */
  readonly model: Readonly<Record<string, unknown>>;
  readonly sft: PhaseSettings & { readonly examples: number };
  readonly preference: PhaseSettings & { readonly pairs: number };
  readonly heldOut: number;
  /** Problems over which the out-of-distribution mass is measured: each has 37 answers to score. */
  readonly massProblems: number;
  readonly seed: number;
  readonly logEvery: number;
}

/** AdamW and schedule of one phase. */
export interface PhaseSettings {
  readonly steps: number;
  readonly batchSize: number;
  readonly learningRate: number;
  readonly learningRateSchedule: "cosine" | "linear" | "constant";
  readonly warmupSteps: number;
  readonly adamBeta1: number;
  readonly adamBeta2: number;
  readonly adamEpsilon: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
}
