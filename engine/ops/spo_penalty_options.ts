/**
 * What the SPO penalty is told for one step: plain data, which a command line can read without a device's code.
 * @module
 */
import type { PenaltyName } from "../../shaders/spo_fragments.ts";

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
