/**
 * What an evaluation takes, held against the budget before weights are read.
 * @module
 */
import { type MemoryPlan, requireFit } from "../plan.ts";

/**
 * Refuses an evaluation over its budget.
 *
 * @param plan of what it does
 * @throws {PlanError} naming budget and total
 */
export function refuseEvaluationOverBudget(plan: MemoryPlan): void {
  requireFit(plan, { action: "evaluate", advice: "fewer --batch-tokens and --dtype f16 take less" });
}
