/**
 * What a step minimises: supervised fine-tuning on completions, or a preference loss on pairs with SPO around it.
 * @module
 */
import type { DeviceTensors } from "../engine/inputs.ts";
import { reportChes } from "../engine/ops/ches.ts";
import { NO_PENALTY, pairLoss, type SpoPenaltyOptions, spoState } from "../engine/ops/pair_loss.ts";
import { hostHeadEnds, sequenceLogps } from "../engine/ops/sequence_logps.ts";
import { pairWeights, reportStatistics, sequenceStatistics } from "../engine/ops/sequence_statistics.ts";
import { type MetricSlot, scaledSum } from "../engine/ops/scaled_sum.ts";
import { release, type Tensor } from "../engine/tensor.ts";
import { METRICS_STRIDE, pairMetrics } from "../shaders/pair_loss.ts";
import { STATISTICS_METRICS } from "../shaders/sequence_statistics.ts";
import { joinStates, type StatePart } from "./checkpoints/run_state.ts";
import { type BatchSize, completionsSize, packPairs, packSequences, pairsSize } from "./data/batch.ts";
import type { EncodedCompletion, EncodedPair } from "./data/encode.ts";
import { formatSource } from "./data/errors.ts";
import { ConfigError } from "./errors.ts";
import { pairHeads, sequenceSums } from "./losses/length_desensitization.ts";
import type { ResolvedPairLoss } from "./losses/pair_loss.ts";
import { type HostBatch, hostBatch } from "./models/batch_tensors.ts";
import { batchTokenStatistics, type Model } from "./models/model.ts";
import { detachedSequenceSums, type LiveReference } from "./live_reference.ts";
import type { ReferenceLogps, SideLogps } from "./reference.ts";
import type { SolverFactory } from "./solvers/solver.ts";

/** Where in a run a micro-batch is. All but `metrics` changes between replays of a graph: ops read it in functions. */
export interface MicroBatchState {
  /** From 1. */
  step: number;
  /** The step's metrics start anew. */
  isFirst: boolean;
  /** The step's metrics are complete after it. */
  isLast: boolean;
  /** Items of the whole step, over which sums are normalised. */
  batchItems: number;
  /** Labelled tokens of the whole step. */
  batchLabels: number;
  /** The items of the whole step. */
  batch: Uint32Array;
  /** The row of this step. */
  metricsRow: number;
  /** `[rows, METRICS_STRIDE]` */
  readonly metrics: Tensor;
}

/** A loss over a data set. Its batches are `Arrays`: typed arrays by name, or groups of them. */
export interface Objective<Arrays extends object = object> extends Disposable {
  /** What is trained. */
  readonly model: Model;
  /** Items in the data set. */
  readonly count: number;
  /** Names of the numbers in a metrics row, in order. */
  readonly metricNames: readonly string[];
  /** What items take when packed. */
  size(items: Uint32Array): BatchSize;
  /** Tokens of the items' texts, each prompt as often as it stands in one; by default what `size` has. */
  textTokens?(items: Uint32Array): number;
  /** Packs items; their arrays' lengths depend on `size` and the number of items alone, whatever the items are. */
  pack(items: Uint32Array, size: BatchSize): Arrays;
  /**
   * Records a packed micro-batch's loss.
   *
   * @param batch what `pack` made, on the GPU
   * @param state read now for what shapes the work, and at each replay for numbers
   * @returns `[1]`
   */
  forward(batch: DeviceTensors<Arrays>, state: Readonly<MicroBatchState>): Tensor;
  /** Where an item comes from, for errors. */
  source(item: number): string;
  /** The loss that the first step must show, when the data does not matter. */
  readonly initialLoss?: number;
  /** What a training step does with it; one backward and one update by default. */
  readonly solver?: SolverFactory;
  /** Called after each step of the optimizer, from 1: what the loss depends on besides the model may move. */
  afterStep?(step: number): void;
  /** What its later steps depend on besides the model and their number; by default nothing. */
  state?(): StatePart;
  /** The means of several steps' records, where they are not plain means over the steps: see `meanRecord`. */
  meanRecord?(records: readonly Record<string, number>[], skippedBefore?: number): Record<string, number>;
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
 * import { uploadAll } from "../engine/inputs.ts";
 * import { toHost } from "../engine/tensor.ts";
 * import { createMetricsRing } from "./metrics.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * using ring = createMetricsRing(gpu, 1);
 * const source = { file: "example" };
 * using objective = sftObjective(model, [{ promptIds: [1, 2], completionIds: [3, 4], source }]);
 * const items = Uint32Array.of(0);
 * const size = objective.size(items);
 * const loss = objective.forward(uploadAll(gpu, objective.pack(items, size)), {
 *   step: 1, isFirst: true, isLast: true, batchItems: 1, batchLabels: size.labels, batch: items,
 *   metrics: ring.tensor, metricsRow: 0,
 * });
 * assert(Math.abs((await toHost(loss))[0] - Math.log(8)) < 1e-6);
 * ```
 */
export function sftObjective(
  model: Model,
  completions: readonly EncodedCompletion[],
): Objective<HostBatch> {
  const pick = (items: Uint32Array) => Array.from(items, (item) => completions[item]);
  return {
    model,
    count: completions.length,
    metricNames: ["loss", ...STATISTICS_METRICS.completions],
    size: (items) => completionsSize(pick(items)),
    pack: (items, size) => hostBatch(model, packSequences(pick(items)), size),
    source: (item) => formatSource(completions[item].source),
    forward(batch, state) {
      const { sequences } = batch;
      const tokens = batchTokenStatistics(model, batch);
      reportStatistics(sequenceStatistics(tokens, sequences.offsets), {
        names: STATISTICS_METRICS.completions,
        chosen: sequences.offsets.shape[0] - 1,
        tokens: { chosen: () => state.batchLabels, rejected: 0 },
        metric: metricSlot(state, 1),
      });
      // By sequence: labels of the padding belong to none.
      return scaledSum(sequenceLogps(tokens.logps, sequences), {
        scale: () => -1 / state.batchLabels,
        metric: metricSlot(state, 0),
      });
    },
    [Symbol.dispose]() {},
  };
}

/**
 * Where a number of a step's row goes; micro-batches add to it.
 *
 * @param state of the micro-batch, read at each replay
 * @param index of the number in the row
 */
export function metricSlot(state: Readonly<MicroBatchState>, index: number): MetricSlot {
  return {
    metrics: state.metrics,
    index: () => state.metricsRow * METRICS_STRIDE + index,
    accumulate: () => !state.isFirst,
  };
}

/** What a preference run is made of. */
export interface PreferenceOptions {
  /** The data. */
  readonly pairs: readonly EncodedPair[];
  /** Of every pair, from the model that training starts from; or that model, to be run in every step. */
  readonly reference: ReferenceLogps | LiveReference;
  /** The pairwise loss. */
  readonly loss: ResolvedPairLoss;
  /** SPO's numbers at a step; by default none, the pairwise loss alone. */
  readonly spoAt?: (step: number) => SpoPenaltyOptions;
  /** Where the dual variable starts, 0 by default. */
  readonly lambda?: number;
  /** SPO's solver, see `spoStrategy`; the penalty of `spoAt` alone by default. */
  readonly solver?: SolverFactory;
  /** Whether the reference is the policy as it starts, so that the first loss is known; true by default. */
  readonly startsAtReference?: boolean;
  /** Whether a pair whose sides have the same prompt has it once; true by default. */
  readonly sharePrompts?: boolean;
  /** Whether CHES scores are reported: how alike the model sees the two sides (arXiv 2410.08847); f32 only. */
  readonly ches?: boolean;
  /** Whether pairs are weighted by how likely the policy itself would have written them (WPO, arXiv 2406.11827). */
  readonly useWeighting?: boolean;
}

/** Metrics after the loss's where they are asked for: CHES, and its form by lengths. */
const CHES_METRICS = ["displacement/ches", "displacement/ches_normalized"] as const;

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
 * import { uploadAll } from "../engine/inputs.ts";
 * import { toHost } from "../engine/tensor.ts";
 * import { PAIR_LOSSES } from "./losses/registry.ts";
 * import { createMetricsRing } from "./metrics.ts";
 * import { referenceLogps } from "./reference.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * using ring = createMetricsRing(gpu, 1);
 * const source = { file: "example" };
 * const chosen = { promptIds: [1, 2], completionIds: [3], source };
 * const rejected = { promptIds: [1, 2], completionIds: [4, 5], source };
 * const pairs = [{ chosen, rejected, source }];
 * using objective = preferenceObjective(model, {
 *   pairs,
 *   reference: await referenceLogps(model, pairs),
 *   loss: PAIR_LOSSES.dpo.resolve({}),
 * });
 * const items = Uint32Array.of(0);
 * const size = objective.size(items);
 * const loss = objective.forward(uploadAll(gpu, objective.pack(items, size)), {
 *   step: 1, isFirst: true, isLast: true, batchItems: 1, batchLabels: size.labels, batch: items,
 *   metrics: ring.tensor, metricsRow: 0,
 * });
 * assert(Math.abs((await toHost(loss))[0] - Math.LN2) < 1e-6); // policy = reference
 * assert.equal(objective.initialLoss, Math.LN2);
 * ```
 */
export function preferenceObjective(
  model: Model,
  options: PreferenceOptions,
): Objective<PairArrays> {
  const { pairs, reference, loss, spoAt = () => NO_PENALTY, lambda = 0 } = options;
  const live = "model" in reference ? reference : undefined;
  const pick = (items: Uint32Array) => Array.from(items, (item) => pairs[item]);
  // All pairs of a file have one, or none.
  const hasMargins = pairs[0].margin !== undefined;
  if (hasMargins && !loss.takesMargin) {
    throw new ConfigError(
      `Cannot train with ${loss.name}: expected a loss that takes margins, as ${
        formatSource(pairs[0].source)
      } has one, ` +
        "found one that does not",
    );
  }
  refusePlainReference(options);
  const { ldAlpha } = loss;
  if (options.useWeighting && !loss.takesWeights) {
    throw new ConfigError(
      `Cannot train with ${loss.name}: expected a loss of single pairs with useWeighting, found one that sorts the batch`,
    );
  }
  const metricNames = [...pairMetrics(loss.head.terms), ...STATISTICS_METRICS.pairs];
  const spo = spoState(model.gpu, { lambda });
  const packing = { sharePrompts: options.sharePrompts, promptLabels: loss.needsPromptLogps };
  const tokensOf = (items: Uint32Array, of: (pair: EncodedPair) => number) =>
    items.reduce((total, item) => total + of(pairs[item]), 0);
  // A penalty moves the first loss; without one, policy = reference gives a known constant.
  const first = spoAt(1);
  const isKnown = (options.startsAtReference ?? true) && !hasMargins && !options.useWeighting &&
    first.penalty === "none" &&
    first.rho === 0;
  const known = isKnown ? loss.initialLoss : undefined;
  return {
    model,
    count: pairs.length,
    metricNames: options.ches ? [...metricNames, ...CHES_METRICS] : metricNames,
    ...(known === undefined ? {} : { initialLoss: known }),
    ...(options.solver ? { solver: options.solver } : {}),
    ...(live?.afterStep ? { afterStep: live.afterStep } : {}),
    // SPO's v* and dual variable, and the moving means of losses that have any.
    state: () =>
      joinStates({
        loss: { tensors: [{ name: "spo", tensor: spo }], numbers: () => ({}), restore() {} },
        reference: live?.state?.(),
      }),
    size: (items) => pairsSize(pick(items), packing),
    textTokens: (items) =>
      completionsSize(pick(items).flatMap(({ chosen, rejected }) => [chosen, rejected])).tokens,
    pack(items, size) {
      const of = (values: ArrayLike<number>) => Array.from(items, (item) => values[item]);
      const packed = packPairs(pick(items), packing);
      const sides = ({ chosen, rejected }: SideLogps) => Float32Array.from([...of(chosen), ...of(rejected)]);
      const { completionLengths: lengths } = packed;
      return {
        batch: hostBatch(model, packed, size),
        ..."model" in reference ? {} : { reference: sides(reference.desensitized ?? reference) },
        lengths: Float32Array.from(lengths),
        ...(ldAlpha === undefined ? {} : {
          tails: {
            headEnds: hostHeadEnds(lengths, pairHeads(lengths)),
            ..."model" in reference ? {} : { reference: sides(reference) },
          },
        }),
        ...(hasMargins ? { margins: Float32Array.from(pick(items), ({ margin }) => margin!) } : {}),
      };
    },
    source: (item) => formatSource(pairs[item].source),
    forward({ batch, reference: precomputed, lengths, margins, tails: given }, state) {
      const observe = (hidden: Tensor) => {
        const metrics = [0, 1].map((index) => metricSlot(state, metricNames.length + index));
        const inversePairs = () => 1 / state.batchItems;
        const { offsets } = batch.sequences;
        reportChes(hidden, { offsets, inversePairs, metrics: [metrics[0], metrics[1]] });
      };
      // Before the policy's own pass, whose activations stay until the backward.
      const tails = given && { headEnds: given.headEnds, weight: ldAlpha! };
      const reference = precomputed
        ? { weighted: precomputed, plain: given?.reference ?? precomputed }
        : detachedSequenceSums(live!.model, batch, tails);
      const tokens = batchTokenStatistics(model, batch, options.ches ? { observe } : {});
      const { logps } = tokens;
      const statistics = sequenceStatistics(tokens, batch.sequences.offsets);
      reportStatistics(statistics, {
        names: STATISTICS_METRICS.pairs,
        chosen: lengths.shape[0] / 2,
        tokens: {
          chosen: () => tokensOf(state.batch, ({ chosen }) => chosen.completionIds.length),
          rejected: () => tokensOf(state.batch, ({ rejected }) => rejected.completionIds.length),
        },
        metric: metricSlot(state, metricNames.length - STATISTICS_METRICS.pairs.length),
      });
      const policy = sequenceSums(logps, batch, tails);
      return pairLoss(policy.weighted, {
        ...(tails ? { plain: { logps: policy.plain, reference: reference.plain } } : {}),
        ...(batch.prompts
          ? {
            promptLogps: sequenceLogps(logps, batch.prompts),
            promptTokens: () => tokensOf(state.batch, ({ chosen }) => chosen.promptIds.length - 1),
          }
          : {}),
        ...(margins ? { margins } : {}),
        ...(options.useWeighting ? { weights: pairWeights(statistics, batch.sequences.offsets) } : {}),
        reference: reference.weighted,
        lengths,
        metrics: state.metrics,
        metricsRow: () => state.metricsRow,
        state: spo,
        pairLoss: loss.head,
        chosenTokens: () => tokensOf(state.batch, ({ chosen }) => chosen.completionIds.length),
        spo: () => spoAt(state.step),
        microBatch: {
          pairsInBatch: () => state.batchItems,
          isFirst: () => state.isFirst,
          isLast: () => state.isLast,
        },
      });
    },
    [Symbol.dispose]: () => release(spo),
  };
}

/** LD-DPO weighs the tokens of both models: sums over whole answers cannot be weighed afterwards. */
function refusePlainReference({ pairs, reference, loss }: PreferenceOptions): void {
  const { ldAlpha } = loss;
  if (ldAlpha === undefined) return;
  if (pairs[0].referenceChosen !== undefined) {
    throw new ConfigError(
      `Cannot train with ldAlpha ${ldAlpha}: expected data without log-probs of a reference, whose tokens it weighs, ` +
        `found sums over whole answers in ${formatSource(pairs[0].source)}`,
    );
  }
  const found = "model" in reference ? ldAlpha : reference.desensitized?.ldAlpha;
  if (found === ldAlpha) return;
  throw new RangeError(
    `Cannot train with ldAlpha ${ldAlpha}: expected a reference's log-probs under it, found ${
      found === undefined ? "sums over whole answers" : `ones under ${found}`
    }`,
  );
}

/** A batch of P pairs. */
export interface PairArrays {
  /** 2 P sequences, the chosen first. */
  readonly batch: HostBatch;
  /** `[2 P]`: the reference's summed log-probs as the loss reads them, where they are precomputed. */
  readonly reference?: Float32Array;
  /** `[2 P]`: completion lengths in tokens. */
  readonly lengths: Float32Array;
  /** `[P]`, where the data has them. */
  readonly margins?: Float32Array;
  /** Where tokens past the pair's shorter answer have a weight (LD-DPO). */
  readonly tails?: {
    /** `[2 P]`: see `hostHeadEnds`. */
    readonly headEnds: Uint32Array;
    /** `[2 P]`: the reference's log-probs summed over whole answers, where they are precomputed. */
    readonly reference?: Float32Array;
  };
}
