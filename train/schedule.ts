/**
 * Learning rate and SPO's lambda as functions of the step.
 * @module
 */

/** Shapes of the learning rate after warm-up. */
export const LEARNING_RATE_SCHEDULES = [
  "cosine",
  "linear",
  "constant",
] as const satisfies readonly LearningRateSchedule["kind"][];

/** A learning-rate schedule. */
export interface LearningRateSchedule {
  /** Its shape after warm-up. */
  readonly kind: "cosine" | "linear" | "constant";
  /** The highest rate. */
  readonly learningRate: number;
  /** Steps over which the rate rises linearly to it. */
  readonly warmupSteps: number;
  /** Steps of the whole run; cosine and linear reach zero one step later. */
  readonly maxSteps: number;
}

/**
 * The learning rate of a step, as transformers' schedulers give it.
 *
 * @param schedule its shape
 * @param step from 1
 * @returns the rate
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const schedule = { kind: "cosine", learningRate: 1, warmupSteps: 2, maxSteps: 6 } as const;
 * assert.deepEqual([1, 2, 3, 5].map((step) => learningRateAt(schedule, step)), [0, 0.5, 1, 0.5]);
 * ```
 */
export function learningRateAt(schedule: LearningRateSchedule, step: number): number {
  const { kind, learningRate, warmupSteps, maxSteps } = schedule;
  const done = step - 1;
  if (done < warmupSteps) return learningRate * done / warmupSteps;
  const progress = Math.min(1, (done - warmupSteps) / Math.max(1, maxSteps - warmupSteps));
  switch (kind) {
    case "constant":
      return learningRate;
    case "linear":
      return learningRate * (1 - progress);
    case "cosine":
      return learningRate * 0.5 * (1 + Math.cos(Math.PI * progress));
  }
}

/** Ways in which SPO's lambda may change. */
export const LAMBDA_SCHEDULES = ["constant", "linear", "geometric", "dual"] as const;

/** SPO's lambda over the steps. */
export interface LambdaSchedule {
  readonly kind: typeof LAMBDA_SCHEDULES[number];
  /** Where it starts. */
  readonly lambda: number;
  /** Where linear and geometric growth end. */
  readonly lambdaEnd: number;
  /** Steps of that growth. */
  readonly lambdaSteps: number;
}

/**
 * lambda of a step: constant; lambda + (end - lambda) t; lambda (end / lambda)^t; with t = min(1, (step - 1) / steps).
 *
 * @param schedule its shape
 * @param step from 1
 * @returns lambda, or "dual" where the GPU keeps it
 */
export function lambdaAt(schedule: LambdaSchedule, step: number): number | "dual" {
  const { kind, lambda, lambdaEnd, lambdaSteps } = schedule;
  const t = Math.min(1, (step - 1) / lambdaSteps);
  switch (kind) {
    case "constant":
      return lambda;
    case "linear":
      return lambda + (lambdaEnd - lambda) * t;
    case "geometric":
      return lambda * (lambdaEnd / lambda) ** t;
    case "dual":
      return "dual";
  }
}
