import assert from "node:assert/strict";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { scope, toHost } from "../../engine/tensor.ts";
import { packSequences } from "../../train/data/batch.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import { uploadBatch } from "../../train/models/batch_tensors.ts";
import { hiddenStates, type Model } from "../../train/models/model.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { chesScores } from "../reference/ches.ts";
import { randomPairs, readWeights, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(6, 11);

async function run(model: Model, options: { ches: boolean; gradientAccumulationSteps?: number }) {
  const records: MetricsRecord[] = [];
  using objective = preferenceObjective(model, {
    ...{ pairs: PAIRS, reference: await referenceLogps(model, PAIRS), lambda: 0 },
    ...{ loss: PAIR_LOSSES.dpo.resolve({}), spoAt: () => NO_PENALTY, ches: options.ches },
  });
  let clock = 0;
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 2 },
    ...{ batchSize: PAIRS.length, seed: 1, logEvery: 1, now: () => clock += 1000 },
    gradientAccumulationSteps: options.gradientAccumulationSteps,
    onLog: (record) => void records.push(record),
  });
  return records;
}

/** The scores of the model as it is, from its last hidden states and f64 alone. */
async function expectedScores(model: Model) {
  const { gpu } = model;
  const sides = [...PAIRS.map(({ chosen }) => chosen), ...PAIRS.map(({ rejected }) => rejected)];
  const packed = packSequences(sides);
  const columns = model.architecture.dimensions.hidden;
  const states = scope(gpu, () => hiddenStates(model, uploadBatch(model, packed)));
  const hidden = await toHost(states);
  states.range.allocation.release();
  const gain = await model.parameters.read("model.norm.weight");
  const rows = Array.from(packed.rows, (row) => hidden.subarray(row * columns, (row + 1) * columns));
  const normed = rows.flatMap((row) => {
    const root = Math.sqrt(row.reduce((total, value) => total + value ** 2, 0) / columns + 1e-6);
    return Array.from(row, (value, c) => value / root * gain[c]);
  });
  const lengths = sides.map(({ completionIds }) => completionIds.length);
  const { scores, normalized } = chesScores(Float64Array.from(normed), { columns, lengths });
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  return [mean(scores), mean(normalized)];
}

gpuTest("CHES of the last hidden states after the final norm, over micro-batches too", async (gpu) => {
  using model = tinyModel(gpu);
  const expected = await expectedScores(model);
  const weights: Float32Array[] = [];
  for (const gradientAccumulationSteps of [1, 3]) {
    using fresh = tinyModel(gpu);
    const [first] = await run(fresh, { ches: true, gradientAccumulationSteps });
    const found = [first["displacement/ches"] as number, first["displacement/ches_normalized"] as number];
    assertClose(found, expected, { what: "CHES", rtol: 1e-4 });
    weights.push(await readWeights(fresh));
  }
  const [plain] = await run(model, { ches: false });
  assert.ok(!("displacement/ches" in plain));
  assert.deepEqual(await readWeights(model), weights[0], "it changes nothing");
});
