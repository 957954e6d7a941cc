/**
 * Preference losses on pairs, with Stable Preference Optimization around them.
 * @module
 */
import {
  pairLoss as pairLossKernel,
  type PairLossName,
  type PenaltyName,
  SPO_STATE,
} from "../../shaders/pair_loss.ts";
import { scaleByScalar, SEGMENT_WORKGROUP } from "../../shaders/reduce.ts";
import type { Gpu } from "../gpu.ts";
import { derive, type Flag, flagScalar, type Scalar, valueOf } from "../queue.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, fromHost, type Tensor } from "../tensor.ts";

export type { PairLossName, PenaltyName };

/** The pairwise loss and its numbers. */
export interface PairLossOptions {
  /** Which head of the kernel. */
  readonly loss: PairLossName;
  /** Strength of the preference. */
  readonly beta: number;
  /** dpo: label smoothing; ipo: 1 to average over tokens, else 0; simpo: gamma; hinge: not used. */
  readonly option: number;
}

/** The SPO penalty for one step. See docs/spo.md for the formulation. */
export interface SpoPenaltyOptions {
  /** phi. */
  readonly penalty: PenaltyName;
  /** This step's lambda; "dual" takes it from the state. */
  readonly lambda: number | "dual";
  /** eta of the dual update. */
  readonly dualRate: number;
  /** Slack of the constraint, in nats per token. */
  readonly epsilon: number;
  /** v*: a number, or the exponential mean of G over so many first steps. */
  readonly vStar: number | { readonly initialSteps: number };
  /** Weight of the absolute-improvement regularizer R. */
  readonly rho: number;
  /** m in R. */
  readonly margin: number;
}

/**
 * No lower level: the plain pairwise loss.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const likelihood: SpoPenaltyOptions = { ...NO_PENALTY, penalty: "linear", lambda: 0.5 };
 * assert.deepEqual([likelihood.epsilon, likelihood.rho], [0, 0]);
 * ```
 */
export const NO_PENALTY: SpoPenaltyOptions = {
  penalty: "none",
  lambda: 0,
  dualRate: 0,
  epsilon: 0,
  vStar: 0,
  rho: 0,
  margin: 0,
};

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
  /** `[rows, METRICS_STRIDE]`: receives {@link PAIR_METRICS}. */
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
 * The numbers that SPO carries from step to step: v*, steps so far, lambda, G.
 *
 * @param gpu the device
 * @param options.lambda where the dual variable starts
 * @returns `[4]`; the caller releases it
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const state = spoState(gpu, { lambda: 0.5 });
 * assert.deepEqual([...await toHost(state)], [0, 0, 0.5, 0]);
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
 * @throws {RangeError} when a penalty whose slope depends on G is asked for with several micro-batches a step
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
 *   pairLoss: { loss: "dpo", beta: 0.1, option: 0 },
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
  expectShape("pair_loss", "reference", inputs.reference.shape, [sequences]);
  expectShape("pair_loss", "lengths", inputs.lengths.shape, [sequences]);
  refuseSplitPenalty("pair_loss", inputs);
  const loss = empty(gpu, [1]);
  const dLogps = empty(gpu, [sequences]);
  gpu.dispatch(pairLossKernel, {
    constants: { loss: inputs.pairLoss.loss, penalty: penaltyNow(inputs).penalty },
    bindings: {
      logps: logps.range,
      reference: inputs.reference.range,
      lengths: inputs.lengths.range,
      loss: loss.range,
      d_logps: dLogps.range,
      metrics: inputs.metrics.range,
      state: inputs.state.range,
    },
    params: params(sequences / 2, inputs),
    workgroups: 1,
  });
  return record(gpu, {
    name: `pair_loss ${inputs.pairLoss.loss}`,
    inputs: [logps],
    output: loss,
    // The forward already computed d loss / d logps: dX = dLoss times it.
    backward: (dLoss, sink) => {
      const target = sink.into(logps);
      if (!target) return;
      gpu.dispatch(scaleByScalar, {
        constants: { saved: true },
        bindings: { d_y: dLoss.range, factor: dLogps.range, d_x: target.tensor.range },
        params: { rows: sequences, scale: 1, accumulate: target.accumulate ? 1 : 0 },
        workgroups: Math.ceil(sequences / SEGMENT_WORKGROUP),
      });
    },
  });
}

function params(
  pairs: number,
  { pairLoss, spo, microBatch, metricsRow }: PairLossInputs,
): Record<string, Scalar> {
  return {
    pairs,
    inverse_pairs: derive([microBatch.pairsInBatch], (count) => 1 / count),
    beta: pairLoss.beta,
    option: pairLoss.option,
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

/** @throws {RangeError} with a curved phi and several micro-batches: the first one's gradient would need the G of the last */
export function refuseSplitPenalty(
  operation: string,
  inputs: Pick<PairLossInputs, "spo"> & { readonly microBatch: Pick<MicroBatch, "isFirst" | "isLast"> },
): void {
  const { isFirst, isLast } = inputs.microBatch;
  const { penalty } = penaltyNow(inputs);
  const isWhole = valueOf(flagScalar(isFirst)) === 1 && valueOf(flagScalar(isLast)) === 1;
  if (!isWhole && (penalty === "hinge" || penalty === "quadratic")) {
    throw new RangeError(
      `Cannot run ${operation}: expected one micro-batch a step with the ${penalty} penalty, whose slope depends ` +
        "on the whole batch, found several",
    );
  }
}
