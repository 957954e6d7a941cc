/**
 * @module
 */

/**
 * A loss that is not finite, or not what it must be: the run cannot go on.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { NO_PENALTY } from "../engine/ops/pair_loss.ts";
 * import { PAIR_LOSSES } from "./losses/registry.ts";
 * import { preferenceObjective } from "./objective.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 * import { train } from "./trainer.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: true }); // all zero: ids are equally likely
 * const source = { file: "example" };
 * const chosen = { promptIds: [1, 2], completionIds: [3], source };
 * const rejected = { promptIds: [1, 2], completionIds: [4, 5], source };
 * const pairs = [{ chosen, rejected, source }];
 * using objective = preferenceObjective(model, {
 *   pairs,
 *   reference: { chosen: Float32Array.of(-50), rejected: Float32Array.of(-1) }, // another model's
 *   loss: PAIR_LOSSES.dpo.resolve({}),
 *   spoAt: () => NO_PENALTY,
 *   lambda: 0,
 * });
 * const run = train(objective, {
 *   optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
 *   schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 1 },
 *   batchSize: 1,
 *   seed: 0,
 *   logEvery: 1,
 * });
 * await assert.rejects(run, TrainingError); // the first loss is not log 2
 * ```
 */
export class TrainingError extends Error {
  /** The class, as messages print it. */
  override name = "TrainingError";
}
