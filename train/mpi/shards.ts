/**
 * Which items of a step a rank takes.
 * @module
 */
import { ConfigError } from "../errors.ts";
import type { MicroBatchPlan } from "../micro_batches.ts";
import type { Communicator } from "./communicator.ts";

/**
 * A rank's part of a step: of each micro-batch, a run of items as long as every other rank's. The step's own counts stay
 * those of all ranks: losses are normalised by them, so that gradients and metrics of ranks add up to those of the step.
 *
 * @param step of all ranks, the same on each
 * @param communicator the rank, and how many there are
 * @returns the same step with this rank's items alone in its micro-batches
 * @throws {ConfigError} when a micro-batch does not divide by the ranks
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const batch = Uint32Array.of(7, 3, 5, 1);
 * const step = { batch, microBatches: [batch], labels: 40 };
 * const shard = shardStep(step, { rank: 1, size: 2 });
 * assert.deepEqual(shard, { batch, microBatches: [Uint32Array.of(5, 1)], labels: 40 });
 * ```
 */
export function shardStep<Step extends MicroBatchPlan>(
  step: Step,
  { rank, size }: Pick<Communicator, "rank" | "size">,
): Step {
  const microBatches = step.microBatches.map((items) => {
    if (items.length % size !== 0) {
      throw new ConfigError(
        `Cannot share a batch among ${size} ranks: expected a number of items that divides by ${size} in each ` +
          `micro-batch of all ranks, found ${items.length}`,
      );
    }
    const count = items.length / size;
    return items.subarray(rank * count, (rank + 1) * count);
  });
  return { ...step, microBatches };
}
