import assert from "node:assert/strict";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { toHost } from "../../engine/tensor.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import type { Model } from "../../train/models/model.ts";
import { loadModel, saveModel } from "../../train/models/model_files.ts";
import { type Objective, preferenceObjective, sftObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train, TrainingError, type TrainOptions } from "../../train/trainer.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { randomCompletions, randomPairs, temporaryFolder, tinyModel, tinyTokenizer } from "../tiny_model.ts";

const COMPLETIONS = randomCompletions(24, 3);
const PAIRS = randomPairs(24, 5);

type Make = (model: Model) => Objective | Promise<Objective>;

const sft: Make = (model) => sftObjective(model, COMPLETIONS);
const dpo: Make = async (model) =>
  preferenceObjective(model, {
    ...{ pairs: PAIRS, reference: await referenceLogps(model, PAIRS), lambda: 0 },
    loss: PAIR_LOSSES.dpo.resolve({}),
    spoAt: () => NO_PENALTY,
  });

interface Overrides {
  initial?: number;
  minimum?: number;
  maxSteps?: number;
  logEvery?: number;
  onLog?: TrainOptions["onLog"];
}

async function run(model: Model, make: Make, overrides: Overrides = {}): Promise<MetricsRecord[]> {
  const { initial = 2 ** 12, minimum = 1, maxSteps = 20, logEvery = 1, onLog } = overrides;
  using objective = await make(model);
  const records: MetricsRecord[] = [];
  await train(objective, {
    optimizer: {
      ...{ beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 },
      lossScale: { initial, growthInterval: 2000, minimum },
    },
    schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps },
    ...{ batchSize: 4, seed: 1, logEvery },
    onLog: async (record) => {
      records.push(record);
      await onLog?.(record);
    },
  });
  return records;
}

const column = (records: readonly MetricsRecord[], name: string) =>
  records.map((record) => Number(record[name]));

/** A second layer, for errors to add up. */
const CONFIG = { num_hidden_layers: 2 };

for (const [name, make] of [["sft", sft], ["dpo", dpo]] as const) {
  gpuTest(`${name} in f16 trains as in f32: 20 steps`, async (gpu) => {
    using half = tinyModel(gpu, { config: CONFIG, dtype: "f16" });
    using whole = tinyModel(gpu, { config: CONFIG });
    const [found, expected] = [await run(half, make), await run(whole, make)];
    // f16 keeps 11 bits of each activation: 5e-4 of its value, some of it adding up over layers and steps.
    for (const metric of ["loss", "grad_norm"]) {
      const close = { what: metric, atol: 0.02, rtol: 0.02 };
      assertClose(column(found, metric), column(expected, metric), close);
    }
    const losses = column(found, "loss");
    assert.ok(losses.slice(-4).every((loss) => loss < losses[0]), `${losses}`);
    assert.deepEqual(column(found, "loss_scale"), Array(20).fill(2 ** 12));
    assert.equal(expected[0].loss_scale, undefined);
    assert.deepEqual(column(found, "skipped_steps"), Array(20).fill(0));
    // The copy that kernels read is the master, rounded.
    const tensor = half.parameters.get("model.layers.0.self_attn.o_proj.weight");
    assert.equal(tensor.type, "f16");
    assertClose(await toHost(tensor), await half.parameters.read("model.layers.0.self_attn.o_proj.weight"), {
      what: "copy",
      atol: 1e-7,
      rtol: 2 ** -11,
    });
  }, { layouts: LAYOUTS });
}

async function weightsOf(model: Model): Promise<Map<string, Float32Array>> {
  const weights = new Map<string, Float32Array>();
  for (const name of model.parameters.shapes.keys()) weights.set(name, await model.parameters.read(name));
  return weights;
}

gpuTest("steps that overflow are skipped, halve the scale and change no weight", async (gpu) => {
  using model = tinyModel(gpu, { dtype: "f16" });
  const start = await weightsOf(model);
  const scales: number[] = [];
  const records = await run(model, sft, {
    // Far too large for f16 gradients: the first steps overflow.
    initial: 2 ** 24,
    maxSteps: 24,
    onLog: async (record) => {
      scales.push(record.loss_scale as number);
      if (record.skipped_steps === record.global_step) assert.deepEqual(await weightsOf(model), start);
    },
  });
  const skipped = column(records, "skipped_steps").at(-1)!;
  assert.ok(skipped >= 2 && skipped < 20, `${skipped} skipped steps`);
  assert.equal(scales.at(-1), 2 ** (24 - skipped));
  assert.notDeepEqual(await weightsOf(model), start);
  for (const values of (await weightsOf(model)).values()) assert.ok(values.every(Number.isFinite));
  // Means leave out what overflowed.
  using again = tinyModel(gpu, { dtype: "f16" });
  const [grouped] = await run(again, sft, { initial: 2 ** 24, maxSteps: 24, logEvery: 24 });
  assert.ok(Number.isFinite(grouped.grad_norm) && Number.isFinite(grouped.loss));
  assert.deepEqual([grouped.loss_scale, grouped.skipped_steps], [2 ** (24 - skipped), skipped]);
});

gpuTest(
  "an infinite weight ends a run in f16 at the least scale, and reaches no other weight",
  async (gpu) => {
    using model = tinyModel(gpu, { dtype: "f16" });
    const norm = "model.norm.weight";
    model.parameters.write(norm, (await model.parameters.read(norm)).fill(Infinity, 0, 1));
    const planted = await weightsOf(model);
    await assert.rejects(
      run(model, sft, { initial: 8, minimum: 2 }),
      (error: Error) =>
        error instanceof TrainingError &&
        /^Cannot go on at step 3: expected finite gradients at a loss scale of at least 2, found 3 skipped/
          .test(error.message),
    );
    assert.deepEqual(await weightsOf(model), planted);
  },
);

for (const dtype of ["f32", "f16"] as const) {
  gpuTest(
    `a frozen model in bf16 under ${dtype} activations scores as its rounded weights do`,
    async (gpu) => {
      const folder = temporaryFolder();
      using model = tinyModel(gpu, { config: CONFIG });
      await saveModel(folder, model, { tokenizer: tinyTokenizer(), dtype: "bf16" });
      const load = (options: { storage?: "bf16"; dtype?: "f32" | "f16" }) =>
        loadModel(gpu, folder, { trainable: false, ...options });
      using packed = (await load({ storage: "bf16", dtype })).model;
      using widened = (await load({})).model;
      const name = "model.layers.1.mlp.up_proj.weight";
      assert.equal(packed.parameters.get(name).type, "bf16");
      assert.deepEqual(await weightsOf(packed), await weightsOf(widened));
      const [found, expected] = [await referenceLogps(packed, PAIRS), await referenceLogps(widened, PAIRS)];
      const close = dtype === "f32" ? { atol: 1e-4, rtol: 1e-5 } : { atol: 0.05, rtol: 5e-3 };
      assertClose(found.chosen, expected.chosen, { what: "chosen", ...close });
      assertClose(found.rejected, expected.rejected, { what: "rejected", ...close });
    },
  );
}

gpuTest("a weight that f16 cannot hold is refused by name", async (gpu) => {
  const folder = temporaryFolder();
  using model = tinyModel(gpu);
  const name = "lm_head.weight";
  model.parameters.write(name, (await model.parameters.read(name)).fill(1e5, 3, 4));
  await saveModel(folder, model, { tokenizer: tinyTokenizer() });
  await assert.rejects(
    () => loadModel(gpu, folder, { trainable: true, dtype: "f16" }),
    /^CheckpointError: Cannot load .* as f16: expected weights that it can hold, found 100000 in lm_head\.weight$/,
  );
});
