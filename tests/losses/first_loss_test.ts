/**
 * Where policy and reference are equal, a loss is a known constant: a run whose first step shows another has a wrong
 * reference, and stops.
 *
 * @module
 */
import assert from "node:assert/strict";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { UNPAIRED_LOSSES, type UnpairedLossKey } from "../../train/losses/unpaired.ts";
import { resolveUnpairedLoss } from "../../train/losses/unpaired.ts";
import { PAIR_LOSS_NAMES, resolvePairLoss } from "../../train/losses/weighted_sum.ts";
import { liveReference } from "../../train/live_reference.ts";
import type { Model } from "../../train/models/model.ts";
import { type Objective, preferenceObjective } from "../../train/objective.ts";
import { unpairedObjective } from "../../train/objectives/kto.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train, TrainingError } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { randomPairs, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(4, 5);
const EXAMPLES = PAIRS.flatMap(({ chosen, rejected }) => [
  { ...chosen, desirable: true },
  { ...rejected, desirable: false },
]);

const OPTIONS = {
  optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
  schedule: { kind: "constant", learningRate: 1e-3, warmupSteps: 0, maxSteps: 1 },
  ...{ batchSize: 4, seed: 1, logEvery: 1 },
} as const;

/** Losses whose first value depends on the data: nothing can be demanded of it. */
const UNKNOWN = ["cpo", "simpo", "alphapo", "alphadpo", "rdpo", "orpo", "mpo", "rpo", "irpo"];

/** An objective whose reference is another model than the one that is trained. */
async function withOther(
  model: Model,
  other: Model,
  loss: string,
): Promise<Objective & { initial?: number }> {
  if (Object.hasOwn(UNPAIRED_LOSSES, loss)) {
    const reference = liveReference(other);
    const objective = unpairedObjective(model, {
      ...{ examples: EXAMPLES, reference, loss: resolveUnpairedLoss(loss as UnpairedLossKey) },
    });
    return { ...objective, [Symbol.dispose]: () => reference[Symbol.dispose]() };
  }
  return preferenceObjective(model, {
    pairs: PAIRS,
    reference: await referenceLogps(other, PAIRS),
    loss: resolvePairLoss(loss),
    spoAt: () => NO_PENALTY,
    lambda: 0,
  });
}

for (const loss of [...PAIR_LOSS_NAMES, ...Object.keys(UNPAIRED_LOSSES)]) {
  const isUnknown = UNKNOWN.includes(loss);
  gpuTest(
    `${loss}: a reference that is another model ${isUnknown ? "cannot be told" : "is refused at step one"}`,
    async (gpu) => {
      using model = tinyModel(gpu);
      using other = tinyModel(gpu, { seed: 9 });
      using objective = await withOther(model, other, loss);
      assert.equal(objective.initialLoss === undefined, isUnknown);
      const run = train(objective, OPTIONS);
      if (isUnknown) return void await run;
      await assert.rejects(run, (error: Error) => {
        assert.ok(error instanceof TrainingError, String(error));
        const expected = new RegExp(
          `^Cannot trust the reference: expected a first loss of ${objective.initialLoss} \\(policy = reference\\), found `,
        );
        assert.match(error.message, expected);
        return true;
      });
    },
  );
}
