import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError } from "../../train/errors.ts";
import type { Model } from "../../train/models/model.ts";
import { loadModel, saveModel } from "../../train/models/model_files.ts";
import { initializeModel } from "../../train/models/initialize.ts";
import { createRandom } from "../../train/random.ts";
import { gpuTest } from "../gpu.ts";
import { modelFolder, readWeights, temporaryFolder, tinyModel, tinyTokenizer } from "../tiny_model.ts";

const FIXTURE = (name: string, file: string) => new URL(`../golden/${name}/${file}`, import.meta.url);

/** Every file of a folder. */
function filesOf(folder: string): Record<string, Uint8Array> {
  return Object.fromEntries(
    readdirSync(folder).sort().map((name) => [name, new Uint8Array(readFileSync(join(folder, name)))]),
  );
}

for (const tie_word_embeddings of [false, true]) {
  gpuTest(
    `a saved model (head ${
      tie_word_embeddings ? "tied" : "of its own"
    }) loads as it was and saves to equal bytes`,
    async (gpu) => {
      const [first, second] = [temporaryFolder(), join(temporaryFolder(), "made", "on demand")];
      using model = tinyModel(gpu, { config: { tie_word_embeddings } });
      await saveModel(first, model, { tokenizer: tinyTokenizer() });
      const loaded = await loadModel(gpu, first, { trainable: true });
      using again = loaded.model;
      assert.deepEqual(again.config, model.config);
      assert.deepEqual(await readWeights(again), await readWeights(model));
      await saveModel(second, again, { tokenizer: loaded.tokenizer });
      const expected = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
      assert.deepEqual(Object.keys(filesOf(first)), expected);
      assert.deepEqual(filesOf(second), filesOf(first));
    },
  );
}

gpuTest(
  "weights saved as bfloat16 load rounded to eight bits, and save to equal bytes again",
  async (gpu) => {
    const [first, second] = [temporaryFolder(), temporaryFolder()];
    using model = tinyModel(gpu);
    await saveModel(first, model, { tokenizer: tinyTokenizer(), dtype: "bf16" });
    const { model: rounded, tokenizer } = await loadModel(gpu, first, { trainable: false });
    using _ = rounded;
    const exact = await readWeights(model);
    const found = await readWeights(rounded);
    assert.ok(found.every((value, i) => Math.abs(value - exact[i]) <= 2 ** -8 * Math.abs(exact[i])));
    assert.notDeepEqual(found, exact);
    await saveModel(second, rounded, { tokenizer, dtype: "bf16" });
    assert.deepEqual(filesOf(second), filesOf(first));
  },
);

gpuTest("a tokenizer with more ids than the embedding has rows is refused", async (gpu) => {
  const files = {
    "config.json": FIXTURE("tiny_llama", "config.json"),
    "model.safetensors": FIXTURE("tiny_llama", "model.safetensors"),
  };
  const folder = modelFolder(files, 49);
  await assert.rejects(() => loadModel(gpu, folder, { trainable: false }), (error) => {
    assert.ok(error instanceof CheckpointError);
    assert.equal(
      error.message,
      `Cannot load ${folder}: expected a tokenizer of at most 48 ids (vocab_size in config.json), ` +
        "found 49 in tokenizer.json",
    );
    return true;
  });
});

gpuTest(
  "weights of another model are refused, naming the tensor, and nothing stays on the GPU",
  async (gpu) => {
    const files = {
      "config.json": FIXTURE("tiny_llama_tied", "config.json"),
      "model.safetensors": FIXTURE("tiny_llama", "model.safetensors"),
    };
    await assert.rejects(
      () => loadModel(gpu, modelFolder(files, 48), { trainable: true }),
      /CheckpointError: Cannot read .*model\.safetensors: tensor "lm_head\.weight": expected the values of/,
    );
  },
);

gpuTest("a weight that is not finite is refused, naming it, and nothing stays on the GPU", async (gpu) => {
  const folder = temporaryFolder();
  using model = tinyModel(gpu);
  const name = "model.layers.0.mlp.up_proj.weight";
  model.parameters.write(name, new Float32Array(16).fill(NaN), 3);
  await saveModel(folder, model, { tokenizer: tinyTokenizer() });
  await assert.rejects(
    () => loadModel(gpu, folder, { trainable: true }),
    (error: Error) => error instanceof CheckpointError && error.message.includes(name),
  );
});

gpuTest("a save that fails leaves the model that was there, and no half file", async (gpu) => {
  const folder = temporaryFolder();
  using model = tinyModel(gpu);
  await saveModel(folder, model, { tokenizer: tinyTokenizer() });
  const before = filesOf(folder);
  using other = tinyModel(gpu, { seed: 2 });
  const failing = {
    ...other,
    parameters: {
      shapes: other.parameters.shapes,
      readStored(name: string) {
        if (name === "lm_head.weight") throw new Error("the device was lost");
        return other.parameters.readStored(name);
      },
    },
  } as unknown as Model;
  await assert.rejects(
    () => saveModel(folder, failing, { tokenizer: tinyTokenizer() }),
    /the device was lost/,
  );
  assert.deepEqual(filesOf(folder), before);
});

gpuTest("fresh weights have the config's spread, come from the seed, and norms are one", async (gpu) => {
  const config = { hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, initializer_range: 0.02 };
  using model = tinyModel(gpu, { config });
  using same = tinyModel(gpu, { config });
  assert.deepEqual(await readWeights(same), await readWeights(model));
  for (const [name, shape] of model.parameters.shapes) {
    const values = await model.parameters.read(name);
    if (shape.length === 1) {
      assert.ok(values.every((value) => value === 1), name);
      continue;
    }
    const std = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
    // GPT-2: what adds to the residual stream starts smaller, by the root of the 2 L additions.
    const expected = /(o_proj|down_proj)/.test(name) ? 0.01 : 0.02;
    assert.ok(Math.abs(std / expected - 1) < 0.1, `${name}: ${std}`);
  }
  initializeModel(same, createRandom(2));
  assert.notDeepEqual(await readWeights(same), await readWeights(model));
});
