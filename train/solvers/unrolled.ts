/**
 * SPO with a lower level of one step: theta~ = theta - alpha grad G(theta), and the gradient of the upper level there.
 * @module
 */
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import { createHypergradient } from "./hypergradient.ts";
import { createInnerSteps } from "./inner_steps.ts";
import { createLowerLevel, type LowerLevelOptions } from "./lower_level.ts";
import { innerReport, type Solver, type SolverContext, type SolverStep, STATELESS } from "./solver.ts";

/** Settings of the unrolled lower level. */
export interface UnrolledOptions {
  /** alpha. */
  readonly innerLearningRate: number;
  /** grad F(theta~) itself, or multiplied by (I - alpha H) as the chain rule has it. */
  readonly hypergradient: "first-order" | "hvp";
  /** How far H's central differences reach. */
  readonly hvpEpsilon: number;
  /** The lower level's data. */
  readonly lowerLevel: LowerLevelOptions;
}

/** Rows of the lower level's metrics: G, and what differences leave behind. */
const ROWS = { inner: 0, unread: 1, count: 2 } as const;

/**
 * The unrolled solver of a run.
 *
 * @param context of the run
 * @param options settings
 * @throws {TypeError} in f16
 */
export function unrolledSolver(context: SolverContext, options: UnrolledOptions): Solver {
  const { objective, optimizer, batches, ring } = context;
  const { trained, gpu } = objective.model;
  const { innerLearningRate: learningRate, hvpEpsilon: epsilon } = options;
  const stack = new DisposableStack();
  const lower = stack.use(createLowerLevel(context, { ...options.lowerLevel, rows: ROWS.count }));
  const inner = stack.use(createInnerSteps(trained, { learningRate }));
  const now = { step: 0 };
  const hypergradient = options.hypergradient === "hvp"
    ? stack.use(createHypergradient(trained, {
      ...{ learningRate, epsilon, inner },
      lowerGradient: (sign) => lower.run(now.step, { row: ROWS.unread, sign }),
    }))
    : undefined;
  const report = innerReport(objective);
  return {
    ...report,
    ...STATELESS,
    step({ step, metricsRow, learningRate }: SolverStep) {
      now.step = step;
      inner.save();
      trained.zeroGradients();
      lower.run(step, { row: ROWS.inner });
      gpu.queue.copy(
        report.number(lower.metrics, ROWS.inner * METRICS_STRIDE),
        report.number(ring.tensor, metricsRow * METRICS_STRIDE + report.index),
      );
      inner.descend();
      trained.zeroGradients();
      batches.run(step, metricsRow);
      inner.restore();
      hypergradient?.apply();
      optimizer.step(learningRate, ring.gradNorm(metricsRow));
    },
    [Symbol.dispose]: () => stack.dispose(),
  };
}
