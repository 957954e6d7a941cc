/**
 * Tokens a second of generation: prompts taken in, tokens decoded with the key/value cache, and without it.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { createDecoder, type Decoder, MAX_BURST } from "../generation/decoder.ts";
import { planDecoding } from "../generation/plan.ts";
import { recomputeGreedy } from "../generation/recompute.ts";
import { createModel, type Model } from "../models/model.ts";
import { initializeModel } from "../models/initialize.ts";
import { createRandom, uniformInt } from "../random.ts";
import { summarize, type Summary } from "./measure.ts";
import { shapeConfig } from "./shapes.ts";
import type { TrainingShape } from "./training_shapes.ts";

/** Tokens a second, all sequences together. */
export interface DecodingResult {
  /** Sequences. */
  readonly batch: number;
  /** Tokens of each prompt. */
  readonly promptTokens: number;
  /** Tokens added to each. */
  readonly newTokens: number;
  /** Of the prompts, taken in together. */
  readonly prefill: Summary;
  /** Of new tokens, most probable ones, a wait for the device every {@link MAX_BURST} steps. */
  readonly greedy: Summary;
  /** Of new tokens with a wait for the device and the logits on the host at each step, as sampling needs. */
  readonly logits: Summary;
  /** Of new tokens without the cache, halfway. */
  readonly recomputed: Summary;
}

/** What is measured. */
export interface DecodingBenchOptions {
  /** Numbers of sequences. */
  readonly batches: readonly number[];
  /** Repetitions. */
  readonly samples: number;
  /** Told what is measured. */
  readonly log?: (line: string) => void;
}

/** Tokens that are decoded without the cache: enough to be measured. */
const RECOMPUTED_TOKENS = 2;

/**
 * Measures generation. A quarter of the model's positions is the prompt, a quarter is added.
 *
 * @param model the model
 * @param options batches, repetitions
 * @returns a result a batch
 */
export async function benchDecoding(model: Model, options: DecodingBenchOptions): Promise<DecodingResult[]> {
  const results: DecodingResult[] = [];
  for (const batch of options.batches) {
    options.log?.(`decoding: ${batch} sequences`);
    results.push(await benchBatch(model, batch, options.samples));
  }
  return results;
}

/**
 * Takes the memory of {@link benchDecoding} on a planning device.
 *
 * @param model on that device
 * @param batches numbers of sequences
 */
export async function planBenchDecoding(model: Model, batches: readonly number[]): Promise<void> {
  for (const sequences of batches) {
    using bench = openBench(model, sequences);
    const { promptTokens, newTokens, recompute } = bench;
    const sizes = { size: { sequences, positions: promptTokens + newTokens }, promptTokens };
    for (const reading of ["ids", "logits"] as const) await planDecoding(model, { ...sizes, reading });
    await recompute();
  }
}

/** Tokens of a prompt, and how many are added to it. */
function lengthsOf({ positions }: Model): { promptTokens: number; newTokens: number } {
  const promptTokens = Math.max(1, Math.floor(positions / 4));
  return { promptTokens, newTokens: Math.max(MAX_BURST, Math.floor(promptTokens / MAX_BURST) * MAX_BURST) };
}

/**
 * A model of a shape's sizes with random weights and four times its positions: prompts are as long as its batches.
 *
 * @param gpu the device
 * @param shape its sizes
 * @returns the model; dispose it when done
 */
export function decodingModel(gpu: Gpu, shape: TrainingShape): Model {
  const config = { ...shapeConfig(shape), max_position_embeddings: 4 * shape.tokens };
  const model = createModel(gpu, config, { trainable: false });
  initializeModel(model, createRandom(1));
  return model;
}

/** What is measured of so many sequences. */
function openBench(model: Model, batch: number) {
  const { promptTokens, newTokens } = lengthsOf(model);
  const random = createRandom(1);
  const { vocab } = model.architecture.dimensions;
  const prompts = Array.from(
    { length: batch },
    () => Array.from({ length: promptTokens }, () => uniformInt(random, vocab)),
  );
  // Without the cache the cost grows with the length: what it is in the middle is what it is on average.
  const halfway = prompts.map((ids) => [...ids, ...ids.slice(0, newTokens / 2 - RECOMPUTED_TOKENS / 2)]);
  const decoder = createDecoder(model, { sequences: batch, positions: promptTokens + newTokens });
  return {
    ...{ batch, promptTokens, newTokens },
    prefill: () => decoder.prefill(prompts.map((ids, slot) => ({ slot, ids }))),
    greedy: () => decodeIds(decoder, newTokens),
    logits: () => decodeLogits(decoder, newTokens),
    recompute: () => recomputeGreedy(model, halfway, { maxNewTokens: RECOMPUTED_TOKENS }),
    [Symbol.dispose]: () => decoder[Symbol.dispose](),
  };
}

async function benchBatch(model: Model, batch: number, samples: number): Promise<DecodingResult> {
  using bench = openBench(model, batch);
  const { promptTokens, newTokens, prefill } = bench;
  const added = batch * newTokens;
  return {
    ...{ batch, promptTokens, newTokens },
    prefill: await perSecond(batch * promptTokens, { samples, run: prefill }),
    greedy: await perSecond(added, { samples, before: prefill, run: bench.greedy }),
    logits: await perSecond(added, { samples, before: prefill, run: bench.logits }),
    recomputed: await perSecond(batch * RECOMPUTED_TOKENS, { samples, run: bench.recompute }),
  };
}

async function decodeIds(decoder: Decoder, newTokens: number): Promise<void> {
  let ids = decoder.cached.map(() => 0);
  for (let step = 0; step < newTokens; step += MAX_BURST) {
    ids = (await decoder.step(ids.map((id, slot) => ({ slot, id })), MAX_BURST)).at(-1)!;
  }
}

async function decodeLogits(decoder: Decoder, newTokens: number): Promise<void> {
  for (let step = 0; step < newTokens; step++) {
    await decoder.stepLogits(decoder.cached.map((_, slot) => ({ slot, id: 0 })));
  }
}

/** One run to warm up, then the samples. */
async function perSecond(
  tokens: number,
  { samples, before, run }: { samples: number; before?: () => Promise<unknown>; run: () => Promise<unknown> },
): Promise<Summary> {
  const rates: number[] = [];
  for (let sample = 0; sample <= samples; sample++) {
    await before?.();
    const start = performance.now();
    await run();
    const rate = tokens / (performance.now() - start) * 1000;
    if (sample > 0) rates.push(rate);
  }
  return summarize(rates);
}
