/**
 * What a step minimises: supervised fine-tuning on completions, or a preference loss on pairs with SPO around it.
 * @module
 */
import { pairLoss, type SpoPenaltyOptions, spoState } from "../engine/ops/pair_loss.ts";
import { scaledSum } from "../engine/ops/scaled_sum.ts";
import { type Tensor, upload } from "../engine/tensor.ts";
import { METRICS_STRIDE, PAIR_METRICS } from "../shaders/pair_loss.ts";
import { completionsSize, packPairs, packSequences, pairsSize } from "./data/batch.ts";
import type { EncodedCompletion, EncodedPair } from "./data/encode.ts";
import { formatSource } from "./data/errors.ts";
import type { ResolvedPairLoss } from "./losses/pair_loss.ts";
import type { BatchCapacity, LlamaModel } from "./models/llama.ts";
import { llamaSequenceLogps, llamaTokenLogps } from "./models/llama.ts";
import type { ReferenceLogps } from "./reference.ts";

/** One forward pass of a step. */
export interface MicroBatchInput {
  /** Items of this micro-batch, and of the whole step. */
  readonly items: Uint32Array;
  /** Items of the whole step, over which sums are normalised. */
  readonly batch: Uint32Array;
  /** The step's metrics start anew. */
  readonly isFirst: boolean;
  /** The step's metrics are complete after it. */
  readonly isLast: boolean;
  /** From 1. */
  readonly step: number;
  /** `[rows, METRICS_STRIDE]`, and the row of this step. */
  readonly metrics: Tensor;
  /** The row of this step. */
  readonly metricsRow: number;
  /** The largest micro-batch of the run. */
  readonly capacity: BatchCapacity;
}

/** A loss over a data set. */
export interface Objective extends Disposable {
  /** What is trained. */
  readonly model: LlamaModel;
  /** Items in the data set. */
  readonly count: number;
  /** Names of the numbers in a metrics row, in order. */
  readonly metricNames: readonly string[];
  /** Records one micro-batch's loss. @returns `[1]` */
  forward(input: MicroBatchInput): Tensor;
  /** Rows that a micro-batch needs. */
  size(items: Uint32Array): BatchCapacity;
  /** Where an item comes from, for errors. */
  source(item: number): string;
  /** The loss that the first step must show, when the data does not matter. */
  readonly initialLoss?: number;
}

/**
 * Token-mean cross entropy of completions given their prompts; micro-batches add up to the whole batch exactly.
 *
 * @param model trainable
 * @param completions the data
 * @returns the objective; dispose it when done, the model stays
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { toHost } from "../engine/tensor.ts";
 * import { createMetricsRing } from "./metrics.ts";
 * import { createLlama } from "./models/llama.ts";
 * import { parseLlamaConfig } from "./models/llama_config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * using ring = createMetricsRing(gpu, 1);
 * const source = { file: "example" };
 * using objective = sftObjective(model, [{ promptIds: [1, 2], completionIds: [3, 4], source }]);
 * const items = Uint32Array.of(0);
 * const loss = objective.forward({
 *   items, batch: items, isFirst: true, isLast: true, step: 1,
 *   metrics: ring.tensor, metricsRow: 0, capacity: objective.size(items),
 * });
 * assert(Math.abs((await toHost(loss))[0] - Math.log(8)) < 1e-6);
 * ```
 */
export function sftObjective(model: LlamaModel, completions: readonly EncodedCompletion[]): Objective {
  const size = (items: Uint32Array) => completionsSize(Array.from(items, (item) => completions[item]));
  return {
    model,
    count: completions.length,
    metricNames: ["loss"],
    size,
    source: (item) => formatSource(completions[item].source),
    forward({ items, batch, isFirst, metrics, metricsRow, capacity }) {
      const packed = packSequences(Array.from(items, (item) => completions[item]));
      const logps = llamaTokenLogps(model, packed, capacity);
      return scaledSum(logps, {
        scale: -1 / size(batch).labels,
        metric: { metrics, index: metricsRow * METRICS_STRIDE, accumulate: !isFirst },
      });
    },
    [Symbol.dispose]() {},
  };
}

/** What a preference run is made of. */
export interface PreferenceOptions {
  /** The data. */
  readonly pairs: readonly EncodedPair[];
  /** Of every pair, from the model that training starts from. */
  readonly reference: ReferenceLogps;
  /** The pairwise loss. */
  readonly loss: ResolvedPairLoss;
  /** SPO's numbers at a step. */
  readonly spoAt: (step: number) => SpoPenaltyOptions;
  /** Where the dual variable starts. */
  readonly lambda: number;
  /** Whether a pair whose sides have the same prompt has it once; true by default. */
  readonly sharePrompts?: boolean;
}

/**
 * A pairwise loss on pairs, chosen and rejected packed into one forward pass.
 *
 * @param model trainable
 * @param options data, reference and loss
 * @returns the objective; dispose it when done, the model stays
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { NO_PENALTY } from "../engine/ops/pair_loss.ts";
 * import { toHost } from "../engine/tensor.ts";
 * import { PAIR_LOSSES } from "./losses/registry.ts";
 * import { createMetricsRing } from "./metrics.ts";
 * import { referenceLogps } from "./reference.ts";
 * import { createLlama } from "./models/llama.ts";
 * import { parseLlamaConfig } from "./models/llama_config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseLlamaConfig({ model_type: "llama", ...sizes }, "example");
 * using model = createLlama(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * using ring = createMetricsRing(gpu, 1);
 * const source = { file: "example" };
 * const chosen = { promptIds: [1, 2], completionIds: [3], source };
 * const rejected = { promptIds: [1, 2], completionIds: [4, 5], source };
 * const pairs = [{ chosen, rejected, source }];
 * using objective = preferenceObjective(model, {
 *   pairs,
 *   reference: await referenceLogps(model, pairs),
 *   loss: PAIR_LOSSES.dpo.resolve({}),
 *   spoAt: () => NO_PENALTY,
 *   lambda: 0,
 * });
 * const items = Uint32Array.of(0);
 * const loss = objective.forward({
 *   items, batch: items, isFirst: true, isLast: true, step: 1,
 *   metrics: ring.tensor, metricsRow: 0, capacity: objective.size(items),
 * });
 * assert(Math.abs((await toHost(loss))[0] - Math.LN2) < 1e-6); // policy = reference
 * assert.equal(objective.initialLoss, Math.LN2);
 * ```
 */
export function preferenceObjective(model: LlamaModel, options: PreferenceOptions): Objective {
  const { pairs, reference, loss } = options;
  const state = spoState(model.gpu, { lambda: options.lambda });
  // A penalty moves the first loss; without one, policy = reference gives a known constant.
  const first = options.spoAt(1);
  const known = first.penalty === "none" && first.rho === 0 ? loss.initialLoss : undefined;
  return {
    model,
    count: pairs.length,
    metricNames: PAIR_METRICS,
    ...(known === undefined ? {} : { initialLoss: known }),
    size: (items) => pairsSize(Array.from(items, (item) => pairs[item]), options),
    source: (item) => formatSource(pairs[item].source),
    forward(input) {
      const { items } = input;
      const sums = llamaSequenceLogps(
        model,
        packPairs(Array.from(items, (item) => pairs[item]), options),
        input.capacity,
      );
      const gathered = (side: "chosen" | "rejected") => Array.from(items, (item) => reference[side][item]);
      const lengths = (side: "chosen" | "rejected") =>
        Array.from(items, (item) => pairs[item][side].completionIds.length);
      return pairLoss(sums, {
        reference: upload(model.gpu, Float32Array.from([...gathered("chosen"), ...gathered("rejected")])),
        lengths: upload(model.gpu, Float32Array.from([...lengths("chosen"), ...lengths("rejected")])),
        metrics: input.metrics,
        metricsRow: input.metricsRow,
        state,
        pairLoss: loss.head,
        spo: options.spoAt(input.step),
        microBatch: { pairsInBatch: input.batch.length, isFirst: input.isFirst, isLast: input.isLast },
      });
    },
    [Symbol.dispose]() {
      state.range.allocation.release();
    },
  };
}
