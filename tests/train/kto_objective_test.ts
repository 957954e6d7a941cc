import assert from "node:assert/strict";
import { addLora } from "../../train/adapters/lora.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import { preferenceObjective, sftObjective } from "../../train/objective.ts";
import { liveReference } from "../../train/live_reference.ts";
import { resolveUnpairedLoss } from "../../train/losses/unpaired.ts";
import { klSequences, unpairedObjective } from "../../train/objectives/kto.ts";
import { completionLogps, referenceLogps } from "../../train/reference.ts";
import { train, type TrainOptions } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import * as twin from "../reference/kto_loss.ts";
import { randomCompletions, randomPairs, tinyModel } from "../tiny_model.ts";

const EXAMPLES = randomCompletions(12, 3).map((one, index) => ({ ...one, desirable: index % 3 !== 0 }));

const OPTIONS: TrainOptions = {
  optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
  schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 8 },
  ...{ batchSize: 12, seed: 0, logEvery: 1 },
};

Deno.test("KL sequences join each prompt with the answer before it, and cut what does not fit", () => {
  const batch = [[[1], [2, 3]], [[4, 5], [6]], [[7], [8, 9]]].map(([promptIds, completionIds]) => ({
    ...{ promptIds, completionIds, source: { file: "made" } },
  }));
  const ids = klSequences(batch, 3).map(({ promptIds, completionIds }) => [promptIds, completionIds]);
  assert.deepEqual(ids, [[[1], [8, 9]], [[4, 5], [2]], [[7], [6]]]);
});

for (const name of ["kto", "apo_zero_unpaired"] as const) {
  gpuTest(`${name}: good answers gain on bad ones, and the logged numbers are the twin's`, async (gpu) => {
    using model = tinyModel(gpu);
    using reference = liveReference(model);
    const before = await completionLogps(model, EXAMPLES);
    using objective = unpairedObjective(model, {
      examples: EXAMPLES,
      reference,
      loss: resolveUnpairedLoss(name),
    });
    const records: Record<string, number>[] = [];
    await train(objective, {
      ...OPTIONS,
      onLog: (record) => void records.push(record as typeof records[number]),
    });
    assert.deepEqual(await completionLogps(reference.model, EXAMPLES), before, "the reference stays");
    assert.ok(Math.abs(records[0].loss - 0.5) < 1e-5);
    assert.ok(records[7].loss < records[0].loss);
    assert.ok(records[7]["rewards/margins"] > 0);
    // One more step tells what the trained model is like.
    const after: Record<string, number>[] = [];
    const s = Float64Array.from(await completionLogps(model, EXAMPLES));
    using again = unpairedObjective(model, {
      ...{ examples: EXAMPLES, reference, loss: resolveUnpairedLoss(name), startsAtReference: false },
    });
    await train(again, {
      ...OPTIONS,
      schedule: { ...OPTIONS.schedule, maxSteps: 1 },
      onLog: (record) => void after.push(record as typeof after[number]),
    });
    const desirable = EXAMPLES.map(({ desirable }) => desirable);
    const { metrics } = twin.forward({ s, ref: Float64Array.from(before), desirable }, {
      ...{ beta: 0.1, desirableWeight: 1, undesirableWeight: 1 },
    });
    for (const key of ["rewards/chosen", "rewards/rejected", "logps/chosen", "displacement/rejected_delta"]) {
      assert.ok(Math.abs(after[0][key] - metrics[key]) < 1e-4 * (1 + Math.abs(metrics[key])), key);
    }
    if (name === "kto") assert.ok(after[0].kl >= 0);
    else assert.ok(Math.abs(after[0].loss - metrics.loss) < 1e-5);
  });
}

gpuTest(
  "the base is a reference of an adapter without memory; a trained adapter is kept as it was",
  async (gpu) => {
    using model = addLora(tinyModel(gpu, { trainable: false }), { rank: 2 });
    const base = await completionLogps(model, EXAMPLES);
    const name = [...model.trained.shapes.keys()].find((key) => key.includes("lora_B"))!;
    const write = (value: number) => {
      const [rows, columns] = model.trained.shapes.get(name)!;
      model.trained.write(name, new Float32Array(rows * columns).fill(value));
    };
    write(0.5);
    const trained = await completionLogps(model, EXAMPLES);
    assert.notDeepEqual(trained, base);
    const used = gpu.stats().memory.usedBytes;
    using off = liveReference(model, { reference: "base" });
    assert.equal(gpu.stats().memory.usedBytes, used);
    using start = liveReference(model);
    write(-1);
    assert.deepEqual(await completionLogps(off.model, EXAMPLES), base);
    assert.deepEqual(await completionLogps(start.model, EXAMPLES), trained);
  },
);

for (const lora of [false, true]) {
  gpuTest(
    `a reference run in every step of dpo${lora ? " with LoRA" : ""} gives the precomputed one's losses`,
    async (gpu) => {
      const pairs = randomPairs(8, 5);
      const run = async (isLive: boolean) => {
        const base = tinyModel(gpu, { trainable: !lora });
        using model = lora ? addLora(base, { rank: 2 }) : base;
        using live = liveReference(model, { reference: lora ? "base" : "start" });
        using objective = preferenceObjective(model, {
          ...{ pairs, lambda: 0, loss: PAIR_LOSSES.dpo.resolve({}), spoAt: () => NO_PENALTY },
          reference: isLive ? live : await referenceLogps(model, pairs),
        });
        const losses: number[] = [];
        const onLog = (record: MetricsRecord) => void losses.push(Number(record.loss));
        await train(objective, { ...OPTIONS, batchSize: 4, gradientAccumulationSteps: 2, onLog });
        return losses;
      };
      const [found, expected] = [await run(true), await run(false)];
      assert.ok(expected[7] < expected[0]);
      found.forEach((loss, step) =>
        assert.ok(Math.abs(loss - expected[step]) < 1e-5, `${loss} ${expected[step]}`)
      );
    },
  );
}

gpuTest("a reference follows the policy at its steps alone; not that of an adapter", async (gpu) => {
  using model = tinyModel(gpu);
  using reference = liveReference(model, { sync: { alpha: 0.25, steps: 3 } });
  const name = "model.norm.weight";
  model.parameters.write(name, new Float32Array(16).fill(5));
  reference.afterStep!(2);
  assert.deepEqual([...await reference.model.parameters.read(name)], Array(16).fill(1));
  reference.afterStep!(3);
  assert.deepEqual([...await reference.model.parameters.read(name)], Array(16).fill(2));
  using adapted = addLora(tinyModel(gpu, { trainable: false }), { rank: 2 });
  assert.throws(() => liveReference(adapted, { sync: { alpha: 0.6, steps: 1 } }), /without an adapter/);
});

gpuTest("a run whose first gradient is zero stops and says so", async (gpu) => {
  using model = tinyModel(gpu);
  // All zero, every id is equally likely whatever one of them is changed by.
  for (const [name, shape] of model.parameters.shapes) {
    model.parameters.write(name, new Float32Array(shape.reduce((size, extent) => size * extent, 1)));
  }
  using objective = sftObjective(model, EXAMPLES);
  await assert.rejects(train(objective, OPTIONS), /expected a gradient in the first step, found none/);
});
