/**
 * The optimizer's defaults, which the command line names in its help without loading the engine.
 * @module
 */
import type { OptimizerOptions } from "./optimizer.ts";

/**
 * AdamW as `deno task train` has it: PyTorch's moments, no decay, and clipping as TRL does.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const decayed = { ...DEFAULT_OPTIMIZER, weightDecay: 0.01 };
 * assert.deepEqual([decayed.beta1, decayed.beta2], [0.9, 0.999]);
 * ```
 */
export const DEFAULT_OPTIMIZER: OptimizerOptions = {
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  weightDecay: 0,
  maxGradNorm: 1,
};
