/**
 * Statistics of the tokens as a run logs them, and WPO's weights, against the model in plain f64.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { liveReference } from "../../train/live_reference.ts";
import { resolveUnpairedLoss } from "../../train/losses/unpaired.ts";
import { resolvePairLoss } from "../../train/losses/weighted_sum.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import type { Model } from "../../train/models/model.ts";
import { type Objective, preferenceObjective, sftObjective } from "../../train/objective.ts";
import { unpairedObjective } from "../../train/objectives/kto.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import * as reference from "../reference/sequence_statistics.ts";
import {
  randomCompletions,
  randomPairs,
  readWeights,
  referenceStatistics,
  tinyModel,
} from "../tiny_model.ts";

const PAIRS = randomPairs(8, 5);
const SIDES = [...PAIRS.map(({ chosen }) => chosen), ...PAIRS.map(({ rejected }) => rejected)];
const EXAMPLES = randomCompletions(8, 3).map((one, index) => ({ ...one, desirable: index % 3 === 0 }));

interface Split {
  gradientAccumulationSteps?: number;
  batchTokens?: number;
}

const SPLITS: readonly Split[] = [{}, { gradientAccumulationSteps: 8 }, { batchTokens: 30 }];

async function run(objective: Objective, { maxSteps = 1, ...split }: Split & { maxSteps?: number } = {}) {
  const records: MetricsRecord[] = [];
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-3, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps },
    ...{ batchSize: objective.count, seed: 1, logEvery: 1, ...split },
    onLog: (record) => void records.push(record),
  });
  return records;
}

async function onPairs(
  model: Model,
  { loss = "dpo", useWeighting }: { loss?: string; useWeighting?: boolean } = {},
): Promise<Objective> {
  return preferenceObjective(model, {
    ...{ pairs: PAIRS, reference: await referenceLogps(model, PAIRS), lambda: 0, useWeighting },
    ...{ loss: resolvePairLoss(loss), spoAt: () => NO_PENALTY },
  });
}

/** A number that a rounding would move from one token to none has no tolerance but that of f32. */
function assertLogged(record: MetricsRecord, expected: Readonly<Record<string, number>>, split: Split): void {
  for (const [name, value] of Object.entries(expected)) {
    const what = `${name} with ${JSON.stringify(split)}`;
    assertClose([Number(record[name])], [value], { what, rtol: 1e-5, atol: 1e-5 });
  }
}

gpuTest("a run on pairs logs means over its tokens, however its step is split", async (gpu) => {
  for (const split of SPLITS) {
    using model = tinyModel(gpu);
    const inputs = await referenceStatistics(model, SIDES);
    const expected = reference.metrics(inputs, (s) => s < PAIRS.length);
    assert.ok(expected.mean_token_accuracy > 0 && expected.mean_token_accuracy < 1);
    using objective = await onPairs(model);
    assertLogged((await run(objective, split))[0], expected, split);
  }
});

gpuTest("labels of prompts are no completion tokens", async (gpu) => {
  using model = tinyModel(gpu);
  const expected = reference.metrics(await referenceStatistics(model, SIDES), (s) => s < PAIRS.length);
  using objective = await onPairs(model, { loss: "orpo" });
  assertLogged((await run(objective))[0], expected, {});
});

gpuTest("a run on completions logs means over its tokens, however its step is split", async (gpu) => {
  for (const split of SPLITS) {
    using model = tinyModel(gpu);
    const { entropy, mean_token_accuracy } = reference.metrics(
      await referenceStatistics(model, EXAMPLES),
      () => true,
    );
    using objective = sftObjective(model, EXAMPLES);
    const [record] = await run(objective, split);
    assertLogged(record, { entropy, mean_token_accuracy }, split);
    assert.ok(!("logits/chosen" in record));
  }
});

gpuTest("a run on labelled answers logs the means of either label", async (gpu) => {
  for (const split of SPLITS) {
    using model = tinyModel(gpu);
    const { mean_token_accuracy: _, ...expected } = reference.metrics(
      await referenceStatistics(model, EXAMPLES),
      (s) => EXAMPLES[s].desirable,
    );
    using live = liveReference(model);
    const loss = resolveUnpairedLoss("apo_zero_unpaired");
    using objective = unpairedObjective(model, { examples: EXAMPLES, reference: live, loss });
    const [record] = await run(objective, split);
    assertLogged(record, expected, split);
    assert.ok(!("mean_token_accuracy" in record));
  }
});

gpuTest("several steps' mean over a label leaves out steps without it", (gpu) => {
  using model = tinyModel(gpu);
  using live = liveReference(model);
  const loss = resolveUnpairedLoss("apo_zero_unpaired");
  using objective = unpairedObjective(model, { examples: EXAMPLES, reference: live, loss });
  const step = (chosen: number, rejected: number, logits: number) => ({
    ...Object.fromEntries(objective.metricNames.map((name) => [name, 0])),
    ...{ "examples/chosen": chosen, "examples/rejected": rejected },
    ...{ "logits/chosen": chosen && logits, "logits/rejected": rejected && -logits },
  });
  const mean = objective.meanRecord!([step(4, 0, 2), step(1, 3, 7)]);
  assert.deepEqual([mean["logits/chosen"], mean["logits/rejected"]], [3, -7]);
});

/** With policy = reference every pair's dpo is log 2: the loss is the mean of the weights times that. */
gpuTest("WPO weighs each pair by both its answers' likelihood, and not the NLL", async (gpu) => {
  using model = tinyModel(gpu);
  const inputs = await referenceStatistics(model, SIDES);
  const weights = reference.pairWeights(inputs);
  assert.ok(Math.max(...weights) > 2 * Math.min(...weights), "the weights differ");
  const mean = weights.reduce((a, b) => a + b, 0) / weights.length;
  const chosen = inputs.sequenceOffsets[PAIRS.length];
  const nll = -inputs.logps.subarray(0, chosen).reduce((a, b) => a + b, 0) / chosen;
  using plain = await onPairs(model, { loss: "dpo,sft", useWeighting: true });
  assert.equal(plain.initialLoss, undefined, "the first loss is the data's");
  const [record] = await run(plain);
  assertLogged(record, { "loss/dpo": Math.LN2 * mean, nll_loss: nll, loss: Math.LN2 * mean + nll }, {});
});

for (const loss of ["dpo", "simpo,sft", "ipo,orpo"]) {
  gpuTest(`${loss} with WPO's weights is the same in parts`, async (gpu) => {
    const trained = async (split: Split, useWeighting = true) => {
      using model = tinyModel(gpu);
      using objective = await onPairs(model, { loss, useWeighting });
      const records = await run(objective, { maxSteps: 3, ...split });
      return { records, weights: await readWeights(model) };
    };
    const whole = await trained({});
    const unweighted = await trained({}, false);
    assert.notEqual(whole.records[0].loss, unweighted.records[0].loss, "weights change the loss");
    for (const split of SPLITS.slice(1)) {
      const parts = await trained(split);
      for (const [step, record] of whole.records.entries()) {
        const { tokens_per_second: _, ...expected } = record as Record<string, number>;
        for (const [name, value] of Object.entries(expected)) {
          const found = Number(parts.records[step][name]);
          assertClose([found], [value], { what: `${name} of step ${step + 1}`, rtol: 1e-4, atol: 1e-4 });
        }
      }
      assertClose(parts.weights, whole.weights, { what: "weights", rtol: 1e-4, atol: 1e-4 });
    }
  });
}

gpuTest("weights are refused by a loss that sorts the batch", async (gpu: Gpu) => {
  using model = tinyModel(gpu);
  await assert.rejects(
    onPairs(model, { loss: "aot", useWeighting: true }),
    /Cannot train with aot: expected a loss of single pairs with useWeighting/,
  );
});
