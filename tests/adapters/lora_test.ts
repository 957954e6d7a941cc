import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { toHost } from "../../engine/tensor.ts";
import { addLora, factorName, type LoraOptions, withAdapterOff } from "../../train/adapters/lora.ts";
import { ConfigError } from "../../train/errors.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import { parseModelConfig } from "../../train/models/config.ts";
import { createModel, type Model, type ModelOptions } from "../../train/models/model.ts";
import { initializeModel } from "../../train/models/initialize.ts";
import { preferenceObjective, sftObjective } from "../../train/objective.ts";
import { createRandom } from "../../train/random.ts";
import { completionLogps, referenceLogps } from "../../train/reference.ts";
import { cachedReferenceLogps } from "../../train/reference_cache.ts";
import { train, type TrainOptions } from "../../train/trainer.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { randomCompletions, randomPairs, readWeights, temporaryFolder } from "../tiny_model.ts";

const CONFIG = {
  ...{ model_type: "llama", vocab_size: 16, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2 },
  ...{ num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 32, initializer_range: 0.3 },
};
const COMPLETIONS = randomCompletions(24, 3);
const PAIRS = randomPairs(24, 5);

function frozenModel(gpu: Gpu, options: Omit<ModelOptions, "trainable"> = {}): Model {
  const model = createModel(gpu, parseModelConfig(CONFIG, { file: "config.json" }), {
    trainable: false,
    ...options,
  });
  initializeModel(model, createRandom(1));
  return model;
}

function loraModel(
  gpu: Gpu,
  options: Partial<LoraOptions> & { model?: Omit<ModelOptions, "trainable"> } = {},
): Model {
  const { model, ...lora } = options;
  return addLora(frozenModel(gpu, model), { rank: 4, ...lora });
}

async function adapterOf(model: Model): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const name of model.trained.shapes.keys()) values.set(name, await model.trained.read(name));
  return values;
}

/** Draws both factors: a fresh adapter changes nothing. */
function stir({ trained }: Model, seed = 7): void {
  const random = createRandom(seed);
  for (const [name, [rows, columns]] of trained.shapes) {
    const values = Float32Array.from({ length: rows * columns }, () => random.nextUint32() / 2 ** 32 - 0.5);
    trained.write(name, values);
  }
}

async function run(
  model: Model,
  options: Partial<TrainOptions> & { loss?: "sft" | "dpo"; sharePrompts?: boolean } = {},
): Promise<MetricsRecord[]> {
  const { loss = "sft", sharePrompts, ...rest } = options;
  using objective = loss === "sft" ? sftObjective(model, COMPLETIONS) : preferenceObjective(model, {
    ...{
      pairs: PAIRS,
      reference: await withAdapterOff(model, (base) => referenceLogps(base, PAIRS)),
      lambda: 0,
    },
    ...{ loss: PAIR_LOSSES.dpo.resolve({}), spoAt: () => NO_PENALTY, sharePrompts },
  });
  const records: MetricsRecord[] = [];
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 12 },
    ...{ batchSize: 4, seed: 1, logEvery: 1 },
    ...rest,
    onLog: (record) => void records.push(record),
  });
  return records;
}

const losses = (records: readonly MetricsRecord[]) => records.map(({ loss }) => Number(loss));

gpuTest(
  "a fresh adapter changes nothing, bit for bit; its first factors are PEFT's, its second zero",
  async (gpu) => {
    using base = frozenModel(gpu);
    using model = loraModel(gpu, { rank: 3, seed: 5 });
    assert.deepEqual(await completionLogps(model, COMPLETIONS), await completionLogps(base, COMPLETIONS));
    assert.equal(model.adapter!.scale, 2);
    let drawn = 0;
    for (const [name, values] of await adapterOf(model)) {
      if (name.includes("lora_B")) assert.ok(values.every((value) => value === 0), name);
      else {
        const bound = model.trained.shapes.get(name)![1] ** -0.5;
        assert.ok(values.every((value) => Math.abs(value) <= bound), name);
        const spread = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
        assert.ok(Math.abs(spread * Math.sqrt(3) / bound - 1) < 0.3, `${name}: ${spread}`);
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
        assert.ok(Math.abs(mean) < 0.35 * bound, `${name}: ${mean}`);
        drawn++;
      }
    }
    assert.equal(drawn, 2 * 7);
    using again = loraModel(gpu, { rank: 3, seed: 5, targetModules: ["down_proj"] });
    using other = loraModel(gpu, { rank: 3, seed: 6 });
    const down = factorName("model.layers.1.mlp.down_proj", "A");
    assert.deepEqual(await again.trained.read(down), await model.trained.read(down));
    assert.notDeepEqual(await other.trained.read(down), await model.trained.read(down));
  },
  { layouts: LAYOUTS },
);

for (const loss of ["sft", "dpo"] as const) {
  gpuTest(
    `${loss}: the adapter learns; no byte of the base changes, and nothing of it is trained`,
    async (gpu) => {
      using base = frozenModel(gpu);
      const before = await completionLogps(base, COMPLETIONS);
      using model = loraModel(gpu);
      const weights = await readWeights(model);
      assert.ok(model.parameters.blocks.every(({ gradient, copy }) => !gradient && !copy));
      assert.equal(model.trained.count, model.adapter!.parameters.count);
      const start = await adapterOf(model);
      const found = losses(
        await run(model, {
          loss,
          schedule: {
            ...{ kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 30 },
          },
        }),
      );
      assert.ok(found.slice(-4).every((value) => value < 0.9 * found[0]), `${found}`);
      assert.deepEqual(await readWeights(model), weights);
      for (const [name, values] of await adapterOf(model)) assert.notDeepEqual(values, start.get(name), name);
      assert.notDeepEqual(await completionLogps(model, COMPLETIONS), before);
      assert.deepEqual(await withAdapterOff(model, (off) => completionLogps(off, COMPLETIONS)), before);
    },
  );
}

gpuTest("accumulated gradients are those of the whole batch", async (gpu) => {
  using whole = loraModel(gpu);
  using parts = loraModel(gpu);
  for (const model of [whole, parts]) stir(model);
  const expected = losses(await run(whole));
  assertClose(losses(await run(parts, { gradientAccumulationSteps: 4 })), expected, {
    what: "loss",
    rtol: 1e-4,
  });
  const [found, wanted] = [await adapterOf(parts), await adapterOf(whole)];
  // Adam's first steps have the size of the learning rate, whatever the gradient's: signs of tiny ones may differ.
  for (const [name, values] of found) assertClose(values, wanted.get(name)!, { what: name, atol: 2e-3 });
});

gpuTest("activation checkpointing gives the same bits, shared prompts the same numbers", async (gpu) => {
  using plain = loraModel(gpu);
  using checkpointed = loraModel(gpu, { model: { activationCheckpointing: true } });
  using separate = loraModel(gpu);
  const expected = await run(plain, { loss: "dpo" });
  assert.deepEqual(losses(await run(checkpointed, { loss: "dpo" })), losses(expected));
  assert.deepEqual(await adapterOf(checkpointed), await adapterOf(plain));
  const found = await run(separate, { loss: "dpo", sharePrompts: false });
  assertClose(losses(found), losses(expected), { what: "loss", rtol: 1e-3 });
});

for (
  const [dtype, storage] of [
    ["f32", "bf16"],
    ["f32", "f16"],
    ["f16", "f16"],
    ["f16", "bf16"],
    ["f16", "f32"],
  ] as const
) {
  const loss = dtype === "f16" ? "dpo" : "sft";
  gpuTest(
    `${loss} in ${dtype} on a base in ${storage} is that in f32 on the rounded weights`,
    async (gpu) => {
      using narrow = loraModel(gpu, { model: { dtype, storage } });
      using whole = loraModel(gpu);
      assert.equal(narrow.parameters.get("model.layers.0.mlp.up_proj.weight").type, storage);
      assert.equal(narrow.trained.get(factorName("model.layers.0.mlp.up_proj", "B")).type, "f32");
      for (const name of whole.parameters.shapes.keys()) {
        whole.parameters.write(name, await narrow.parameters.read(name));
      }
      const weights = await readWeights(narrow);
      const [found, expected] = [await run(narrow, { loss }), await run(whole, { loss })];
      // f16 keeps 11 bits of each activation, as without an adapter.
      const close = dtype === "f16" ? { atol: 0.03, rtol: 0.03 } : { rtol: 1e-4 };
      assertClose(losses(found), losses(expected), { what: `${loss} loss`, ...close });
      assert.deepEqual(await readWeights(narrow), weights);
      if (dtype === "f16") assert.equal(found.at(-1)!.skipped_steps, found[0].skipped_steps);
    },
    { layouts: LAYOUTS },
  );
}

gpuTest("what is shared by an adapter and its base lives once", async (gpu) => {
  using model = loraModel(gpu, { targetModules: ["q_proj", "v_proj"] });
  assert.deepEqual(
    [...model.adapter!.modules],
    [0, 1].flatMap((layer) => ["q_proj", "v_proj"].map((name) => `model.layers.${layer}.self_attn.${name}`)),
  );
  stir(model);
  const off = await withAdapterOff(model, async (base) => {
    assert.equal(base.adapter, undefined);
    assert.equal(base.parameters, model.parameters);
    return await completionLogps(base, COMPLETIONS);
  });
  assert.notDeepEqual(await completionLogps(model, COMPLETIONS), off);
  const [a] = await toHost(model.trained.joined(
    ["q_proj", "v_proj"].map((name) => factorName(`model.layers.0.self_attn.${name}`, "A")),
  ));
  assert.ok(Number.isFinite(a));
});

gpuTest(
  "kept log-probs belong to one adapter, at one scale; without it they are the base's of any run",
  async (gpu) => {
    const folder = temporaryFolder();
    const kept = async (model: Model) => (await cachedReferenceLogps(model, PAIRS, { folder })).chosen;
    using base = frozenModel(gpu);
    const ofBase = await kept(base);
    const found: Float32Array[] = [ofBase];
    for (const options of [{ seed: 7 }, { seed: 8 }, { seed: 7, alpha: 2 }]) {
      using model = loraModel(gpu, options);
      stir(model, options.seed);
      const values = await kept(model);
      assert.deepEqual(values, (await referenceLogps(model, PAIRS)).chosen);
      found.push(values);
      const files = [...Deno.readDirSync(folder)].length;
      assert.deepEqual(await withAdapterOff(model, kept), ofBase);
      assert.equal([...Deno.readDirSync(folder)].length, files);
    }
    assert.equal(new Set(found.map((values) => values.join())).size, 4);
  },
);

gpuTest("what cannot be done is refused before anything is allocated", (gpu) => {
  const refuses = (model: Model, options: LoraOptions, message: string) => {
    using _ = model;
    assert.throws(() => addLora(model, options), new ConfigError(`Cannot add LoRA: expected ${message}`));
  };
  refuses(frozenModel(gpu), { rank: 0 }, "a rank of at least 1, found 0");
  refuses(frozenModel(gpu), { rank: 2, dropout: 0.1 }, "a dropout of 0, found 0.1");
  refuses(
    frozenModel(gpu, { storage: "bf16" }),
    { rank: 6 },
    "a rank that divides by four, as 16-bit weights and activations need, found 6",
  );
  refuses(
    createModel(gpu, parseModelConfig(CONFIG, { file: "config.json" }), { trainable: true }),
    { rank: 2 },
    "a frozen model, found one whose weights are trained",
  );
  refuses(loraModel(gpu), { rank: 2 }, "a model without an adapter, found one with it");
});
