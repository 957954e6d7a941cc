/**
 * Preference losses on pairs, with Stable Preference Optimization around them.
 * @module
 */
import { headName, headOf, type PairHeadChoice } from "../../shaders/pair_heads.ts";
import {
  type DivergenceName,
  MAX_TERMS,
  type PairExtra,
  pairLoss as pairLossKernel,
  type PairLossName,
  type PenaltyName,
  sortedPerPair,
  SPO_STATE,
  termOptions,
} from "../../shaders/pair_loss.ts";
import { scaleByScalar, SEGMENT_WORKGROUP } from "../../shaders/reduce.ts";
import type { Gpu } from "../gpu.ts";
import { derive, type Flag, flagScalar, type Scalar, valueOf } from "../queue.ts";
import { expectShape, ShapeError } from "../shape.ts";
import type { SpoPenaltyOptions } from "./spo_penalty_options.ts";
import { record } from "../tape.ts";
import { empty, fromHost, type Tensor } from "../tensor.ts";

export type { NamedPairHead, PairHead, PairHeadChoice } from "../../shaders/pair_heads.ts";
export type { DivergenceName, PairLossName, PenaltyName };
export { NO_PENALTY, type SpoPenaltyOptions } from "./spo_penalty_options.ts";

/** One term of a preference loss: a head of the kernel, its weight and its numbers. */
export interface PairLossTerm {
  /** Which head: a built-in one by its name, or one of your own. */
  readonly loss: PairHeadChoice;
  /** What its value and gradient are multiplied by in the sum. */
  readonly weight: number;
  /** The numbers that the head reads, by their names in WGSL (`HEADS[loss].options`), and `divergence_alpha`. */
  readonly options: Readonly<Record<string, number>>;
  /** f of the f-divergence, reverse KL by default; only for heads that take one. */
  readonly divergence?: DivergenceName;
  /** The loss takes the reference's log-probs to be 0. */
  readonly referenceFree?: boolean;
}

/** The preference loss: a weighted sum of heads. Rewards in the metrics are those of the first term that has any. */
export interface PairLossOptions {
  /** At most {@link MAX_TERMS}, none twice. */
  readonly terms: readonly PairLossTerm[];
}

/** Which part of a step's batch this is. */
export interface MicroBatch {
  /** Pairs of the whole step, over all micro-batches (and ranks). */
  readonly pairsInBatch: Scalar;
  /** The step's metrics start anew. */
  readonly isFirst: Flag;
  /** phi is applied, and v* and the dual lambda move on. */
  readonly isLast: Flag;
}

/** What a call needs besides the policy's log-probs. */
export interface PairLossInputs {
  /** `[2P]`: the reference's summed log-probs, chosen then rejected; zeros where the loss has no reference. */
  readonly reference: Tensor;
  /** `[2P]`: completion lengths in tokens, as f32. */
  readonly lengths: Tensor;
  /** `[P]`: what each pair's margin must exceed, in units of reward (ODPO); none by default. */
  readonly margins?: Tensor;
  /** `[P]`: factor of each pair's preference terms, not of their negative log-likelihoods (WPO); no gradient. */
  readonly weights?: Tensor;
  /** `[P]`: summed log-probs of the prompts' own tokens, for a likelihood of whole sequences (ORPO). */
  readonly promptLogps?: Tensor;
  /**
   * `[2P]` each: sums over whole answers, where `logps` and `reference` weigh tokens (LD-DPO). Negative log-likelihoods,
   * SPO's terms and the displacement metrics are of these, which have a gradient of their own. The same by default.
   */
  readonly plain?: { readonly logps: Tensor; readonly reference: Tensor };
  /** Tokens of the chosen answers of the whole step; needed by terms with a negative log-likelihood. */
  readonly chosenTokens?: Scalar;
  /** Tokens behind `promptLogps`, of the whole step. */
  readonly promptTokens?: Scalar;
  /** `[rows, METRICS_STRIDE]`: receives `pairMetrics(terms)` of the shader. */
  readonly metrics: Tensor;
  /** The row of this step. */
  readonly metricsRow: Scalar;
  /** From {@link spoState}. */
  readonly state: Tensor;
  /** The pairwise loss. */
  readonly pairLoss: PairLossOptions;
  /** The penalty around it, {@link NO_PENALTY} for none; a function is asked again at each replay of a graph. */
  readonly spo: SpoPenaltyOptions | (() => SpoPenaltyOptions);
  /** Where in the step's batch these pairs are. */
  readonly microBatch: MicroBatch;
}

/**
 * The numbers that SPO and batch-coupled losses carry from step to step: see `SPO_STATE` of the shader.
 *
 * @param gpu the device
 * @param options.lambda where the dual variable starts
 * @returns `[SPO_STATE.size]`; the caller releases it
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const state = spoState(gpu, { lambda: 0.5 });
 * assert.deepEqual([...(await toHost(state)).subarray(0, 4)], [0, 0, 0.5, 0]); // v*, steps, lambda, G
 * ```
 */
export function spoState(gpu: Gpu, options: { lambda: number }): Tensor {
  const values = new Float32Array(SPO_STATE.size);
  values[SPO_STATE.lambda] = options.lambda;
  return fromHost(gpu, values, { shape: [SPO_STATE.size] });
}

/**
 * The loss of a (micro-)batch of pairs: F + lambda phi(G - v*), as the kernel's header states it.
 *
 * @param logps `[2P]`: the policy's summed log-probs, the chosen of all pairs, then the rejected
 * @param inputs reference, lengths, options, and where metrics and state lie
 * @returns `[1]`
 * @throws {ShapeError} when the inputs are not `[2P]`
 * @throws {RangeError} when a penalty or loss whose slope depends on the whole batch is asked for with several
 * micro-batches a step, or an input is given that no term reads or missing that one reads
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const vector = (...values: number[]) => fromHost(gpu, Float32Array.from(values), { shape: [values.length] });
 * const logps = vector(-2, -3); // one pair: chosen, rejected
 * const loss = pairLoss(logps, {
 *   reference: vector(-2, -3),
 *   lengths: vector(4, 5),
 *   metrics: fromHost(gpu, new Float32Array(METRICS_STRIDE), { shape: [1, METRICS_STRIDE] }),
 *   metricsRow: 0,
 *   state: spoState(gpu, { lambda: 0 }),
 *   pairLoss: { terms: [{ loss: "dpo", weight: 1, options: { beta: 0.1, label_smoothing: 0 } }] },
 *   spo: NO_PENALTY,
 *   microBatch: { pairsInBatch: 1, isFirst: true, isLast: true },
 * });
 * assert(Math.abs((await toHost(loss))[0] - Math.LN2) < 1e-6); // policy = reference
 * ```
 */
export function pairLoss(logps: Tensor, inputs: PairLossInputs): Tensor {
  const { gpu, shape: [sequences] } = logps;
  if (logps.shape.length !== 1 || sequences % 2 !== 0) {
    throw new ShapeError(
      `Cannot run pair_loss: expected logps of shape [2P], found [${logps.shape.join(", ")}]`,
    );
  }
  const pairs = sequences / 2;
  const { terms } = inputs.pairLoss;
  const extras = extrasOf(inputs, pairs);
  refuseTerms(inputs);
  expectShape("pair_loss", "reference", inputs.reference.shape, [sequences]);
  expectShape("pair_loss", "lengths", inputs.lengths.shape, [sequences]);
  refuseSplitBatch(inputs);
  const loss = empty(gpu, [1]);
  const dLogps = empty(gpu, [sequences]);
  const dPrompt = extras.prompt_logps ? empty(gpu, [pairs]) : undefined;
  const dPlain = inputs.plain ? empty(gpu, [sequences]) : undefined;
  const sorted = sortedPerPair(terms) * pairs;
  gpu.dispatch(pairLossKernel, {
    constants: {
      terms: terms.map(({ loss, divergence, referenceFree }) => ({
        loss,
        ...(divergence && divergence !== "reverse_kl" ? { divergence } : {}),
        ...(referenceFree ? { referenceFree } : {}),
      })),
      penalty: penaltyNow(inputs).penalty,
      extras: Object.keys(extras) as PairExtra[],
    },
    bindings: {
      logps: logps.range,
      reference: inputs.reference.range,
      lengths: inputs.lengths.range,
      ...Object.fromEntries(Object.entries(extras).map(([name, tensor]) => [name, tensor.range])),
      loss: loss.range,
      d_logps: dLogps.range,
      ...(dPrompt ? { d_prompt: dPrompt.range } : {}),
      ...(dPlain ? { d_plain: dPlain.range } : {}),
      ...(sorted > 0 ? { sorted: empty(gpu, [sorted]).range } : {}),
      metrics: inputs.metrics.range,
      state: inputs.state.range,
    },
    params: params(pairs, inputs),
    workgroups: 1,
  });
  const sides: [Tensor, Tensor][] = [[logps, dLogps]];
  if (inputs.promptLogps && dPrompt) sides.push([inputs.promptLogps, dPrompt]);
  if (inputs.plain && dPlain) sides.push([inputs.plain.logps, dPlain]);
  return record(gpu, {
    name: `pair_loss ${terms.map(({ loss }) => headName(loss)).join("+")}`,
    inputs: sides.map(([input]) => input),
    output: loss,
    // The forward already computed d loss / d logps: dX = dLoss times it.
    backward: (dLoss, sink) => {
      for (const [input, factor] of sides) {
        const target = sink.into(input);
        if (!target) continue;
        const [rows] = input.shape;
        gpu.dispatch(scaleByScalar, {
          constants: { saved: true },
          bindings: { d_y: dLoss.range, factor: factor.range, d_x: target.tensor.range },
          params: { rows, scale: 1, accumulate: target.accumulate ? 1 : 0 },
          workgroups: Math.ceil(rows / SEGMENT_WORKGROUP),
        });
      }
    },
  });
}

/** The optional inputs that were given, checked against the terms. */
function extrasOf(inputs: PairLossInputs, pairs: number): Partial<Record<PairExtra, Tensor>> {
  const { plain, pairLoss: { terms } } = inputs;
  const names = terms.map(({ loss }) => loss);
  // Sorted over the batch, a value is of no one pair: nothing to weigh.
  const weighs = names.some((loss) => loss !== "sft") && sortedPerPair(terms) === 0;
  const takesMargin = names.every((loss) => loss === "sft" || headOf(loss).takesMargin);
  const readers: [PairExtra, string, Tensor | undefined, { isRead: boolean; length: number }][] = [
    ["margins", "margins", inputs.margins, { isRead: takesMargin, length: pairs }],
    ["weights", "weights", inputs.weights, { isRead: weighs, length: pairs }],
    ["prompt_logps", "promptLogps", inputs.promptLogps, { isRead: names.some(readsPrompt), length: pairs }],
    ["plain_logps", "plain.logps", plain?.logps, { isRead: true, length: 2 * pairs }],
    ["plain_reference", "plain.reference", plain?.reference, { isRead: true, length: 2 * pairs }],
  ];
  const given: Partial<Record<PairExtra, Tensor>> = {};
  for (const [name, label, tensor, { isRead, length }] of readers) {
    if (!tensor) continue;
    if (!isRead) throw misfit(terms, `losses that read ${label}`);
    expectShape("pair_loss", label, tensor.shape, [length]);
    given[name] = tensor;
  }
  return given;
}

function readsPrompt(loss: PairHeadChoice): boolean {
  return headOf(loss).nll === "sequence";
}

/** What the terms lack, or must not have. */
function refuseTerms({ pairLoss: { terms }, chosenTokens, promptLogps, promptTokens }: PairLossInputs): void {
  const names = terms.map(({ loss }) => headName(loss));
  if (terms.length < 1 || terms.length > MAX_TERMS || new Set(names).size < names.length) {
    throw misfit(terms, `1 to ${MAX_TERMS} terms, none of them twice`);
  }
  if (chosenTokens === undefined && terms.some(({ loss }) => headOf(loss).nll)) {
    throw misfit(terms, "chosenTokens with a negative log-likelihood");
  }
  if ((promptLogps === undefined) !== (promptTokens === undefined)) {
    throw misfit(terms, "promptLogps and promptTokens together");
  }
  for (const term of terms) {
    const { takesDivergence } = headOf(term.loss);
    if (!takesDivergence && (term.referenceFree || (term.divergence ?? "reverse_kl") !== "reverse_kl")) {
      throw misfit(terms, `a loss on the log-ratios alone with an f-divergence or without reference`);
    }
    const [wanted, found] = [termOptions(term), Object.keys(term.options)];
    if (wanted.some((name) => term.options[name] === undefined) || wanted.length !== found.length) {
      throw misfit(
        terms,
        `options ${wanted.join(", ")} of ${headName(term.loss)} (${found.join(", ")} given)`,
      );
    }
  }
}

function misfit(terms: readonly PairLossTerm[], expected: string): RangeError {
  return new RangeError(
    `Cannot run pair_loss: expected ${expected}, found terms ${
      terms.map(({ loss }) => headName(loss)).join(", ")
    }`,
  );
}

/** The numbers of the terms, as the kernel names them. */
function termParams(terms: readonly PairLossTerm[]): Record<string, number> {
  return Object.fromEntries(terms.flatMap((term, index) => [
    [`t${index}_weight`, term.weight],
    ...termOptions(term).map((name) => [`t${index}_${name}`, term.options[name]]),
  ]));
}

function params(
  pairs: number,
  inputs: PairLossInputs,
): Record<string, Scalar> {
  const { pairLoss, spo, microBatch, metricsRow, chosenTokens = 1, promptTokens = 0 } = inputs;
  const { pairsInBatch } = microBatch;
  return {
    pairs,
    inverse_pairs: derive([pairsInBatch], (count) => 1 / count),
    chosen_scale: derive([pairsInBatch, chosenTokens], (count, tokens) => count / tokens),
    sequence_scale: derive(
      [pairsInBatch, chosenTokens, promptTokens],
      (count, tokens, more) => count / (tokens + more),
    ),
    ...termParams(pairLoss.terms),
    rho: ofPenalty(spo, ({ rho }) => rho),
    margin: ofPenalty(spo, ({ margin }) => margin),
    ...penaltyParams(spo),
    metrics_row: metricsRow,
    is_first: flagScalar(microBatch.isFirst),
    is_last: flagScalar(microBatch.isLast),
  };
}

/** What every kernel with a penalty reads of it. */
export function penaltyParams(spo: PairLossInputs["spo"]): Record<string, Scalar> {
  return {
    epsilon: ofPenalty(spo, ({ epsilon }) => epsilon),
    lambda: ofPenalty(spo, ({ lambda }) => (lambda === "dual" ? -1 : lambda)),
    dual_rate: ofPenalty(spo, ({ dualRate }) => dualRate),
    v_star: ofPenalty(spo, ({ vStar }) => (typeof vStar === "number" ? vStar : 0)),
    v_star_steps: ofPenalty(spo, ({ vStar }) => (typeof vStar === "number" ? 0 : vStar.initialSteps)),
  };
}

function ofPenalty(spo: PairLossInputs["spo"], number: (spo: SpoPenaltyOptions) => number): Scalar {
  if (typeof spo !== "function") return number(spo);
  const { penalty } = spo();
  return () => number(samePenalty(spo(), penalty));
}

/** The kernel of a recorded graph is that of one penalty. */
function samePenalty(spo: SpoPenaltyOptions, penalty: PenaltyName): SpoPenaltyOptions {
  if (spo.penalty !== penalty) {
    throw new Error(`Cannot replay a graph: expected the ${penalty} penalty, found ${spo.penalty}`);
  }
  return spo;
}

/** The penalty that a recording is made for. */
export function penaltyNow({ spo }: Pick<PairLossInputs, "spo">): SpoPenaltyOptions {
  return typeof spo === "function" ? spo() : spo;
}

/**
 * With a curved phi or a coupled batch, the first micro-batch's gradient would need the last.
 *
 * @throws {RangeError} when there are several micro-batches then
 */
export function refuseSplitBatch(
  inputs: Pick<PairLossInputs, "spo"> & {
    readonly microBatch: Pick<MicroBatch, "isFirst" | "isLast">;
    readonly pairLoss?: PairLossOptions;
  },
): void {
  const { isFirst, isLast } = inputs.microBatch;
  if (valueOf(flagScalar(isFirst)) === 1 && valueOf(flagScalar(isLast)) === 1) return;
  const { penalty } = penaltyNow(inputs);
  const operation = inputs.pairLoss ? "pair_loss" : "spo_penalty";
  const coupled = inputs.pairLoss?.terms.find(({ loss }) => headOf(loss).batch)?.loss;
  const name = penalty === "hinge" || penalty === "quadratic"
    ? `the ${penalty} penalty`
    : coupled && headName(coupled);
  if (name) {
    throw new RangeError(
      `Cannot run ${operation}: expected one micro-batch a step with ${name}, whose slope depends ` +
        "on the whole batch, found several",
    );
  }
}
