/**
 * Losses on answers that are good or bad each by itself: KTO and the unpaired APO zero.
 * @module
 */
import { ktoLoss } from "../../engine/ops/kto_loss.ts";
import { sequenceLogps } from "../../engine/ops/sequence_logps.ts";
import { reportStatistics, sequenceStatistics } from "../../engine/ops/sequence_statistics.ts";
import { KTO_METRICS } from "../../shaders/kto_loss.ts";
import { STATISTICS_METRICS } from "../../shaders/sequence_statistics.ts";
import { completionsSize, packSequences } from "../data/batch.ts";
import type { EncodedCompletion, EncodedExample } from "../data/encode.ts";
import { formatSource } from "../data/errors.ts";
import { detachedSequenceLogps, type LiveReference } from "../live_reference.ts";
import type { ResolvedUnpairedLoss } from "../losses/unpaired.ts";
import { meanRecord } from "../metrics.ts";
import { type HostBatch, hostBatch } from "../models/batch_tensors.ts";
import { batchTokenStatistics, type Model } from "../models/model.ts";
import { metricSlot, type Objective } from "../objective.ts";

/** What a run on labelled answers is made of. */
export interface UnpairedOptions {
  /** The data. */
  readonly examples: readonly EncodedExample[];
  /** Run in every step: which answers KTO's KL sequences join is known only with the batch. */
  readonly reference: LiveReference;
  /** The loss. */
  readonly loss: ResolvedUnpairedLoss;
  /** Whether the reference is the policy as it starts, so that the first loss is known; true by default. */
  readonly startsAtReference?: boolean;
}

/** A batch of N labelled answers. */
export interface UnpairedArrays {
  /** N sequences. */
  readonly batch: HostBatch;
  /** `[N]`: 1 for a good answer, 0 for a bad one. */
  readonly desirable: Float32Array;
  /** The prompts with each other's answers, for KTO. */
  readonly kl?: HostBatch;
}

/**
 * KTO's KL sequences: each prompt with the answer of the example before it in the batch, the first with that of the last,
 * as TRL has them. An answer that does not fit behind a longer prompt loses its end.
 *
 * @param batch the examples of one batch, in order
 * @param positions the longest sequence that the model takes
 * @returns as many sequences
 */
export function klSequences(
  batch: readonly EncodedCompletion[],
  positions: number,
): EncodedCompletion[] {
  return batch.map(({ promptIds, source }, index) => {
    const { completionIds } = batch[(index + batch.length - 1) % batch.length];
    return { promptIds, completionIds: completionIds.slice(0, positions - promptIds.length), source };
  });
}

/**
 * A loss on labelled answers. Reference and KL sequences are run in every step, without gradient.
 *
 * @param model trainable
 * @param options data, reference and loss
 * @returns the objective; dispose it when done, model and reference stay
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { uploadAll } from "../../engine/inputs.ts";
 * import { toHost } from "../../engine/tensor.ts";
 * import { liveReference } from "../live_reference.ts";
 * import { resolveUnpairedLoss } from "../losses/unpaired.ts";
 * import { createMetricsRing } from "../metrics.ts";
 * import { createModel } from "../models/model.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: true }); // all zero: ids are equally likely
 * using reference = liveReference(model);
 * using ring = createMetricsRing(gpu, 1);
 * const source = { file: "example" };
 * const good = { promptIds: [1, 2], completionIds: [3], desirable: true, source };
 * const bad = { promptIds: [1], completionIds: [4, 5], desirable: false, source };
 * using objective = unpairedObjective(model, { examples: [good, bad], reference, loss: resolveUnpairedLoss("kto") });
 * const items = Uint32Array.of(0, 1);
 * const size = objective.size(items);
 * const loss = objective.forward(uploadAll(gpu, objective.pack(items, size)), {
 *   step: 1, isFirst: true, isLast: true, batchItems: 2, batchLabels: size.labels, batch: items,
 *   metrics: ring.tensor, metricsRow: 0,
 * });
 * assert(Math.abs((await toHost(loss))[0] - 0.5) < 1e-6); // policy = reference
 * assert.equal(objective.initialLoss, 0.5);
 * ```
 */
export function unpairedObjective(model: Model, options: UnpairedOptions): Objective<UnpairedArrays> {
  const { examples, reference, loss } = options;
  const { desirableWeight, undesirableWeight } = loss.options;
  const pick = (items: Uint32Array) => Array.from(items, (item) => examples[item]);
  const tokensOf = (items: Uint32Array, label: boolean) =>
    pick(items).reduce(
      (sum, { desirable, completionIds }) => sum + (desirable === label ? completionIds.length : 0),
      0,
    );
  const chosenIn = (items: Uint32Array) => pick(items).filter(({ desirable }) => desirable).length;
  // With weights that differ it depends on how many of either label the first batch has.
  const isKnown = (options.startsAtReference ?? true) && desirableWeight === undesirableWeight;
  return {
    model,
    count: examples.length,
    metricNames: [...KTO_METRICS, ...STATISTICS_METRICS.answers],
    meanRecord: meanByLabel,
    ...(reference.afterStep ? { afterStep: reference.afterStep } : {}),
    ...(reference.state ? { state: reference.state } : {}),
    ...(isKnown ? { initialLoss: desirableWeight / 2 } : {}),
    size: (items) => completionsSize(pick(items)),
    pack(items, size) {
      const batch = pick(items);
      return {
        batch: hostBatch(model, packSequences(batch), size),
        desirable: Float32Array.from(batch, ({ desirable }) => Number(desirable)),
        // The same prompts and, but for ends that were cut, the same answers: never larger.
        ...(loss.needsKl
          ? { kl: hostBatch(model, packSequences(klSequences(batch, model.positions)), size) }
          : {}),
      };
    },
    source: (item) => formatSource(examples[item].source),
    forward({ batch, desirable, kl }, state) {
      // Before the policy's own pass, whose activations stay until the backward.
      const ofReference = detachedSequenceLogps(reference.model, batch);
      const ofKl = kl && {
        policy: detachedSequenceLogps(model, kl),
        reference: detachedSequenceLogps(reference.model, kl),
      };
      const tokens = batchTokenStatistics(model, batch);
      reportStatistics(sequenceStatistics(tokens, batch.sequences.offsets), {
        names: STATISTICS_METRICS.answers,
        chosen: desirable,
        tokens: {
          chosen: () => tokensOf(state.batch, true),
          rejected: () => tokensOf(state.batch, false),
        },
        metric: metricSlot(state, KTO_METRICS.length),
      });
      return ktoLoss(sequenceLogps(tokens.logps, batch.sequences), {
        ...{ reference: ofReference, desirable, ...loss.options },
        ...(ofKl ? { kl: ofKl } : {}),
        batch: { answers: () => state.batchItems, chosen: () => chosenIn(state.batch) },
        metrics: state.metrics,
        metricsRow: () => state.metricsRow,
        isFirst: () => state.isFirst,
        isLast: () => state.isLast,
      });
    },
    [Symbol.dispose]() {},
  };
}

/** Metrics that are means over the answers of one label. */
const LABELS: Readonly<Record<string, readonly string[]>> = {
  "examples/chosen": [
    "rewards/chosen",
    "logps/chosen",
    "logits/chosen",
    "displacement/chosen_delta",
    "displacement/fraction",
  ],
  "examples/rejected": [
    "rewards/rejected",
    "logps/rejected",
    "logits/rejected",
    "displacement/rejected_delta",
  ],
};

/** Means over several steps: those of a label over all its answers, left out where there was none. */
function meanByLabel(
  records: readonly Record<string, number>[],
  skippedBefore?: number,
): Record<string, number> {
  const mean = meanRecord(records, skippedBefore);
  for (const [count, names] of Object.entries(LABELS)) {
    const total = records.reduce((sum, record) => sum + record[count], 0);
    for (const name of names) {
      if (total === 0) delete mean[name];
      else mean[name] = records.reduce((sum, record) => sum + record[name] * record[count], 0) / total;
    }
  }
  if (mean["rewards/chosen"] === undefined || mean["rewards/rejected"] === undefined) {
    delete mean["rewards/margins"];
  } else mean["rewards/margins"] = mean["rewards/chosen"] - mean["rewards/rejected"];
  return mean;
}
