/**
 * The metrics of a loss on held-out data during training.
 * @module
 */
import { uploadAll } from "../engine/inputs.ts";
import { noGrad } from "../engine/tape.ts";
import { scope } from "../engine/tensor.ts";
import { createMetricsRing, meanRecord } from "./metrics.ts";
import type { MicroBatchState, Objective } from "./objective.ts";

/** What held-out metrics' names begin with, as TRL's do. */
export const HELD_OUT_PREFIX = "eval_";

/** How to run through held-out data. */
export interface HeldOutOptions {
  /** Most items of a forward pass. */
  readonly batchSize: number;
  /** Whether items of a batch depend on each other: each batch is a step of its own then. */
  readonly isCoupled: boolean;
  /** Told how many of how many items are done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Runs an objective over all of its items, without gradients, and leaves the model as it is.
 *
 * @param objective of the held-out data; its state is not to be used again
 * @param options sizes
 * @returns every metric of the objective, exact means over all items; of a coupled loss the mean over its batches, which
 * are as equal as they can be
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { sftObjective } from "./objective.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * using objective = sftObjective(model, [{ promptIds: [1], completionIds: [3, 4], source: { file: "example" } }]);
 * const { loss } = await evaluateObjective(objective, { batchSize: 4, isCoupled: false });
 * assert(Math.abs(loss - Math.log(8)) < 1e-6);
 * ```
 */
export async function evaluateObjective(
  objective: Objective,
  { batchSize, isCoupled, onProgress }: HeldOutOptions,
): Promise<Record<string, number>> {
  const { model: { gpu }, count, metricNames } = objective;
  const batches = equalBatches(count, batchSize);
  const all = Uint32Array.from({ length: count }, (_, item) => item);
  let done = 0;
  using ring = createMetricsRing(gpu, isCoupled ? batches.length : 1);
  for (const [index, items] of batches.entries()) {
    const batch = isCoupled ? items : all;
    const state: MicroBatchState = {
      ...{ step: 1, metricsRow: isCoupled ? index : 0, metrics: ring.tensor },
      isFirst: isCoupled || index === 0,
      isLast: isCoupled || index === batches.length - 1,
      ...{ batch, batchItems: batch.length, batchLabels: objective.size(batch).labels },
    };
    scope(gpu, () => {
      const tensors = uploadAll(gpu, objective.pack(items, objective.size(items)));
      noGrad(gpu, () => objective.forward(tensors, state));
    });
    gpu.queue.submit();
    done += items.length;
    onProgress?.(done, count);
  }
  const records = await ring.read(isCoupled ? batches.length : 1, metricNames);
  const { grad_norm: _, ...record } = (objective.meanRecord ?? meanRecord)(records);
  return record;
}

/** Consecutive items in as few batches as hold them, whose sizes differ by one at most. */
function equalBatches(count: number, batchSize: number): Uint32Array[] {
  const batches = Math.ceil(count / batchSize);
  const start = (index: number) => Math.floor(index * count / batches);
  return Array.from(
    { length: batches },
    (_, index) => Uint32Array.from({ length: start(index + 1) - start(index) }, (_, at) => start(index) + at),
  );
}
