/**
 * What an evaluation takes, held against the budget before weights are read.
 * @module
 */
import { fits, formatBytes, type MemoryPlan, PlanError } from "../plan.ts";

/**
 * Refuses an evaluation over its budget.
 *
 * @param plan of what it does
 * @throws {PlanError} naming budget and total
 */
export function refuseEvaluationOverBudget(plan: MemoryPlan): void {
  if (fits(plan)) return;
  throw new PlanError(
    `Cannot evaluate: expected at most ${formatBytes(plan.budgetBytes)} of GPU memory (the budget), found ` +
      `${formatBytes(plan.totalBytes)} planned; fewer --batch-tokens and --dtype f16 take less`,
  );
}
