/**
 * SPO by turns: one step on the lower level, then one on the upper level, each with an optimizer of its own.
 * @module
 */
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import { createOptimizer, DEFAULT_LOSS_SCALE } from "../optimizer.ts";
import { createLowerLevel, type LowerLevelOptions } from "./lower_level.ts";
import { innerReport, type Solver, type SolverContext } from "./solver.ts";

/** Settings of the alternation. */
export interface AlternatingOptions {
  /** Of the lower level's AdamW, the same at every step. */
  readonly innerLearningRate: number;
  /** The lower level's data. */
  readonly lowerLevel: LowerLevelOptions;
}

/** Where the lower level's metrics go in their row, none next to another's. */
const AT = { innerLoss: 0, gradNorm: 4, lossScale: 8 } as const;

/**
 * The alternating solver of a run. The lower level's moments are its own: gradients of two losses in one mean would
 * drive each with the other's history. It does not decay weights, which the upper level's step does.
 *
 * @param context of the run
 * @param options settings
 */
export function alternatingSolver(context: SolverContext, options: AlternatingOptions): Solver {
  const { objective, optimizer, batches, ring, options: { optimizer: settings } } = context;
  const { trained, gpu, dtype } = objective.model;
  const stack = new DisposableStack();
  const lowerOptimizer = stack.use(createOptimizer(trained, {
    ...settings,
    weightDecay: 0,
    lossScale: dtype === "f16" ? settings.lossScale ?? DEFAULT_LOSS_SCALE : undefined,
  }));
  const seed = lowerOptimizer.seed;
  const lower = stack.use(createLowerLevel(context, { ...options.lowerLevel, rows: 1, seed }));
  const slot = {
    metrics: lower.metrics,
    index: AT.gradNorm,
    lossScaleIndex: AT.lossScale,
    accumulate: false,
  };
  const report = innerReport(objective);
  return {
    ...report,
    state: () => lowerOptimizer.state(),
    step({ step, metricsRow, learningRate }) {
      trained.zeroGradients();
      lower.run(step);
      gpu.queue.copy(
        report.number(lower.metrics, AT.innerLoss),
        report.number(ring.tensor, metricsRow * METRICS_STRIDE + report.index),
      );
      lowerOptimizer.step(options.innerLearningRate, slot);
      trained.zeroGradients();
      batches.run(step, metricsRow);
      optimizer.step(learningRate, ring.gradNorm(metricsRow));
    },
    [Symbol.dispose]: () => stack.dispose(),
  };
}
