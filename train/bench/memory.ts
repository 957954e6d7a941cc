/**
 * How the memory of a training step grows with each extent, planned at the size of a real model: no adapter is needed.
 * @module
 */
import type { PlanningOptions } from "../../engine/planning_gpu.ts";
import { parseLlamaConfig } from "../models/llama_config.ts";
import { formatBytes } from "../format_bytes.ts";
import { type MemoryPlan, planTraining, type TrainingSizes } from "../plan.ts";
import { formatMarkdownTable, formatTable } from "../table.ts";

/** The limits of a common graphics card, and no budget. */
export const COMMON_CARD: PlanningOptions = {
  limits: {
    maxBufferSize: 2 ** 38,
    maxStorageBufferBindingSize: 2 ** 31 - 4,
    maxStorageBuffersPerShaderStage: 10,
    maxComputeWorkgroupStorageSize: 49152,
    maxComputeInvocationsPerWorkgroup: 1024,
    minUniformBufferOffsetAlignment: 256,
    minStorageBufferOffsetAlignment: 256,
    maxTextureDimension2D: 16384,
  },
  adapter: { name: "a common card", isCpu: false, features: [], subgroupSize: 32 },
};

/** Extents of a model and a pair. */
export interface Extents {
  /** Labelled tokens of each response, after a prompt of 16. */
  readonly tokens: number;
  readonly layers: number;
  /** Heads of 64; the MLP keeps its ratio to the width. */
  readonly width: number;
  readonly vocabulary: number;
}

/** Qwen2.5-0.5B's, with responses of 1,024 tokens. */
export const QWEN_EXTENTS: Extents = { tokens: 1024, layers: 24, width: 896, vocabulary: 151_936 };

/**
 * A DPO step on one pair by a model of Qwen2.5-0.5B's proportions.
 *
 * @param extents in which it may differ
 * @param options.activationCheckpointing whether layers are computed again
 * @returns what `planTraining` takes
 */
export function qwenStep(
  { tokens, layers, width, vocabulary }: Extents,
  options: { activationCheckpointing: boolean },
): TrainingSizes {
  const model = parseLlamaConfig({
    model_type: "llama",
    vocab_size: vocabulary,
    hidden_size: width,
    intermediate_size: Math.round(width * 4864 / 896),
    num_hidden_layers: layers,
    num_attention_heads: width / 64,
    num_key_value_heads: width / 448,
    max_position_embeddings: 32_768,
    tie_word_embeddings: true,
  }, "the planned model");
  return { ...options, model, loss: "dpo", promptTokens: 16, completionTokens: tokens, batchSize: 1 };
}

/** One size, planned. */
export interface PlannedGrowth {
  /** The extent that differs from Qwen2.5-0.5B's. */
  readonly axis: keyof Extents;
  readonly extent: number;
  /** With all activations kept. */
  readonly plain: MemoryPlan;
  /** With activation checkpointing. */
  readonly checkpointed: MemoryPlan;
}

/**
 * Plans a DPO step at half, once and twice each extent.
 *
 * @param options for which device; a common card by default
 * @returns axis by axis
 */
export async function planGrowth(options: PlanningOptions = COMMON_CARD): Promise<PlannedGrowth[]> {
  const results: PlannedGrowth[] = [];
  for (const axis of Object.keys(QWEN_EXTENTS) as (keyof Extents)[]) {
    for (const times of [0.5, 1, 2]) {
      const extent = QWEN_EXTENTS[axis] * times;
      const planOf = (activationCheckpointing: boolean) =>
        planTraining(options, qwenStep({ ...QWEN_EXTENTS, [axis]: extent }, { activationCheckpointing }));
      results.push({ axis, extent, plain: await planOf(false), checkpointed: await planOf(true) });
    }
  }
  return results;
}

/**
 * The plans as a table: what follows the weights, and what follows the tokens.
 *
 * @param growth of {@link planGrowth}
 * @param options.markdown as Markdown
 */
export function formatGrowth(growth: readonly PlannedGrowth[], options: { markdown: boolean }): string {
  const headers = [
    "axis",
    "extent",
    "weights, gradients, AdamW",
    "activations",
    "the same checkpointed",
    "buffers",
    "total",
    "total checkpointed",
  ];
  const rows = growth.map(({ axis, extent, plain, checkpointed }) => {
    const { parameters, gradients, optimizer, activations, buffers } = plain.categories;
    const bytes = [
      parameters + gradients + optimizer,
      activations,
      checkpointed.categories.activations,
      buffers,
      plain.totalBytes,
      checkpointed.totalBytes,
    ];
    return [axis, extent.toLocaleString("en"), ...bytes.map(formatBytes)];
  });
  return (options.markdown ? formatMarkdownTable : formatTable)(headers, rows);
}
