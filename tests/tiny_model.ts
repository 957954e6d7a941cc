/**
 * A Llama small enough to train in a test, with data for it, and its numbers read back.
 *
 * @module
 */
import { cpSync } from "node:fs";
import { join } from "node:path";
import type { Gpu } from "../engine/gpu.ts";
import { uploadAll } from "../engine/inputs.ts";
import { type Tensor, toHost } from "../engine/tensor.ts";
import type { BatchSize } from "../train/data/batch.ts";
import { characterTokenizerFiles } from "../train/data/character_tokenizer.ts";
import type { EncodedCompletion, EncodedPair } from "../train/data/encode.ts";
import { createTokenizer, type Tokenizer } from "../train/data/tokenizer.ts";
import { createModel, type Model } from "../train/models/model.ts";
import { parseModelConfig } from "../train/models/config.ts";
import { initializeModel } from "../train/models/initialize.ts";
import type { Objective } from "../train/objective.ts";
import { createRandom } from "../train/random.ts";
import * as llama from "./reference/llama.ts";
import type { SequenceStatisticsInputs } from "./reference/sequence_statistics.ts";
import * as head from "./reference/token_logps.ts";
import { integers, seededRandom } from "./reference/random.ts";

/** Vocabulary of {@link tinyModel}. */
export const TINY_VOCAB = 16;

const TINY = {
  model_type: "llama",
  ...{ vocab_size: TINY_VOCAB, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1 },
  ...{ num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 32 },
  // Large enough that predictions differ from each other.
  initializer_range: 0.3,
};

/**
 * A model with random weights; the caller disposes it.
 *
 * @param gpu The device.
 * @param options.seed Of its weights, 1 by default.
 * @param options.trainable Whether it has gradients; it has by default.
 * @param options.config Keys of config.json that differ from the small default.
 * @param options.dtype Of its activations, f32 by default.
 */
export function tinyModel(
  gpu: Gpu,
  options: {
    seed?: number;
    trainable?: boolean;
    config?: Record<string, unknown>;
    dtype?: "f32" | "f16";
  } = {},
): Model {
  const { seed = 1, trainable = true, config, dtype } = options;
  const model = createModel(gpu, parseModelConfig({ ...TINY, ...config }, { file: "config.json" }), {
    trainable,
    dtype,
  });
  initializeModel(model, createRandom(seed));
  return model;
}

/** A tokenizer of `count` ids. */
export function tinyTokenizer(count = TINY_VOCAB): Tokenizer {
  return createTokenizer(tokenizerFiles(count), { source: "test" });
}

function tokenizerFiles(count: number) {
  const alphabet = "0123456789+-:,$_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  return characterTokenizerFiles(alphabet.slice(0, count - 1), { eos: "$" });
}

/**
 * Copies files into a new temporary model folder and adds tokenizer files, which weights alone come without.
 *
 * @param files Name in the folder -> the file to copy.
 * @param tokens Ids of the tokenizer.
 * @returns The folder; it is removed when the process ends.
 */
export function modelFolder(files: Readonly<Record<string, string | URL>>, tokens: number): string {
  const folder = temporaryFolder();
  for (const [name, source] of Object.entries(files)) cpSync(source, join(folder, name));
  for (const [name, bytes] of tokenizerFiles(tokens)) Deno.writeFileSync(join(folder, name), bytes);
  return folder;
}

/** A new folder that is removed when the process ends. */
export function temporaryFolder(): string {
  const folder = Deno.makeTempDirSync({ prefix: "keel-" });
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  return folder;
}

/**
 * Random completions of random lengths.
 *
 * @param count How many.
 * @param seed Of ids and lengths.
 */
export function randomCompletions(count: number, seed: number): EncodedCompletion[] {
  const random = seededRandom(seed);
  const ids = (
    low: number,
    high: number,
  ) => [...integers(random, { length: low + Math.floor(random() * (high - low)), high: TINY_VOCAB })];
  return Array.from({ length: count }, (_, index) => ({
    promptIds: ids(2, 6),
    completionIds: ids(1, 7),
    source: { file: "made.jsonl", line: index + 1 },
  }));
}

/**
 * Random pairs: each side has its own length.
 *
 * @param count How many.
 * @param seed Of ids and lengths.
 */
export function randomPairs(count: number, seed: number): EncodedPair[] {
  const rejected = randomCompletions(count, seed + 1000);
  return randomCompletions(count, seed).map((chosen, index) => ({
    chosen,
    rejected: { ...rejected[index], promptIds: chosen.promptIds, source: chosen.source },
    source: chosen.source,
  }));
}

/** All weights, block after block, padding included. */
export function readWeights(model: Model): Promise<Float32Array> {
  return readBlocks(model, (block) => block.weight);
}

/** All gradients, block after block, padding included. */
export function readGradients(model: Model): Promise<Float32Array> {
  return readBlocks(model, (block) => block.gradient!);
}

type Block = Model["parameters"]["blocks"][number];

async function readBlocks(model: Model, part: (block: Block) => Block["weight"]): Promise<Float32Array> {
  const values: number[] = [];
  for (const block of model.parameters.blocks) values.push(...await toHost(part(block)));
  return Float32Array.from(values);
}

/**
 * Logits that every completion's tokens are drawn from, by the model in plain f64.
 *
 * @param model Its weights are read back.
 * @param completions What to score.
 * @returns One list a completion, of one row of the vocabulary a token.
 */
export async function referenceLogits(
  model: Model,
  completions: readonly EncodedCompletion[],
): Promise<Float64Array[][]> {
  const { config } = model;
  if (config.model_type !== "llama") {
    throw new TypeError(`Cannot run the reference of a ${config.model_type}`);
  }
  const parameters = new Map<string, Float64Array>();
  for (const name of model.parameters.shapes.keys()) {
    parameters.set(name, Float64Array.from(await model.parameters.read(name)));
  }
  return completions.map(({ promptIds, completionIds }) => {
    const inputIds = [...promptIds, ...completionIds];
    const sequenceOffsets = [0, inputIds.length];
    const { logits } = llama.forward({ parameters, inputIds, sequenceOffsets }, config);
    return completionIds.map((_, i) => {
      const start = (promptIds.length - 1 + i) * config.vocab_size;
      return logits.subarray(start, start + config.vocab_size);
    });
  });
}

/**
 * Log-probs and statistics of completions' tokens by the model as it is, in plain f64: the head is the identity.
 *
 * @param model Its weights are read back.
 * @param completions What to score.
 * @returns All tokens, one completion after the other.
 */
export async function referenceStatistics(
  model: Model,
  completions: readonly EncodedCompletion[],
): Promise<SequenceStatisticsInputs> {
  const rows = (await referenceLogits(model, completions)).flat();
  const [N, V] = [rows.length, TINY_VOCAB];
  const inputs = {
    hidden: Float64Array.from(rows.flatMap((row) => [...row])),
    lmHead: Float64Array.from({ length: V * V }, (_, i) => Number(i % V === Math.floor(i / V))),
    labels: completions.flatMap(({ completionIds }) => completionIds),
  };
  const dims = { N, C: V, V };
  const sequenceOffsets = [0];
  for (const { completionIds } of completions) {
    sequenceOffsets.push(sequenceOffsets[sequenceOffsets.length - 1] + completionIds.length);
  }
  const { logps } = head.forward(inputs, dims);
  return { logps, statistics: head.statistics(inputs, dims), sequenceOffsets };
}

/**
 * Log-probs of every completion's tokens by the model in plain f64.
 *
 * @param model Its weights are read back.
 * @param completions What to score.
 * @returns One list a completion.
 */
export async function referenceTokenLogps(
  model: Model,
  completions: readonly EncodedCompletion[],
): Promise<number[][]> {
  const logits = await referenceLogits(model, completions);
  return completions.map(({ completionIds }, index) =>
    completionIds.map((id, i) => {
      const row = logits[index][i];
      return row[id] - Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
    })
  );
}

/**
 * An objective's loss on the whole of a step, recorded once and not as a graph.
 *
 * @param objective What to minimise.
 * @param options.items The batch.
 * @param options.step From 1.
 * @param options.metrics A ring of one row.
 * @param options.size What to pad the batch to; its own size by default.
 * @returns `[1]`.
 */
export function lossOf(
  objective: Objective,
  { items, step, metrics, size }: { items: Uint32Array; step: number; metrics: Tensor; size?: BatchSize },
): Tensor {
  const own = objective.size(items);
  return objective.forward(uploadAll(objective.model.gpu, objective.pack(items, size ?? own)), {
    ...{ step, metrics, metricsRow: 0, isFirst: true, isLast: true },
    ...{ batchItems: items.length, batchLabels: own.labels, batch: items },
  });
}

/** The sum of a list. */
export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
