/**
 * v* as the running minimum that some steps of gradient descent on G reach on a scratch copy of the parameters.
 * @module
 */
import { toHost } from "../../engine/tensor.ts";
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import type { StatePart } from "../checkpoints/run_state.ts";
import { createInnerSteps } from "./inner_steps.ts";
import { createLowerLevel, type LowerLevelOptions } from "./lower_level.ts";
import type { SolverContext } from "./solver.ts";

/** Settings of the search for v*. */
export interface TrackOptions {
  /** Of its steps. */
  readonly innerLearningRate: number;
  /** K, its steps. */
  readonly trackSteps: number;
  /** N: it is done before the run's first step, and every so many steps. */
  readonly trackEvery: number;
  /** The lower level's data. */
  readonly lowerLevel: LowerLevelOptions;
}

/** v* as it is known; with the run's step all that resuming needs. */
export interface TrackState {
  /** The smallest G so far; infinite before the first search. */
  vStar: number;
}

/** The search. Dispose when done. */
export interface Track extends Disposable {
  /** Lowers v*, if the step is one of those before which it is searched. */
  beforeStep(step: number): Promise<void>;
  /** v*, once it has been searched. */
  state(): StatePart;
}

/**
 * Prepares the search. It stays on the batch of the step that it precedes: the minimum is one of batches, and lies below
 * that of the whole data the more, the smaller batches are.
 *
 * @param context of the run
 * @param state receives v*
 * @param options settings
 * @throws {TypeError} in f16
 */
export function createTrack(context: SolverContext, state: TrackState, options: TrackOptions): Track {
  const { trained, gpu } = context.objective.model;
  const { trackSteps, trackEvery, innerLearningRate: learningRate } = options;
  const stack = new DisposableStack();
  const lower = stack.use(createLowerLevel(context, { ...options.lowerLevel, rows: trackSteps + 1 }));
  const inner = stack.use(createInnerSteps(trained, { learningRate }));
  return {
    async beforeStep(step) {
      if ((step - 1) % trackEvery !== 0) return;
      inner.save();
      for (let row = 0; row <= trackSteps; row++) {
        trained.zeroGradients();
        lower.run(step, { row });
        if (row < trackSteps) inner.descend();
        gpu.queue.submit();
      }
      inner.restore();
      const metrics = await toHost(lower.metrics);
      for (let row = 0; row <= trackSteps; row++) {
        const value = metrics[row * METRICS_STRIDE];
        // Steps that are too long may leave every region; what they reach is no minimum.
        if (!Number.isFinite(value)) break;
        state.vStar = Math.min(state.vStar, value);
      }
    },
    state: () => ({
      tensors: [],
      // Before a search that ended well there is none, and infinity could not be stored.
      numbers() {
        const isFound = Number.isFinite(state.vStar);
        return { is_found: Number(isFound), v_star: isFound ? state.vStar : 0 };
      },
      restore({ is_found: isFound, v_star: vStar }) {
        state.vStar = isFound === 1 ? vStar : Infinity;
      },
    }),
    [Symbol.dispose]: () => stack.dispose(),
  };
}
