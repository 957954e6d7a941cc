import assert from "node:assert/strict";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train, TrainingError } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { randomPairs, readWeights, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(8, 5);

for (const bad of [NaN, -Infinity]) {
  for (const loss of ["dpo", "hinge", "apo_zero"] as PairLossKey[]) {
    gpuTest(
      `${loss}: rewards from a reference log-prob of ${bad} stop the run, which names their batch`,
      async (gpu) => {
        using model = tinyModel(gpu);
        const reference = await referenceLogps(model, PAIRS);
        reference.chosen[5] = bad;
        using objective = preferenceObjective(model, {
          ...{ pairs: PAIRS, reference, loss: PAIR_LOSSES[loss].resolve({}) },
          ...{ spoAt: () => NO_PENALTY, lambda: 0 },
        });
        let kept = await readWeights(model);
        const run = train(objective, {
          optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 },
          schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 4 },
          ...{ batchSize: 2, seed: 1, logEvery: 1 },
          onLog: async () => void (kept = await readWeights(model)),
        });
        await assert.rejects(run, (error: Error) => {
          assert.ok(error instanceof TrainingError, String(error));
          assert.match(
            error.message,
            /^Cannot go on at step \d: expected finite numbers, found \S+ \S+ in the batch of /,
          );
          const batch = error.message.match(/made\.jsonl:\d+/g)!;
          assert.equal(batch.length, 2);
          assert.ok(batch.includes("made.jsonl:6"), error.message);
          return true;
        });
        // A gradient that is no number either is not applied.
        if (loss === "dpo" && Number.isNaN(bad)) assert.deepEqual(await readWeights(model), kept);
      },
    );
  }
}
