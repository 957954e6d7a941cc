import assert from "node:assert/strict";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { addLora } from "../../train/adapters/lora.ts";
import { ConfigError } from "../../train/errors.ts";
import { PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { randomPairs, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(4, 5);

gpuTest("targets that match no layer are refused, naming what there is", (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  for (const targetModules of [["c_attn"], "layers\\.7\\..*"]) {
    assert.throws(() => addLora(model, { rank: 2, targetModules }), (error: Error) => {
      assert.ok(error instanceof ConfigError, String(error));
      assert.match(error.message, /q_proj/);
      return true;
    });
  }
});

for (const lora of [false, true]) {
  gpuTest(
    `the first loss is left behind by step two, whatever the loss${lora ? ", with an adapter" : ""}`,
    async (gpu) => {
      for (const name of Object.keys(PAIR_LOSSES) as PairLossKey[]) {
        const base = tinyModel(gpu, { trainable: !lora });
        using model = lora ? addLora(base, { rank: 2 }) : base;
        using objective = preferenceObjective(model, {
          ...{
            pairs: PAIRS,
            reference: await referenceLogps(model, PAIRS),
            loss: PAIR_LOSSES[name].resolve({}),
          },
          ...{ spoAt: () => NO_PENALTY, lambda: 0 },
        });
        const losses: number[] = [];
        await train(objective, {
          optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
          schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 3 },
          ...{ batchSize: 4, seed: 1, logEvery: 1 },
          onLog: (record) => void losses.push(Number(record.loss)),
        });
        // Some rise before they fall: discopop is not convex, alphadpo's margin moves.
        assert.ok(Math.abs(losses[1] - losses[0]) > 1e-4 * losses[0], `${name}: ${losses}`);
      }
    },
  );
}
