import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release } from "../../engine/tensor.ts";
import { GRAD_NORM_METRIC } from "../../shaders/pair_loss.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import { createMetricsRing } from "../../train/metrics.ts";
import type { Model } from "../../train/models/model.ts";
import { loadModel } from "../../train/models/model_files.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { createOptimizer } from "../../train/optimizer.ts";
import { referenceLogps } from "../../train/reference.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { lossOf, modelFolder } from "../tiny_model.ts";
import type { GoldenGradient } from "./load_tiny_llama.ts";

interface Golden {
  settings: Record<
    "beta" | "learningRate" | "beta1" | "beta2" | "eps" | "weightDecay" | "maxGradNorm" | "batchSize",
    number
  >;
  pairs: { prompt: number[]; chosen: number[]; rejected: number[] }[];
  steps: Record<string, number>[];
  parameters: Record<string, GoldenGradient>;
}

const golden: Golden = JSON.parse(readFileSync(new URL("trl_dpo.json", import.meta.url), "utf8"));

const PAIRS = golden.pairs.map(({ prompt: promptIds, chosen, rejected }, index) => {
  const source = { file: "trl_dpo.json", index };
  const side = (completionIds: number[]) => ({ promptIds, completionIds, source });
  return { chosen: side(chosen), rejected: side(rejected), source };
});

/** The ten steps in TRL's order of batches, which the trainer would shuffle. */
async function tenSteps(gpu: Gpu, model: Model): Promise<Record<string, number>[]> {
  const { beta, batchSize, learningRate, ...optimizerOptions } = golden.settings;
  using objective = preferenceObjective(model, {
    ...{ pairs: PAIRS, reference: await referenceLogps(model, PAIRS), lambda: 0 },
    loss: PAIR_LOSSES.dpo.resolve({ beta }),
    spoAt: () => NO_PENALTY,
  });
  using optimizer = createOptimizer(model.parameters, optimizerOptions);
  using ring = createMetricsRing(gpu, 1);
  const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
  const records: Record<string, number>[] = [];
  for (let step = 1; step <= golden.steps.length; step++) {
    const first = (step - 1) * batchSize % PAIRS.length;
    const items = Uint32Array.from({ length: batchSize }, (_, index) => first + index);
    model.parameters.zeroGradients();
    const tape = new Tape(gpu);
    tape.backward([{ tensor: lossOf(objective, { items, step, metrics: ring.tensor }), gradient: one }]);
    optimizer.step(learningRate, { metrics: ring.tensor, index: GRAD_NORM_METRIC, accumulate: false });
    records.push(...await ring.read(1, objective.metricNames));
  }
  release(one);
  return records;
}

gpuTest("ten DPO steps log what TRL logs and end in the same weights", async (gpu) => {
  const fixture = (file: string) => new URL(`tiny_llama/${file}`, import.meta.url);
  const files = { "config.json": fixture("config.json"), "model.safetensors": fixture("model.safetensors") };
  const { model } = await loadModel(gpu, modelFolder(files, 48), { trainable: true });
  using _ = model;
  const records = await tenSteps(gpu, model);
  for (const [index, expected] of golden.steps.entries()) {
    for (const [name, value] of Object.entries(expected)) {
      // At policy = reference the two rewards are equal but for rounding, which then decides which is larger.
      if (index === 0 && name === "rewards/accuracies") continue;
      // Rewards are beta times differences of sums of -20 to -30 nats: two roundings of 1e-6 each at best.
      const atol = name.startsWith("rewards/") ? 5e-6 : 0;
      assertClose([records[index][name]], [value], {
        what: `${name} of step ${index + 1}`,
        rtol: 1e-4,
        atol,
      });
    }
  }
  for (const [name, { head, sum, sumSquares }] of Object.entries(golden.parameters)) {
    const values = await model.parameters.read(name);
    // Ten updates of 1e-3 each, of which rounding of near-zero gradients may move some by a hundredth.
    assertClose(values.subarray(0, head.length), head, { what: name, rtol: 1e-4, atol: 1e-5 });
    const found = [values.reduce((t, v) => t + v, 0), values.reduce((t, v) => t + v * v, 0)];
    const atol = 1e-5 * Math.sqrt(values.length);
    assertClose(found, [sum, sumSquares], { what: `sums of ${name}`, rtol: 1e-4, atol });
  }
  assert.equal(records.length, 10);
}, { layouts: LAYOUTS });
