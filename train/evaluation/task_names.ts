/**
 * What can be measured, by name: for flags, which need nothing of how.
 * @module
 */

/** Kinds of evaluation. */
export const EVALUATION_TASKS = ["preference", "perplexity", "gsm8k", "arithmetic"] as const;

/** A kind of evaluation. */
export type EvaluationTask = (typeof EVALUATION_TASKS)[number];
