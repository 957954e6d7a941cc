/**
 * Fresh weights.
 * @module
 */
import { sizeOf } from "../../engine/shape.ts";
import { fillNormal, type Random } from "../random.ts";
import type { Model } from "./model.ts";

/**
 * Fills a model with fresh weights: norms 1, matrices normal with the config's initializer_range, those that write to
 * the residual stream scaled by 1 / sqrt(2 L) (GPT-2).
 *
 * @param model the model
 * @param random where the numbers come from
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { createRandom } from "../random.ts";
 * import { createModel } from "./model.ts";
 * import { parseModelConfig } from "./config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false });
 * initializeModel(model, createRandom(1));
 * const embedding = await model.parameters.read("model.embed_tokens.weight");
 * assert(embedding.some((weight) => weight !== 0) && embedding.every((weight) => Math.abs(weight) < 0.2));
 * assert((await model.parameters.read("model.norm.weight")).every((weight) => weight === 1));
 * ```
 */
export function initializeModel(model: Model, random: Random): void {
  const { architecture, parameters } = model;
  for (const [name, shape] of parameters.shapes) {
    const values = new Float32Array(sizeOf(shape));
    const initial = architecture.initial(name, shape);
    if ("value" in initial) values.fill(initial.value);
    // Numbers that nothing computes with are not worth their time.
    else if (!model.gpu.isPlanning) fillNormal(random, { target: values, std: initial.std });
    parameters.write(name, values);
  }
}
