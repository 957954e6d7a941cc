/**
 * CHES scores of pairs of completions.
 * @module
 */
import { chesScores as chesKernel } from "../../shaders/ches.ts";
import type { Scalar } from "../queue.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { noGrad } from "../tape.ts";
import { empty, expectType, type Tensor } from "../tensor.ts";
import { type MetricSlot, scaledSum } from "./scaled_sum.ts";

/**
 * The centered hidden embedding similarity of each pair (arXiv 2410.08847, Definition 2): how much alike the model sees
 * the two completions. The higher, the more DPO lowers the chosen one. Not differentiable.
 *
 * @param hidden `[R, C]` f32: the final hidden states that predict the completions' tokens
 * @param offsets `[2P + 1]`: rows of each completion, the chosen of all pairs first
 * @returns `[P]` each: `<S_w, S_l> - |S_w|^2`, S the sum of a completion's rows; and the same by lengths,
 * `<S_w, S_l> / (n_w n_l) - |S_w|^2 / n_w^2`
 * @throws {ShapeError} when hidden is not a matrix in f32, or the completions are not pairs
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, upload } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const hidden = fromHost(gpu, Float32Array.of(1, 0, 1, 0, 3, 1), { shape: [3, 2] });
 * const offsets = upload(gpu, Uint32Array.of(0, 2, 3)); // two tokens chosen, one rejected
 * const { scores, normalized } = chesScores(hidden, offsets);
 * assert.deepEqual([...await toHost(scores)], [2]); // 6 - 4
 * assert.deepEqual([...await toHost(normalized)], [2]); // 6 / 2 - 4 / 4
 * ```
 */
export function chesScores(hidden: Tensor, offsets: Tensor): { scores: Tensor; normalized: Tensor } {
  expectShape("ches_scores", "hidden", hidden.shape, [-1, -1]);
  expectType("ches_scores", "hidden", hidden, "f32");
  const sequences = offsets.shape[0] - 1;
  if (sequences < 2 || sequences % 2 !== 0) {
    throw new ShapeError(
      `Cannot run ches_scores: expected the offsets of pairs, found those of ${sequences} sequences`,
    );
  }
  const pairs = sequences / 2;
  const [scores, normalized] = [empty(hidden.gpu, [pairs]), empty(hidden.gpu, [pairs])];
  hidden.gpu.dispatch(chesKernel, {
    constants: {},
    bindings: {
      hidden: hidden.range,
      offsets: offsets.range,
      scores: scores.range,
      normalized: normalized.range,
    },
    params: { pairs, columns: hidden.shape[1] },
    workgroups: pairs,
  });
  return { scores, normalized };
}

/**
 * Reports the means of {@link chesScores} over a step's pairs, which add up over micro-batches.
 *
 * @param hidden as there
 * @param options.offsets as there
 * @param options.inversePairs 1 / pairs of the whole step
 * @param options.metrics where the score's mean goes, then that of its length-normalised form
 */
export function reportChes(
  hidden: Tensor,
  options: { offsets: Tensor; inversePairs: Scalar; metrics: readonly [MetricSlot, MetricSlot] },
): void {
  const { offsets, inversePairs: scale, metrics } = options;
  noGrad(hidden.gpu, () => {
    const { scores, normalized } = chesScores(hidden, offsets);
    scaledSum(scores, { scale, metric: metrics[0] });
    scaledSum(normalized, { scale, metric: metrics[1] });
  });
}
