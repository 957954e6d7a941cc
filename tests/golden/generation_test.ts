import assert from "node:assert/strict";
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { generate } from "../../train/generate.ts";
import { recomputeGreedy } from "../../train/generation/recompute.ts";
import type { Model } from "../../train/models/model.ts";
import { loadModel } from "../../train/models/model_files.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { HAS_SHARED_DATA, SHARED_DATA } from "../shared_data.ts";
import { modelFolder } from "../tiny_model.ts";
import { readGeneration } from "./models/generation.ts";
import { goldenNames, readGolden } from "./models/golden.ts";

const { greedy } = readGeneration();

/** Vocabulary of the golden checkpoints. */
const VOCAB = 48;

async function load(gpu: Gpu, name: string): Promise<Model> {
  const options = { trainable: false };
  if (name === "stories260K") {
    return (await loadModel(gpu, join(SHARED_DATA, "models", name), options)).model;
  }
  const { folder } = await readGolden(name);
  const files = ["config.json", "model.safetensors"].map((file) => [file, join(folder, file)]);
  return (await loadModel(gpu, modelFolder(Object.fromEntries(files), VOCAB), options)).model;
}

for (const name of new Set(greedy.map(({ model }) => model))) {
  if (name === "stories260K" && !HAS_SHARED_DATA) {
    Deno.test({ name: `${name}: continuations (needs shared data)`, ignore: true, fn() {} });
    continue;
  }
  gpuTest(
    `${name}: continuations are those of transformers, with repetition penalty and end token`,
    async (gpu) => {
      using model = await load(gpu, name);
      for (const one of greedy.filter(({ model }) => model === name)) {
        const [found] = await generate(model, [one.prompt], {
          maxNewTokens: one.max_new_tokens,
          repetitionPenalty: one.repetition_penalty,
          stopIds: one.eos_token_id === null ? [] : [one.eos_token_id],
        });
        assert.deepEqual(found, one.continuation);
      }
    },
    { layouts: LAYOUTS },
  );
}

/** Written in one piece, and not for one length only. */
const PLAIN = goldenNames().filter((name) => !/_lora$|^llama_sharded$|^llama_dynamic$/.test(name));

gpuTest("every golden architecture decodes with the cache what recomputation gives", async (gpu) => {
  for (const name of PLAIN) {
    using model = await load(gpu, name);
    const prompts = [[1, 2, 3], [5, 40, 7, 9, 30], [11]];
    const maxNewTokens = Math.min(24, model.positions - 5);
    const expected = await recomputeGreedy(model, prompts, { maxNewTokens });
    assert.deepEqual(await generate(model, prompts, { maxNewTokens }), expected, name);
  }
});
