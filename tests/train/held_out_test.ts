/**
 * Held-out metrics are those that a training step of the same items shows.
 *
 * @module
 */
import assert from "node:assert/strict";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { evaluateObjective } from "../../train/held_out.ts";
import { liveReference } from "../../train/live_reference.ts";
import { resolveUnpairedLoss } from "../../train/losses/unpaired.ts";
import { resolvePairLoss } from "../../train/losses/weighted_sum.ts";
import type { Model } from "../../train/models/model.ts";
import { type Objective, preferenceObjective, sftObjective } from "../../train/objective.ts";
import { unpairedObjective } from "../../train/objectives/kto.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { randomCompletions, tinyModel } from "../tiny_model.ts";

const COUNT = 7;
const PAIRS = randomCompletions(COUNT, 3).map((chosen, index) => {
  const completionIds = randomCompletions(COUNT, 4)[index].completionIds;
  return { chosen, rejected: { ...chosen, completionIds }, source: chosen.source };
});
const EXAMPLES = randomCompletions(COUNT, 5).map((completion, index) => ({
  ...completion,
  desirable: index % 3 !== 0,
}));

async function preference(model: Model, loss: string): Promise<Objective> {
  using other = tinyModel(model.gpu, { seed: 9 });
  const reference = await referenceLogps(other, PAIRS);
  return preferenceObjective(model, {
    ...{ pairs: PAIRS, reference, loss: resolvePairLoss(loss), spoAt: () => NO_PENALTY, lambda: 0 },
    startsAtReference: false,
  }) as Objective;
}

/** What one step on all items logs, before its update. */
async function firstStep(objective: Objective): Promise<Record<string, number>> {
  const records: Record<string, unknown>[] = [];
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-3, warmupSteps: 0, maxSteps: 1 },
    ...{ batchSize: COUNT, seed: 0, logEvery: 1 },
    onLog: (record) => void records.push(record),
  });
  return records[0] as Record<string, number>;
}

function assertSame(found: Record<string, number>, expected: Record<string, number>): void {
  for (const [name, value] of Object.entries(found)) {
    const near = Math.abs(value - expected[name]) <= 1e-5 * (1 + Math.abs(value));
    assert.ok(near, `${name}: ${value}, in training ${expected[name]}`);
  }
}

for (const loss of ["dpo", "simpo", "orpo", "mpo"]) {
  gpuTest(`${loss}: batches of 2 to 3 held-out pairs add up to the metrics of a step on all`, async (gpu) => {
    using model = tinyModel(gpu);
    using heldOut = await preference(model, loss);
    const found = await evaluateObjective(heldOut, { batchSize: 3, isCoupled: false });
    using objective = await preference(model, loss);
    assert.deepEqual(Object.keys(found), objective.metricNames);
    assertSame(found, await firstStep(objective));
  });
}

gpuTest("aot: a batch that holds all pairs is sorted as a whole", async (gpu) => {
  using model = tinyModel(gpu);
  using heldOut = await preference(model, "aot");
  const found = await evaluateObjective(heldOut, { batchSize: COUNT, isCoupled: true });
  using split = await preference(model, "aot");
  const { loss } = await evaluateObjective(split, { batchSize: 2, isCoupled: true });
  assert.ok(Math.abs(loss - found.loss) > 1e-4, "which matters");
  using objective = await preference(model, "aot");
  assertSame(found, await firstStep(objective));
});

gpuTest("kto and sft: the same", async (gpu) => {
  using model = tinyModel(gpu);
  using reference = liveReference(model);
  const kto = () =>
    unpairedObjective(model, { examples: EXAMPLES, reference, loss: resolveUnpairedLoss("kto") });
  using heldOut = kto() as Objective;
  const found = await evaluateObjective(heldOut, { batchSize: COUNT, isCoupled: true });
  // The order of a training batch is drawn: KL pairs other prompts there.
  const { kl: _, ...rest } = found;
  using trained = kto() as Objective;
  const { loss: __, ...step } = await firstStep(trained);
  const { loss: ___, ...measured } = rest;
  assertSame(measured, step);
  using supervised = sftObjective(model, EXAMPLES) as Objective;
  const sft = await evaluateObjective(supervised, { batchSize: 2, isCoupled: false });
  using again = sftObjective(model, EXAMPLES) as Objective;
  assertSame(sft, await firstStep(again));
});
