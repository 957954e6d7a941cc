/**
 * Sizes of the models that are measured.
 * @module
 */
import { sizeOf } from "../../engine/shape.ts";
import type { Model } from "../models/model.ts";
import { type LlamaConfig, parseLlamaConfig } from "../models/llama_config.ts";
import { llamaParameterShapes } from "../models/llama_parameters.ts";

/** Sizes of a Llama with an untied head, and of a batch. */
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
 * By the name that a flag takes. `bench` is the Llama closest to the 940,800 parameters of a GPT-2 of 4 layers, C = 128,
 * 4 heads, F = 512, V = 512, 128 positions and an untied head, the model that other engines were measured with: 941,184
 * parameters. `tiny` only shows that everything runs. The others have the layers, widths and vocabularies of GPT-2's family, three MLP matrices of two thirds
 * its width in place of two, and the batches that other engines name: for a GPU.
 */
export const TRAINING_SHAPES = {
  tiny: { layers: 1, hidden: 32, heads: 2, mlp: 64, vocabulary: 128, batch: 2, tokens: 32 },
  bench: { layers: 4, hidden: 128, heads: 4, mlp: 356, vocabulary: 512, batch: 8, tokens: 128 },
  "gpt2-124m": {
    layers: 12,
    hidden: 768,
    heads: 12,
    mlp: 2048,
    vocabulary: 50_257,
    batch: 8,
    tokens: 1024,
  },
  distilgpt2: { layers: 6, hidden: 768, heads: 12, mlp: 2048, vocabulary: 50_257, batch: 1, tokens: 512 },
  "gpt2-medium": {
    layers: 24,
    hidden: 1024,
    heads: 16,
    mlp: 2736,
    vocabulary: 50_257,
    batch: 1,
    tokens: 512,
  },
} as const satisfies Record<string, TrainingShape>;

/** A name in {@link TRAINING_SHAPES}. */
export type ShapeName = keyof typeof TRAINING_SHAPES;

/** Every name, for flags. */
export const SHAPE_NAMES = Object.keys(TRAINING_SHAPES) as [ShapeName, ...ShapeName[]];

/** The model of a shape. */
export function shapeConfig(shape: TrainingShape): LlamaConfig {
  return parseLlamaConfig({
    model_type: "llama",
    vocab_size: shape.vocabulary,
    hidden_size: shape.hidden,
    intermediate_size: shape.mlp,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    max_position_embeddings: shape.tokens,
  }, "the benchmark's model");
}

/** Parameters of the model of a shape. */
export function countParameters(shape: TrainingShape): number {
  return [...llamaParameterShapes(shapeConfig(shape)).values()].reduce(
    (total, extents) => total + sizeOf(extents),
    0,
  );
}

/**
 * A shape in words, for the title of a table.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.match(describeShape(TRAINING_SHAPES.bench), /^Llama of 4 layers, .*, 941,184 parameters; B = 8 /);
 * ```
 */
export function describeShape(shape: TrainingShape): string {
  const { layers, hidden, heads, mlp, vocabulary, batch, tokens } = shape;
  return `Llama of ${layers} layers, C = ${hidden}, ${heads} heads, F = ${mlp}, V = ${vocabulary}, untied head, ` +
    `${
      countParameters(shape).toLocaleString("en-US")
    } parameters; B = ${batch} (sequences, for DPO pairs), ` +
    `T = ${tokens}`;
}

/**
 * A model in words, for the title of a table.
 *
 * @param model any
 */
export function describeModel({ config, architecture: { dimensions }, parameters }: Model): string {
  const { layers, hidden, heads, kvHeads, headDim, vocab, positions } = dimensions;
  return `${config.model_type} of ${layers} layers, C = ${hidden}, ${heads} heads (${kvHeads} of keys) of ${headDim}, ` +
    `V = ${vocab}, ${positions} positions, ${parameters.count.toLocaleString("en-US")} parameters`;
}
