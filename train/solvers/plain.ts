/**
 * A step without a lower level: one gradient, one update.
 * @module
 */
import { NO_REPORT, type Solver, type SolverContext, STATELESS } from "./solver.ts";

/**
 * One backward over the step's micro-batches, one update.
 *
 * @param context of the run
 */
export function plainSolver({ objective, optimizer, batches, ring }: SolverContext): Solver {
  const { trained } = objective.model;
  return {
    ...NO_REPORT,
    ...STATELESS,
    step({ step, metricsRow, learningRate }) {
      trained.zeroGradients();
      batches.run(step, metricsRow);
      optimizer.step(learningRate, ring.gradNorm(metricsRow));
    },
    [Symbol.dispose]() {},
  };
}
