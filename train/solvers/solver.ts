/**
 * What a solver is: the strategy by which a step turns passes into an update. Selected once a run.
 * @module
 */
import type { BufferArena } from "../../engine/buffers.ts";
import type { BufferRange } from "../../engine/queue.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { NO_STATE, type StatePart } from "../checkpoints/run_state.ts";
import type { MicroBatches } from "../micro_batches.ts";
import type { MetricsRing } from "../metrics.ts";
import type { Objective } from "../objective.ts";
import type { Optimizer } from "../optimizer.ts";
import type { Plan } from "../step_plan.ts";
import type { TrainOptions } from "../trainer.ts";

/** What a training run gives its solver. */
export interface SolverContext {
  /** The upper level. */
  readonly objective: Objective;
  /** How the run trains. */
  readonly options: TrainOptions;
  /** Every step's items. */
  readonly plan: Plan;
  /** Of the upper level. */
  readonly optimizer: Optimizer;
  /** The upper level's passes, which add to the gradients. */
  readonly batches: MicroBatches;
  /** Where metrics go. */
  readonly ring: MetricsRing;
  /** Buffers of all passes: they run one after the other. */
  readonly arena: BufferArena;
}

/** Where in the run a step is. */
export interface SolverStep {
  /** From 1. */
  readonly step: number;
  /** Its row of the metrics. */
  readonly metricsRow: number;
  /** Of the upper level. */
  readonly learningRate: number;
}

/** What a solver adds to the metrics. */
export interface SolverReport {
  /** Numbers that it writes after those of the objective, in order. */
  readonly metricNames: readonly string[];
  /** Adds what follows from a step's numbers. */
  readonly derive: (record: Record<string, number>) => Record<string, number>;
  /** Whether the first loss is that of the policy as it was given: only then it may be a known constant. */
  readonly keepsFirstLoss: boolean;
}

/** A solver of one run. */
export interface Solver extends SolverReport, Disposable {
  /** What its later steps depend on besides their number, such as v* or moments of its own. */
  state(): StatePart;
  /**
   * Encodes a step: passes and update. The trainer submits it.
   *
   * @param at where in the run
   */
  step(at: SolverStep): void | Promise<void>;
}

/** Makes a solver for a run. */
export type SolverFactory = (context: SolverContext) => Solver;

/** A solver's answer where every step starts anew. */
export const STATELESS: Pick<Solver, "state"> = { state: () => NO_STATE };

/** A report of nothing. */
export const NO_REPORT: SolverReport = {
  metricNames: [],
  derive: (record) => record,
  keepsFirstLoss: true,
};

/** The report of a solver whose lower level moves the policy before the upper level sees it. */
export function innerReport(objective: Objective): SolverReport & {
  /** Where its number is in a row. */
  readonly index: number;
  /** One number of a tensor, to copy it. */
  readonly number: (tensor: Tensor, index: number) => BufferRange;
} {
  return {
    ...NO_REPORT,
    metricNames: ["spo/inner_loss"],
    keepsFirstLoss: false,
    index: objective.metricNames.length,
    number({ range }, index) {
      return { ...range, offsetBytes: range.offsetBytes + 4 * index, sizeBytes: 4 };
    },
  };
}
