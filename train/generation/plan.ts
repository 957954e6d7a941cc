/**
 * The GPU memory of a generation before it starts: its own code on a device that computes nothing.
 * @module
 */
import type { PlanningOptions } from "../../engine/planning_gpu.ts";
import { type ModelFolders, planModelOrAdapter } from "../models/load_model.ts";
import type { Model, ModelOptions } from "../models/model.ts";
import type { ModelConfig } from "../models/registry.ts";
import { type MemoryPlan, planRun, requireFit } from "../plan.ts";
import type { CacheSize } from "./cache.ts";
import { createDecoder, type Reading } from "./decoder.ts";

/** What is planned. */
export interface GenerationSizes extends DecodingSizes {
  /** Of the model. */
  readonly config: ModelConfig;
  /** Where an adapter on it is; a whole model by default. */
  readonly folders?: Pick<ModelFolders, "adapter">;
  /** How it is loaded. */
  readonly model: ModelOptions;
}

/** Sizes of what is decoded. */
export interface DecodingSizes {
  /** Sequences decoded together, tokens of the longest. */
  readonly size: CacheSize;
  /** Tokens of the longest prompt. */
  readonly promptTokens: number;
  /** What is read back of each token. */
  readonly reading: Reading;
}

/**
 * Plans loading a model, taking prompts in, and decoding up to the last position.
 *
 * @param options whose limits, adapter and budget count
 * @param sizes of model and generation
 * @returns its memory
 * @throws {PlanError} when a size is past what a kernel or the adapter can do
 */
export async function planGeneration(options: PlanningOptions, sizes: GenerationSizes): Promise<MemoryPlan> {
  const { config, folders = {}, model: modelOptions } = sizes;
  return await planRun(options, async ({ gpu }) => {
    using model = await planModelOrAdapter(gpu, { folders, config }, modelOptions);
    await planDecoding(model, sizes);
  });
}

/**
 * Takes prompts in and decodes up to the last position.
 *
 * @param model on a planning device
 * @param sizes of what is decoded
 */
export async function planDecoding(model: Model, sizes: DecodingSizes): Promise<void> {
  const { size, promptTokens, reading } = sizes;
  using decoder = createDecoder(model, size);
  const ids = Array<number>(promptTokens).fill(0);
  const slots = Array.from({ length: size.sequences }, (_, slot) => slot);
  const requests = slots.map((slot) => ({ slot, ids }));
  const readsIds = reading === "ids" && decoder.choosesIds;
  await (readsIds ? decoder.prefill(requests) : decoder.prefillLogits(requests));
  for (const length of stepLengths(promptTokens, size.positions)) {
    for (const slot of slots) decoder.cached[slot] = Array<number>(length - 1).fill(0);
    const rows = slots.map((slot) => ({ slot, id: 0 }));
    if (readsIds) await decoder.step(rows);
    else await decoder.stepLogits(rows);
  }
}

/** Tokens seen by the last step of each graph, the longest first: what shorter steps take is hardly more. */
function stepLengths(promptTokens: number, positions: number): number[] {
  const lengths = [positions];
  for (let length = 1; length < positions; length *= 2) {
    if (length > promptTokens) lengths.splice(1, 0, length);
  }
  return lengths;
}

/**
 * Refuses a generation over its budget.
 *
 * @param plan of {@link planGeneration}
 * @param size what its cache is made for
 * @throws {PlanError} naming budget and total
 */
export function refuseGenerationOverBudget(plan: MemoryPlan, size: CacheSize): void {
  const { sequences, positions } = size;
  requireFit(plan, {
    action: "generate",
    takenBy: `the model and ${sequences} sequence${sequences === 1 ? "" : "s"} of ${positions} tokens`,
    advice: "--dtype f16 and fewer tokens take less",
  });
}
