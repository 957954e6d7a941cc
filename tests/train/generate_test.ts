import assert from "node:assert/strict";
import { Gpu } from "../../engine/gpu.ts";
import { greedyDecode } from "../../train/generate.ts";
import type { Model } from "../../train/models/model.ts";
import { gpuTest } from "../gpu.ts";
import { referenceTokenLogps, TINY_VOCAB, tinyModel } from "../tiny_model.ts";

const PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10], [11, 3]];

/** The most probable continuation by the f64 model. */
async function referenceGreedy(model: Model, prompt: number[], length: number): Promise<number[]> {
  const ids: number[] = [];
  const source = { file: "made.jsonl", line: 1 };
  for (let step = 0; step < length; step++) {
    const promptIds = [...prompt, ...ids];
    const candidates = Array.from(
      { length: TINY_VOCAB },
      (_, id) => ({ promptIds, completionIds: [id], source }),
    );
    const logps = (await referenceTokenLogps(model, candidates)).map(([logp]) => logp);
    ids.push(logps.indexOf(Math.max(...logps)));
  }
  return ids;
}

gpuTest(
  "greedy decoding takes the f64 model's most probable ids, whatever is decoded beside",
  async (gpu) => {
    using model = tinyModel(gpu);
    const expected: number[][] = [];
    for (const prompt of PROMPTS) expected.push(await referenceGreedy(model, prompt, 6));
    for (const batchSize of [256, 1, 3]) {
      assert.deepEqual(await greedyDecode(model, PROMPTS, { maxNewTokens: 6, batchSize }), expected);
    }
    assert.deepEqual(await greedyDecode(model, [], { maxNewTokens: 6 }), []);
  },
);

gpuTest("a stop id ends its own sequence alone and stays in it", async (gpu) => {
  using model = tinyModel(gpu);
  const full = await greedyDecode(model, PROMPTS, { maxNewTokens: 12 });
  const stop = full[0][1];
  const cut = full.map((ids) => ids.includes(stop) ? ids.slice(0, ids.indexOf(stop) + 1) : ids);
  assert.ok(new Set(cut.map((ids) => ids.length)).size > 1, `sequences must end at different steps: ${cut}`);
  assert.deepEqual(await greedyDecode(model, PROMPTS, { maxNewTokens: 12, stopIds: [stop] }), cut);
});

gpuTest("an empty prompt, and one that leaves the model's positions, are refused", async (gpu) => {
  using model = tinyModel(gpu);
  await assert.rejects(
    greedyDecode(model, [[1], []], { maxNewTokens: 1 }),
    /^RangeError: Cannot decode: expected at least one token in prompt 1, found none$/,
  );
  await assert.rejects(
    greedyDecode(model, [[1, 2, 3]], { maxNewTokens: 31 }),
    /^RangeError: Cannot run the model: expected at most 32 tokens a sequence, found 33$/,
  );
});

/** An adapter whose bindings hold 64 rows of the embedding. */
class SmallGpu extends Gpu {
  override get maxBindingBytes(): number {
    return 64 * 16 * 4;
  }
}

gpuTest("an embedding in three row shards decodes as one in one piece", async (gpu) => {
  const config = { vocab_size: 160, intermediate_size: 16 };
  const small = new SmallGpu(gpu.device, gpu.adapter, { poison: true });
  using whole = tinyModel(gpu, { config });
  {
    using cut = tinyModel(small, { config });
    assert.equal(cut.parameters.shards("lm_head.weight").length, 3);
    const expected = await greedyDecode(whole, PROMPTS, { maxNewTokens: 8 });
    assert.ok(
      expected.flat().some((id) => id >= 128) && expected.flat().some((id) => id < 64),
      `${expected}`,
    );
    assert.deepEqual(await greedyDecode(cut, PROMPTS, { maxNewTokens: 8 }), expected);
  }
  assert.equal(small.stats().memory.usedBytes, 0);
  small.buffers.destroy();
});
