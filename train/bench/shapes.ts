/**
 * Sizes of the models that are measured.
 * @module
 */
import { sizeOf } from "../../engine/shape.ts";
import type { Model } from "../models/model.ts";
import { type LlamaConfig, parseLlamaConfig } from "../models/llama_config.ts";
import { llamaParameterShapes } from "../models/llama_parameters.ts";
import type { TrainingShape } from "./training_shapes.ts";

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
 * import { TRAINING_SHAPES } from "./training_shapes.ts";
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
