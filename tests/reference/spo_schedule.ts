/**
 * What changes from step to step around the SPO penalty: its weight lambda, and the value v* it measures against.
 *
 * @module
 */

/** Weight as a function of the step alone: constant, or grown from `start` to `end` over `steps` and then held. */
export type LambdaSchedule =
  | { kind: "constant"; lambda: number }
  | { kind: "linear" | "geometric"; start: number; end: number; steps: number };

/**
 * Weight of the penalty at a step.
 *
 * @param schedule Kind and bounds.
 * @param step Step, from 0.
 * @returns Linear: start + (end - start) t. Geometric: start (end / start)^t. Both with t = min(1, step / steps).
 * @throws {RangeError} When a geometric schedule does not run between positive numbers.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(lambdaAt({ kind: "geometric", start: 1, end: 4, steps: 2 }, 1), 2);
 * ```
 */
export function lambdaAt(schedule: LambdaSchedule, step: number): number {
  if (schedule.kind === "constant") return schedule.lambda;
  const { kind, start, end, steps } = schedule;
  const progress = Math.min(1, step / steps);
  if (kind === "linear") return start + (end - start) * progress;
  if (!(start > 0 && end > 0)) {
    throw new RangeError(
      `Cannot grow lambda geometrically: expected positive bounds, found ${start} and ${end}`,
    );
  }
  return start * (end / start) ** progress;
}

/**
 * Dual ascent: lambda <- max(0, lambda + eta (gap - epsilon)), so the weight grows outside the region and decays inside.
 *
 * @param lambda Weight of the last step.
 * @param options.eta Step size.
 * @param options.gap G - v* of the last step.
 * @param options.epsilon Radius of the safe alignment region.
 * @returns Weight of the next step.
 */
export function dualLambda(lambda: number, options: { eta: number; gap: number; epsilon: number }): number {
  return Math.max(0, lambda + options.eta * (options.gap - options.epsilon));
}

/** v* = "initial" in the making: an exponential moving average of G that freezes after `window` steps. */
export interface InitialValue {
  /** The average so far, v*. */
  value: number;
  /** Steps it has seen. */
  steps: number;
}

/**
 * Takes the lower level's value of one more step into v* = "initial". The step's own gap uses the result, so the gap of
 * the first step is 0.
 *
 * @param state Average so far, undefined before the first step.
 * @param options.lowerLevel G of this step.
 * @param options.decay Weight of the past, 0.9 by default.
 * @param options.window Steps that count, 10 by default; later ones change nothing.
 * @returns The new average.
 */
export function updateInitialValue(
  state: InitialValue | undefined,
  options: { lowerLevel: number; decay?: number; window?: number },
): InitialValue {
  const { lowerLevel, decay = 0.9, window = 10 } = options;
  if (state === undefined) return { value: lowerLevel, steps: 1 };
  if (state.steps >= window) return state;
  return { value: decay * state.value + (1 - decay) * lowerLevel, steps: state.steps + 1 };
}
