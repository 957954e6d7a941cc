import assert from "node:assert/strict";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import { resolvePairLoss } from "../../train/losses/weighted_sum.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { randomPairs, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(8, 5);

/** Every loss that may be split, in a sum of several: likelihoods are means over the step's tokens, of any micro-batch. */
const SUMS = ["dpo,ipo,cpo,sft", "robust,hinge,exo_pair,orpo", "nca_pair,bco_pair,apo_zero,apo_down,discopop"]
  .concat(
    ["sigmoid_norm,simpo,alphapo,dpop", "rdpo,cal_dpo,sppo_hard"],
  );

for (const names of SUMS) {
  gpuTest(
    `${names}: three steps of 8 pairs are the same in parts, and without shared prompts`,
    async (gpu) => {
      const run = async (
        { gradientAccumulationSteps = 1, sharePrompts = true, batchTokens }: {
          gradientAccumulationSteps?: number;
          sharePrompts?: boolean;
          batchTokens?: number;
        },
      ) => {
        using model = tinyModel(gpu);
        using objective = preferenceObjective(model, {
          pairs: PAIRS,
          reference: await referenceLogps(model, PAIRS),
          loss: resolvePairLoss(names),
          spoAt: () => NO_PENALTY,
          lambda: 0,
          sharePrompts,
        });
        const records: MetricsRecord[] = [];
        await train(objective, {
          optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-3, weightDecay: 0, maxGradNorm: 1 },
          schedule: { kind: "constant", learningRate: 1e-3, warmupSteps: 0, maxSteps: 3 },
          ...{ batchSize: 8, gradientAccumulationSteps, batchTokens, seed: 1, logEvery: 1 },
          onLog: (record) => void records.push(record),
        });
        return records;
      };
      const whole = await run({});
      const keys = Object.keys(whole[0]).filter((key) => key !== "tokens_per_second");
      assert.equal(keys.filter((key) => key.startsWith("loss/")).length, names.split(",").length);
      const numbers = (of: MetricsRecord) => keys.map((key) => Number(of[key]));
      const others = [{ gradientAccumulationSteps: 8 }, { batchTokens: 25 }, { sharePrompts: false }];
      for (const other of others) {
        const records = await run(other);
        for (const [step, record] of whole.entries()) {
          const what = `${JSON.stringify(other)}, step ${step + 1}`;
          assertClose(numbers(records[step]), numbers(record), { what, rtol: 1e-4, atol: 1e-4 });
        }
      }
    },
  );
}

Deno.test("every loss that may be split is in a sum above", () => {
  const splittable = Object.values(PAIR_LOSSES).filter((loss) => !loss.resolve({}).needsWholeBatch);
  assert.deepEqual(
    SUMS.flatMap((names) => names.split(",")).filter((name) => name !== "sft").sort(),
    splittable.map(({ name }) => name).sort(),
  );
});
