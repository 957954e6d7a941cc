/**
 * KTO and the unpaired APO zero in plain f64.
 *
 * @module
 */
import { sigmoid } from "./log_sigmoid.ts";

/** Summed log-probs of N answers. */
export interface KtoInputs {
  /** `[N]`: under the policy. */
  readonly s: Float64Array;
  /** `[N]`: under the reference. */
  readonly ref: Float64Array;
  /** `[N]`: whether each is a good answer. */
  readonly desirable: readonly boolean[];
  /** `[N]` each: of mismatched sequences, for KTO. */
  readonly kl?: { readonly policy: Float64Array; readonly reference: Float64Array };
}

/** The loss's numbers. */
export interface KtoDims {
  readonly beta: number;
  readonly desirableWeight: number;
  readonly undesirableWeight: number;
}

/** z0 = max(0, mean over the batch of the mismatched log-ratios), or 0; no gradient passes it. */
export function klEstimate({ kl }: KtoInputs): number {
  if (!kl) return 0;
  const sum = kl.policy.reduce((total, value, i) => total + value - kl.reference[i], 0);
  return Math.max(0, sum / kl.policy.length);
}

/** The loss as the paper has it, and its metrics under TRL's names. */
export function forward(inputs: KtoInputs, dims: KtoDims): { loss: number; metrics: Record<string, number> } {
  const { s, ref, desirable } = inputs;
  const { beta, desirableWeight, undesirableWeight } = dims;
  const z0 = klEstimate(inputs);
  const delta = s.map((value, i) => value - ref[i]);
  const losses = Array.from(
    delta,
    (x, i) =>
      desirable[i]
        ? desirableWeight * (1 - sigmoid(beta * (x - z0)))
        : undesirableWeight * (1 - sigmoid(beta * (z0 - x))),
  );
  const meanWhere = (isGood: boolean, values: Float64Array) => {
    const picked = values.filter((_, i) => desirable[i] === isGood);
    return picked.length > 0 ? picked.reduce((total, value) => total + value, 0) / picked.length : 0;
  };
  const loss = losses.reduce((total, value) => total + value, 0) / s.length;
  const [chosen, rejected] = [true, false].map((isGood) => beta * meanWhere(isGood, delta));
  return {
    loss,
    metrics: {
      loss,
      "rewards/chosen": chosen,
      "rewards/rejected": rejected,
      "rewards/margins": chosen - rejected,
      "logps/chosen": meanWhere(true, s),
      "logps/rejected": meanWhere(false, s),
      "displacement/chosen_delta": meanWhere(true, delta),
      "displacement/rejected_delta": meanWhere(false, delta),
      "displacement/fraction": meanWhere(true, delta.map((x) => (x < 0 ? 1 : 0))),
      "examples/chosen": desirable.filter((isGood) => isGood).length,
      "examples/rejected": desirable.filter((isGood) => !isGood).length,
      kl: z0,
    },
  };
}

/** dL/ds: -w_D beta s' of the good, +w_U beta s' of the bad answers. */
export function backward(
  inputs: KtoInputs,
  dims: KtoDims,
  { dLoss }: { dLoss: number },
): { dS: Float64Array } {
  const { s, ref, desirable } = inputs;
  const z0 = klEstimate(inputs);
  return {
    dS: s.map((value, i) => {
      const t = dims.beta * (value - ref[i] - z0);
      const weight = desirable[i] ? -dims.desirableWeight : dims.undesirableWeight;
      return dLoss * weight * dims.beta * sigmoid(t) * sigmoid(-t) / s.length;
    }),
  };
}
