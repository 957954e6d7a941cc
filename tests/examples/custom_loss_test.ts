import assert from "node:assert/strict";
import { checkLoss, trainWithLoss } from "../../examples/custom_loss.ts";
import { TINY_LLAMA } from "../../examples/letters.ts";
import { createModel, createRandom, initializeModel, parseModelConfig } from "../../mod.ts";
import { gpuTest } from "../gpu.ts";

gpuTest("custom_loss.ts: value and slopes are those of the equation", async (gpu) => {
  for (const beta of [0.1, 1]) {
    const { output, gradients } = await checkLoss(gpu, beta);
    assert.ok(output < 1e-6 && gradients.logps < 1e-6, `beta ${beta}: ${output}, ${gradients.logps}`);
  }
});

gpuTest("custom_loss.ts: training with it separates held-out pairs", async (gpu) => {
  using model = createModel(gpu, parseModelConfig(TINY_LLAMA, { file: "letters.ts" }), { trainable: true });
  initializeModel(model, createRandom(1));
  const losses: number[] = [];
  const accuracy = await trainWithLoss(model, ({ loss }) => losses.push(Number(loss)));
  assert.equal(losses.length, 4);
  assert.ok(losses[0] < 1 && losses[3] < 1e-3, losses.join(" "));
  assert.equal(accuracy, 1);
});
