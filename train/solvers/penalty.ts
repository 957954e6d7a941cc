/**
 * SPO as a penalty on the lower level's gap: F + lambda phi(G - v*).
 * @module
 */
import type { SpoPenaltyOptions } from "../../engine/ops/pair_loss.ts";
import { spoState } from "../../engine/ops/pair_loss.ts";
import { release } from "../../engine/tensor.ts";
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import { joinStates, type StatePart } from "../checkpoints/run_state.ts";
import { createMicroBatches, type MicroBatches } from "../micro_batches.ts";
import { lowerLevelObjective, type LowerLevelOptions, planLowerLevel } from "./lower_level.ts";
import type { Solver, SolverContext } from "./solver.ts";
import { createTrack, type TrackOptions, type TrackState } from "./track.ts";

/** Settings of the penalty. */
export interface PenaltyOptions {
  /** The lower level where it has passes of its own; without it the pair loss has G and the penalty within. */
  readonly separate?: {
    readonly lowerLevel: LowerLevelOptions;
    readonly spoAt: (step: number) => SpoPenaltyOptions;
    /** Where the dual variable starts. */
    readonly lambda: number;
  };
  /** The search for v*, where it is tracked. */
  readonly track?: TrackOptions & { readonly state: TrackState };
}

/**
 * The penalty solver of a run: with G of the batch's chosen answers it takes the passes of the plain loss.
 *
 * @param context of the run
 * @param options settings
 */
export function penaltySolver(context: SolverContext, options: PenaltyOptions): Solver {
  const { objective, optimizer, batches, ring } = context;
  const { trained } = objective.model;
  const stack = new DisposableStack();
  const track = options.track && stack.use(createTrack(context, options.track.state, options.track));
  const penalty = options.separate && penaltyPasses(context, options.separate, stack);
  return {
    metricNames: [],
    derive: (record) => ({ ...record, "spo/v_star": record["spo/lower_level"] - record["spo/gap"] }),
    keepsFirstLoss: penalty === undefined,
    state: () => joinStates({ track: track?.state(), penalty: penalty?.state }),
    async step({ step, metricsRow, learningRate }) {
      await track?.beforeStep(step);
      trained.zeroGradients();
      batches.run(step, metricsRow);
      penalty?.batches.run(step, metricsRow);
      optimizer.step(learningRate, ring.gradNorm(metricsRow));
    },
    [Symbol.dispose]: () => stack.dispose(),
  };
}

/** Passes that add the gradient of lambda phi(G - v*). */
function penaltyPasses(
  context: SolverContext,
  { lowerLevel, spoAt, lambda }: NonNullable<PenaltyOptions["separate"]>,
  stack: DisposableStack,
): { batches: MicroBatches; state: StatePart } {
  const { objective: { model, metricNames }, ring, optimizer, arena } = context;
  const state = stack.adopt(spoState(model.gpu, { lambda }), release);
  const objective = stack.use(lowerLevelObjective(model, {
    ...lowerLevel,
    penalty(at) {
      const index = (name: string) => () => at.metricsRow * METRICS_STRIDE + metricNames.indexOf(name);
      return {
        spo: () => spoAt(at.step),
        ...{ state, metrics: ring.tensor },
        at: {
          loss: index("loss"),
          lowerLevel: index("spo/lower_level"),
          gap: index("spo/gap"),
          lambda: index("spo/lambda"),
        },
      };
    },
  }));
  const plan = planLowerLevel(context, objective, lowerLevel);
  const batches = stack.use(
    createMicroBatches(objective, { plan, metrics: ring.tensor, seed: optimizer.seed, arena }),
  );
  return { batches, state: { tensors: [{ name: "spo", tensor: state }], numbers: () => ({}), restore() {} } };
}
