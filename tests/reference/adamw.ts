/**
 * AdamW in plain f64, as PyTorch computes it. Algorithm 2, arXiv 1711.05101.
 *
 * @module
 */
import { requireLengths } from "./shape.ts";

/** Tensors of one update. */
export interface AdamwInputs {
  /** `[length]` parameters. */
  parameter: Float64Array;
  /** `[length]` gradient. */
  gradient: Float64Array;
  /** `[length]` first moment, zero before the first step. */
  m: Float64Array;
  /** `[length]` second moment, zero before the first step. */
  v: Float64Array;
}

/** Settings of one update. */
export interface AdamwDims {
  /** Elements of each tensor. */
  length: number;
  /** Learning rate of this step. */
  learningRate: number;
  /** Decay of the first moment. */
  beta1: number;
  /** Decay of the second moment. */
  beta2: number;
  /** Added to the root of the second moment, after its bias correction. */
  eps: number;
  /** Decoupled weight decay. */
  weightDecay: number;
  /** This step, from 1. */
  step: number;
}

/**
 * One update: p <- p (1 - lr wd), m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2,
 * p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
 *
 * @param inputs Parameters, gradient and moments; they stay as they are.
 * @param dims Settings.
 * @returns New parameter, m and v, each `[length]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(
  inputs: AdamwInputs,
  dims: AdamwDims,
): { parameter: Float64Array; m: Float64Array; v: Float64Array } {
  const { length, learningRate, beta1, beta2, eps, weightDecay, step } = dims;
  const { gradient } = inputs;
  requireLengths("adamw", {
    parameter: [inputs.parameter, length],
    gradient: [gradient, length],
    m: [inputs.m, length],
    v: [inputs.v, length],
  });
  const m = inputs.m.map((value, i) => beta1 * value + (1 - beta1) * gradient[i]);
  const v = inputs.v.map((value, i) => beta2 * value + (1 - beta2) * gradient[i] ** 2);
  const correction1 = 1 - beta1 ** step;
  const correction2 = 1 - beta2 ** step;
  const parameter = inputs.parameter.map((value, i) => {
    const direction = (m[i] / correction1) / (Math.sqrt(v[i] / correction2) + eps);
    return value * (1 - learningRate * weightDecay) - learningRate * direction;
  });
  return { parameter, m, v };
}
