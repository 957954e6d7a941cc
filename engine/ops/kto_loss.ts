/**
 * Losses on answers that are good or bad each by itself.
 * @module
 */
import { ktoLoss as ktoLossKernel } from "../../shaders/kto_loss.ts";
import { scaleByScalar, SEGMENT_WORKGROUP } from "../../shaders/reduce.ts";
import { derive, type Flag, flagScalar, type Scalar, valueOf } from "../queue.ts";
import { expectShape } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, type Tensor } from "../tensor.ts";
import { inverseOrZero } from "./sequence_statistics.ts";

/** Log-probs of mismatched sequences, whose mean log-ratio estimates the KL divergence. */
export interface KlLogps {
  /** `[N]`: under the policy; no gradient reaches them. */
  readonly policy: Tensor;
  /** `[N]`: under the reference. */
  readonly reference: Tensor;
}

/** What a call needs besides the policy's log-probs. */
export interface KtoLossInputs {
  /** `[N]`: the reference's summed log-probs. */
  readonly reference: Tensor;
  /** `[N]` f32: 1 for a good answer, 0 for a bad one. */
  readonly desirable: Tensor;
  /** Where rewards are measured from (KTO); from 0 where there is none (unpaired APO zero). */
  readonly kl?: KlLogps;
  /** Strength of the preference. */
  readonly beta: number;
  /** Factor of the good answers' losses. */
  readonly desirableWeight: number;
  /** Factor of the bad answers' losses. */
  readonly undesirableWeight: number;
  /** Answers of the whole step, and the good ones among them. */
  readonly batch: { readonly answers: Scalar; readonly chosen: Scalar };
  /** `[rows, METRICS_STRIDE]`: receives `KTO_METRICS` of the shader. */
  readonly metrics: Tensor;
  /** The row of this step. */
  readonly metricsRow: Scalar;
  /** The step's metrics start anew. */
  readonly isFirst: Flag;
  /** The step's metrics are complete after it. */
  readonly isLast: Flag;
}

/**
 * The loss of a (micro-)batch of labelled answers, as the kernel's header states it: KTO (arXiv 2402.01306) with
 * `kl`, the unpaired APO zero (arXiv 2408.06266) without.
 *
 * @param logps `[N]`: the policy's summed log-probs
 * @param inputs reference, labels, numbers, and where metrics lie
 * @returns `[1]`
 * @throws {ShapeError} when an input is not `[N]`
 * @throws {RangeError} when the KL estimate, which is of the whole batch, is asked for with several micro-batches a step,
 * or with one answer, which has no other to be mismatched with
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
 * const loss = ktoLoss(vector(-2, -3), {
 *   reference: vector(-2, -3),
 *   desirable: vector(1, 0),
 *   kl: { policy: vector(-7, -8), reference: vector(-7, -8) },
 *   ...{ beta: 0.1, desirableWeight: 1, undesirableWeight: 1 },
 *   batch: { answers: 2, chosen: 1 },
 *   metrics: fromHost(gpu, new Float32Array(METRICS_STRIDE), { shape: [1, METRICS_STRIDE] }),
 *   ...{ metricsRow: 0, isFirst: true, isLast: true },
 * });
 * assert(Math.abs((await toHost(loss))[0] - 0.5) < 1e-6); // policy = reference
 * ```
 */
export function ktoLoss(logps: Tensor, inputs: KtoLossInputs): Tensor {
  expectShape("kto_loss", "logps", logps.shape, [-1]);
  const { gpu, shape: [count] } = logps;
  const { reference, desirable, kl, batch, metrics } = inputs;
  expectShape("kto_loss", "reference", reference.shape, [count]);
  expectShape("kto_loss", "desirable", desirable.shape, [count]);
  if (kl) {
    expectShape("kto_loss", "the KL sequences' log-probs", kl.policy.shape, [count]);
    expectShape("kto_loss", "the KL sequences' reference", kl.reference.shape, [count]);
    refuseUncoupled(count, inputs);
  }
  const loss = empty(gpu, [1]);
  const dLogps = empty(gpu, [count]);
  gpu.dispatch(ktoLossKernel, {
    constants: { kl: kl !== undefined },
    bindings: {
      logps: logps.range,
      reference: reference.range,
      desirable: desirable.range,
      ...(kl ? { kl_logps: kl.policy.range, kl_reference: kl.reference.range } : {}),
      loss: loss.range,
      d_logps: dLogps.range,
      metrics: metrics.range,
    },
    params: {
      count,
      inverse_count: derive([batch.answers], (answers) => 1 / answers),
      inverse_chosen: derive([batch.chosen], inverseOrZero),
      inverse_rejected: derive(
        [batch.answers, batch.chosen],
        (answers, chosen) => inverseOrZero(answers - chosen),
      ),
      beta: inputs.beta,
      desirable_weight: inputs.desirableWeight,
      undesirable_weight: inputs.undesirableWeight,
      metrics_row: inputs.metricsRow,
      is_first: flagScalar(inputs.isFirst),
    },
    workgroups: 1,
  });
  return record(gpu, {
    name: "kto_loss",
    inputs: [logps],
    output: loss,
    // The forward already computed d loss / d logps: dX = dLoss times it.
    backward: (dLoss, sink) => {
      const target = sink.into(logps);
      if (!target) return;
      gpu.dispatch(scaleByScalar, {
        constants: { saved: true },
        bindings: { d_y: dLoss.range, factor: dLogps.range, d_x: target.tensor.range },
        params: { rows: count, scale: 1, accumulate: target.accumulate ? 1 : 0 },
        workgroups: Math.ceil(count / SEGMENT_WORKGROUP),
      });
    },
  });
}

/** The estimate is a mean over the whole batch, of prompts with other prompts' answers. */
function refuseUncoupled(count: number, { isFirst, isLast }: KtoLossInputs): void {
  if (valueOf(flagScalar(isFirst)) !== 1 || valueOf(flagScalar(isLast)) !== 1) {
    throw new RangeError(
      "Cannot run kto_loss: expected one micro-batch a step with a KL estimate, which is of the whole batch, found several",
    );
  }
  if (count < 2) {
    throw new RangeError(
      "Cannot run kto_loss: expected at least two answers with a KL estimate, which pairs a prompt with another's answer, " +
        `found ${count}`,
    );
  }
}
