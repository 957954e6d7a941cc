/**
 * Whether a pairwise loss computes what it should, for losses with a head of their own.
 * @module
 */
import { checkGradient, type GradientReport } from "../../engine/check_gradient.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY, pairLoss, spoState } from "../../engine/ops/pair_loss.ts";
import { fromHost } from "../../engine/tensor.ts";
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import type { ResolvedPairLoss } from "./pair_loss.ts";

/** What a loss sees of a pair, as its head does: sums of log-probs over an answer, in nats. */
export interface PairSides {
  /** Of the chosen answer, under the policy. */
  readonly sW: number;
  /** Of the rejected answer, under the policy. */
  readonly sL: number;
  /** Of the chosen answer, under the reference. */
  readonly refW: number;
  /** Of the rejected answer, under the reference. */
  readonly refL: number;
  /** sW - refW */
  readonly c: number;
  /** sL - refL */
  readonly r: number;
  /** Tokens of the chosen answer. */
  readonly nW: number;
  /** Tokens of the rejected answer. */
  readonly nL: number;
}

/** Summed log-probs and lengths, chosen and rejected, of pairs won and lost, narrowly and by far, short and long. */
const CASES = [
  { policy: [-2, -3], reference: [-2, -3], tokens: [4, 5] },
  { policy: [-4, -6.5], reference: [-4.75, -5.5], tokens: [3, 3] },
  { policy: [-9, -4], reference: [-6, -7], tokens: [12, 2] },
  { policy: [-30, -52], reference: [-41, -38], tokens: [17, 40] },
  { policy: [-61, -44], reference: [-47, -58], tokens: [64, 31] },
  { policy: [-0.25, -0.5], reference: [-0.375, -0.125], tokens: [1, 2] },
];

/**
 * Checks a loss's value, and its slopes against central differences of the same in f64, on pairs of many kinds.
 *
 * @param gpu the device, on which no tape records
 * @param loss with its options filled in; of single pairs, without a likelihood
 * @param value the loss of one pair in f64, without margin and weight
 * @returns the largest errors of the value and of the gradient of the log-probs (`logps`)
 * @throws {GradientError} naming the first element that is wrong
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 * import { PAIR_LOSSES } from "./registry.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const dpo = PAIR_LOSSES.dpo.resolve({ beta: 0.5 });
 * const { gradients } = await checkPairLoss(gpu, dpo, ({ c, r }) => Math.log1p(Math.exp(-0.5 * (c - r))));
 * assert(gradients.logps < 1e-5);
 * ```
 */
export function checkPairLoss(
  gpu: Gpu,
  loss: ResolvedPairLoss,
  value: (pair: PairSides) => number,
): Promise<GradientReport<"logps">> {
  const pairs = CASES.length;
  const sides = (of: (one: typeof CASES[number]) => number[]) =>
    Float32Array.from([...CASES.map((one) => of(one)[0]), ...CASES.map((one) => of(one)[1])]);
  const [reference, lengths] = [sides((one) => one.reference), sides((one) => one.tokens)];
  const sidesOf = (logps: Float64Array, pair: number): PairSides => {
    const [sW, sL] = [logps[pair], logps[pairs + pair]];
    const [refW, refL] = [reference[pair], reference[pairs + pair]];
    const [nW, nL] = [lengths[pair], lengths[pairs + pair]];
    return { sW, sL, refW, refL, c: sW - refW, r: sL - refL, nW, nL };
  };
  const vector = (values: Float32Array<ArrayBuffer>) => fromHost(gpu, values, { shape: [values.length] });
  return checkGradient(gpu, {
    inputs: { logps: { shape: [2 * pairs], values: sides((one) => one.policy) } },
    run: ({ logps }) =>
      pairLoss(logps, {
        reference: vector(reference),
        lengths: vector(lengths),
        metrics: fromHost(gpu, new Float32Array(METRICS_STRIDE), { shape: [1, METRICS_STRIDE] }),
        metricsRow: 0,
        state: spoState(gpu, { lambda: 0 }),
        pairLoss: loss.head,
        spo: NO_PENALTY,
        microBatch: { pairsInBatch: pairs, isFirst: true, isLast: true },
      }),
    reference: ({ logps }) => {
      const values = CASES.map((_, pair) => value(sidesOf(logps, pair)));
      return [values.reduce((total, one) => total + one, 0) / pairs];
    },
  });
}
