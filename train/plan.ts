/**
 * The GPU memory of a run before it starts: the run's own code on a device that computes nothing.
 * @module
 */
import { MEMORY_CATEGORIES, MemoryBudgetError, type MemoryCategory } from "../engine/buffers.ts";
import type { Gpu } from "../engine/gpu.ts";
import { NO_PENALTY } from "../engine/ops/pair_loss.ts";
import { openPlanningGpu, type PlanningOptions } from "../engine/planning_gpu.ts";
import { ShapeError } from "../engine/shape.ts";
import type { BatchSize } from "./data/batch.ts";
import type { EncodedCompletion, EncodedPair } from "./data/encode.ts";
import { addLora, type LoraOptions, withAdapterOff } from "./adapters/lora.ts";
import { InputError } from "./errors.ts";
import { formatBytes } from "./format_bytes.ts";
import { PAIR_LOSSES, type PairLossKey } from "./losses/registry.ts";
import { createModel } from "./models/model.ts";
import type { ModelConfig } from "./models/registry.ts";
import { preferenceObjective, sftObjective } from "./objective.ts";
import { referenceLogps } from "./reference.ts";
import type { Session } from "./session.ts";
import { formatTable } from "./table.ts";
import { train } from "./trainer.ts";

/**
 * A run that its device cannot do: more memory than the budget, or sizes past a kernel's limit.
 *
 * @example
 * ```ts
 * const error: Error = new PlanError("Cannot train: expected at most 1 GiB of GPU memory (the budget), found 2 GiB");
 * if (error.name !== "PlanError") throw new Error("its name tells it apart");
 * ```
 */
export class PlanError extends InputError {
  /** The class, as messages print it. */
  override name = "PlanError";
}

/** A phase of training, as planned. */
export interface PlannedPhase {
  /** As in metrics.jsonl. */
  readonly name: string;
  /** Optimizer steps. */
  readonly steps: number;
  /** Tokens of its largest micro-batch, and labelled tokens of the one that has most. */
  readonly largest: BatchSize;
}

/** What a run takes. */
export interface MemoryPlan {
  /** Bytes of each category when the total is largest; they add up to it. */
  readonly categories: Readonly<Record<MemoryCategory, number>>;
  /** Bytes of all buffers, at their peak. */
  readonly totalBytes: number;
  /** Upper bound for the total; infinite where there is none. */
  readonly budgetBytes: number;
  /** What is trained, in order. */
  readonly phases: readonly PlannedPhase[];
}

/**
 * Whether a plan stays within its budget.
 *
 * @param plan of a run
 * @returns true where there is no budget
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const categories = { parameters: 64, gradients: 64, optimizer: 128, activations: 512, buffers: 0 };
 * const plan = { categories, totalBytes: 768, budgetBytes: 1024, phases: [] };
 * assert(fits(plan) && !fits({ ...plan, budgetBytes: 512 }));
 * ```
 */
export function fits({ totalBytes, budgetBytes }: MemoryPlan): boolean {
  return totalBytes <= budgetBytes;
}

/**
 * Plans for the device that is open.
 *
 * @param gpu its limits, adapter and budget count
 * @returns what {@link planTraining} takes
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu({ memoryBudgetBytes: 2 ** 30 });
 * assert.equal(planningOptions(gpu).memoryBudgetBytes, 2 ** 30);
 * ```
 */
export function planningOptions(gpu: Gpu): PlanningOptions {
  const { device: { limits }, adapter, buffers: { budgetBytes } } = gpu;
  return { limits, adapter, memoryBudgetBytes: budgetBytes, tunedAs: gpu };
}

/**
 * Runs a run on a planning device.
 *
 * @param options whose limits, adapter and budget count
 * @param body the run: loads, trains, evaluates and saves as the real one does
 * @returns its memory; that without any budget where it is more than the budget
 * @throws {PlanError} when a size is past what a kernel or the adapter can do
 */
export async function planRun(
  options: PlanningOptions,
  body: (session: Session) => Promise<unknown>,
): Promise<MemoryPlan> {
  const budgetBytes = options.memoryBudgetBytes ?? Infinity;
  try {
    return { ...await runPlanned(options, body), budgetBytes };
  } catch (error) {
    if (error instanceof MemoryBudgetError) {
      return { ...await runPlanned({ ...options, memoryBudgetBytes: Infinity }, body), budgetBytes };
    }
    throw error;
  }
}

async function runPlanned(
  options: PlanningOptions,
  body: (session: Session) => Promise<unknown>,
): Promise<Omit<MemoryPlan, "budgetBytes">> {
  using gpu = openPlanningGpu(options);
  const nothing = () => {};
  const phases: PlannedPhase[] = [];
  const session: Session = {
    gpu,
    folder: "",
    metrics: { append: nothing, flush: nothing, close: nothing, [Symbol.dispose]: nothing },
    log: nothing,
    progress: () => ({ update: nothing, finish: nothing }),
    onTrained: ({ name, steps, summary: { largest } }) => void phases.push({ name, steps, largest }),
  };
  try {
    await body(session);
  } catch (error) {
    const isLimit = error instanceof ShapeError || error instanceof RangeError;
    if (isLimit && !(error instanceof MemoryBudgetError)) {
      throw new PlanError(error.message, { cause: error });
    }
    throw error;
  }
  const { peakBytes, categories } = gpu.stats().memory;
  const parts = MEMORY_CATEGORIES.map((name) => [name, categories[name].peakBytes]);
  return { categories: Object.fromEntries(parts), totalBytes: peakBytes, phases };
}

/**
 * Refuses a plan over its budget.
 *
 * @param plan of what would be done
 * @param options.action what that is, such as `evaluate`
 * @param options.takenBy what takes the memory, where the action alone does not say it
 * @param options.advice what would take less; nothing where there is no such setting
 * @throws {PlanError} naming budget and total
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const categories = { parameters: 0, gradients: 0, optimizer: 0, activations: 2048, buffers: 0 };
 * const plan = { categories, totalBytes: 2048, budgetBytes: 1024, phases: [] };
 * assert.throws(() => requireFit(plan, { action: "measure", advice: "a smaller --shape takes less" }), {
 *   message: "Cannot measure: expected at most 1.00 KiB of GPU memory (the budget), found 2.00 KiB planned; " +
 *     "a smaller --shape takes less",
 * });
 * ```
 */
export function requireFit(
  plan: MemoryPlan,
  { action, takenBy, advice }: { action: string; takenBy?: string; advice?: string },
): void {
  if (fits(plan)) return;
  throw new PlanError(
    `Cannot ${action}: expected at most ${formatBytes(plan.budgetBytes)} of GPU memory (the budget), found ` +
      `${formatBytes(plan.totalBytes)} planned${takenBy ? ` for ${takenBy}` : ""}${
        advice ? `; ${advice}` : ""
      }`,
  );
}

/** Sizes of a model and of its training step. */
export interface TrainingSizes {
  /** Of the model. */
  readonly model: ModelConfig;
  /** What is minimised. */
  readonly loss: "sft" | PairLossKey;
  /** Tokens of each prompt. */
  readonly promptTokens: number;
  /** Labelled tokens of each completion: of both sides of a pair. */
  readonly completionTokens: number;
  /** Examples or pairs of a step. */
  readonly batchSize: number;
  /** Equal parts that a step is split into; 1 by default. */
  readonly gradientAccumulationSteps?: number;
  /** Whether layers are computed again in the backward; not by default. */
  readonly activationCheckpointing?: boolean;
  /** The adapter that is trained in place of the model. */
  readonly lora?: LoraOptions;
}

/**
 * Plans training by sizes alone: the model, the reference pass of a preference loss (the same weights, before the first
 * step), and steps with AdamW.
 *
 * @param options whose limits, adapter and budget count
 * @param sizes of model and step
 * @returns its memory
 * @throws {PlanError} when a size is past what a kernel or the adapter can do
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 64, hidden_size: 64, intermediate_size: 64, num_hidden_layers: 8, num_attention_heads: 2 };
 * const model = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * const step = { model, loss: "dpo", promptTokens: 64, completionTokens: 64, batchSize: 64 } as const;
 * const plan = await planTraining(planningOptions(gpu), step);
 * assert.equal(plan.categories.gradients, plan.categories.parameters);
 * const less = await planTraining(planningOptions(gpu), { ...step, activationCheckpointing: true });
 * assert(less.categories.activations < plan.categories.activations / 2);
 * ```
 */
export async function planTraining(options: PlanningOptions, sizes: TrainingSizes): Promise<MemoryPlan> {
  return await planRun(options, async ({ gpu, onTrained }) => {
    const { activationCheckpointing, loss, batchSize, gradientAccumulationSteps, lora } = sizes;
    const positions = sizes.promptTokens + sizes.completionTokens;
    const whole = createModel(gpu, sizes.model, { trainable: !lora, positions, activationCheckpointing });
    using model = lora ? addLora(whole, lora) : whole;
    const pairs = Array.from({ length: batchSize }, () => pairOf(sizes));
    using objective = loss === "sft"
      ? sftObjective(model, pairs.map(({ chosen }) => chosen))
      : preferenceObjective(model, {
        pairs,
        reference: await withAdapterOff(model, (base) => referenceLogps(base, pairs)),
        loss: PAIR_LOSSES[loss].resolve({}),
        spoAt: () => NO_PENALTY,
        lambda: 0,
      });
    const summary = await train(objective, {
      optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
      schedule: { kind: "constant", learningRate: 1e-5, warmupSteps: 0, maxSteps: 1 },
      batchSize,
      gradientAccumulationSteps,
      seed: 0,
      logEvery: 1,
    });
    onTrained?.({ name: loss, steps: 1, summary });
  });
}

/** Ids do not matter, but one id alone would meet limits that no text meets. */
function pairOf({ model, promptTokens, completionTokens }: TrainingSizes): EncodedPair {
  const source = { file: "planned" };
  const ids = (length: number) => Array.from({ length }, (_, index) => index % model.vocab_size);
  const side: EncodedCompletion = {
    promptIds: ids(promptTokens),
    completionIds: ids(completionTokens),
    source,
  };
  return { chosen: side, rejected: side, source };
}

/**
 * A plan as text.
 *
 * @param plan of a run
 * @returns lines for a terminal
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const categories = { parameters: 64, gradients: 64, optimizer: 128, activations: 4096, buffers: 256 };
 * const text = formatPlan({ categories, totalBytes: 4608, budgetBytes: 2 ** 30, phases: [] });
 * assert.match(text, /^total +4,608 +4.50 KiB$/m);
 * ```
 */
export function formatPlan(plan: MemoryPlan): string {
  const { categories, totalBytes, budgetBytes, phases } = plan;
  const row = (name: string, bytes: number) => [name, bytes.toLocaleString("en"), formatBytes(bytes)];
  const memory = formatTable(["memory at its peak", "bytes", ""], [
    ...MEMORY_CATEGORIES.map((name) => row(name, categories[name])),
    row("total", totalBytes),
    Number.isFinite(budgetBytes) ? row("budget", Math.floor(budgetBytes)) : ["budget", "none", ""],
  ]);
  const training = formatTable(["phase", "steps", "largest micro-batch: tokens", "labelled"], [
    ...phases.map(({ name, steps, largest }) => [name, steps, largest.tokens, largest.labels]),
  ]);
  return `${memory}\n${training}`;
}
