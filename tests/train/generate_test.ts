import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Gpu, type GpuStats } from "../../engine/gpu.ts";
import { generate, generateWith, generationSize } from "../../train/generate.ts";
import { createKeyValueCache } from "../../train/generation/cache.ts";
import { createDecoder } from "../../train/generation/decoder.ts";
import { recomputeGreedy } from "../../train/generation/recompute.ts";
import { planGeneration } from "../../train/generation/plan.ts";
import type { Model } from "../../train/models/model.ts";
import { planningOptions } from "../../train/plan.ts";
import { loadModel } from "../../train/models/model_files.ts";
import { gpuTest, LAYOUTS, testGpu } from "../gpu.ts";
import { integers, seededRandom } from "../reference/random.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";
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
  "greedy generation takes the f64 model's most probable ids, whatever is decoded beside",
  async (gpu) => {
    using model = tinyModel(gpu);
    const expected: number[][] = [];
    for (const prompt of PROMPTS) expected.push(await referenceGreedy(model, prompt, 6));
    for (const batchSize of [undefined, 1, 3]) {
      assert.deepEqual(await generate(model, PROMPTS, { maxNewTokens: 6, batchSize }), expected);
    }
    assert.deepEqual(await generate(model, [], { maxNewTokens: 6 }), []);
    assert.deepEqual(await generate(model, PROMPTS, { maxNewTokens: 0 }), [[], [], [], []]);
  },
);

/** Random models of several shapes: heads alone and in groups, odd widths, several layers. */
const SHAPES: Record<string, unknown>[] = [
  { num_hidden_layers: 3 },
  { num_attention_heads: 4, num_key_value_heads: 2, hidden_size: 32, intermediate_size: 20 },
  { num_attention_heads: 4, num_key_value_heads: 4, head_dim: 8, num_hidden_layers: 2 },
  { num_attention_heads: 3, num_key_value_heads: 1, hidden_size: 48, head_dim: 64, vocab_size: 61 },
  { num_attention_heads: 2, num_key_value_heads: 2, head_dim: 20, tie_word_embeddings: true },
];

for (const shape of SHAPES) {
  gpuTest(`generation with the cache equals recomputation: ${JSON.stringify(shape)}`, async (gpu) => {
    using model = tinyModel(gpu, { config: { max_position_embeddings: 160, ...shape } });
    const random = seededRandom(3);
    const { vocab } = model.architecture.dimensions;
    const prompts = [1, 9, 40, 3, 70].map((length) => [...integers(random, { length, high: vocab })]);
    const expected = await recomputeGreedy(model, prompts, { maxNewTokens: 80 });
    assert.deepEqual(await generate(model, prompts, { maxNewTokens: 80 }), expected);
    using decoder = createDecoder(model, { sequences: 2, positions: 150, prefillTokens: 16 });
    assert.deepEqual(await generateWith(decoder, prompts, { maxNewTokens: 80 }), expected, "in chunks");
  }, { layouts: LAYOUTS });
}

gpuTest("generation in f16 equals recomputation in f16", async (gpu) => {
  using model = tinyModel(gpu, { dtype: "f16", trainable: false, config: { num_hidden_layers: 2 } });
  const expected = await recomputeGreedy(model, PROMPTS, { maxNewTokens: 20 });
  assert.deepEqual(await generate(model, PROMPTS, { maxNewTokens: 20 }), expected);
}, { layouts: LAYOUTS });

gpuTest("a stop id ends its own sequence alone and stays in it", async (gpu) => {
  using model = tinyModel(gpu);
  const full = await generate(model, PROMPTS, { maxNewTokens: 12 });
  const stop = full[0][1];
  const cut = full.map((ids) => ids.includes(stop) ? ids.slice(0, ids.indexOf(stop) + 1) : ids);
  assert.ok(new Set(cut.map((ids) => ids.length)).size > 1, `sequences must end at different steps: ${cut}`);
  for (const batchSize of [4, 2]) {
    assert.deepEqual(await generate(model, PROMPTS, { maxNewTokens: 12, stopIds: [stop], batchSize }), cut);
  }
});

gpuTest("tokens are told in order, and shouldStop and a signal end sequences", async (gpu) => {
  using model = tinyModel(gpu);
  const full = await generate(model, PROMPTS, { maxNewTokens: 12 });
  const told: number[][] = PROMPTS.map(() => []);
  const cut = await generate(model, PROMPTS, {
    maxNewTokens: 12,
    onToken: (sequence, id) => void told[sequence].push(id),
    shouldStop: (sequence, ids) => ids.length === sequence + 1,
  });
  assert.deepEqual(cut, full.map((ids, sequence) => ids.slice(0, sequence + 1)));
  assert.deepEqual(told, cut);
  const controller = new AbortController();
  const stopped = await generate(model, PROMPTS, {
    maxNewTokens: 12,
    signal: controller.signal,
    onToken: () => controller.abort(),
  });
  assert.deepEqual(stopped, full.map((ids) => ids.slice(0, 1)));
});

gpuTest("a seed's draws depend on the sequence alone", async (gpu) => {
  using model = tinyModel(gpu);
  const options = {
    maxNewTokens: 10,
    temperature: 1.3,
    topK: 12,
    topP: 0.95,
    repetitionPenalty: 1.1,
    seed: 5,
  };
  const drawn = await generate(model, PROMPTS, options);
  assert.deepEqual(await generate(model, PROMPTS, { ...options, batchSize: 1 }), drawn);
  assert.deepEqual(await generate(model, PROMPTS.slice(0, 2), options), drawn.slice(0, 2));
  assert.notDeepEqual(await generate(model, PROMPTS, { ...options, seed: 6 }), drawn);
  const alike = await generate(model, [[1, 2], [1, 2]], options);
  assert.notDeepEqual(alike[0], alike[1], "two sequences of one prompt draw their own numbers");
});

gpuTest("a repetition penalty that forbids all that came before gives ids that all differ", async (gpu) => {
  using model = tinyModel(gpu);
  const [ids] = await generate(model, [[1]], { maxNewTokens: 14, repetitionPenalty: 1e30 });
  // Negative scores are multiplied and positive ones divided: what came is never chosen while another is left.
  assert.equal(new Set([1, ...ids]).size, 15, `${ids}`);
});

gpuTest("a slot goes on with what it holds, and only the rest is taken in", async (gpu) => {
  using model = tinyModel(gpu, { config: { num_hidden_layers: 2 } });
  using decoder = createDecoder(model, { sequences: 1, positions: 31 });
  const [first] = await generateWith(decoder, [[1, 2, 3]], { maxNewTokens: 5, reuse: true });
  assert.deepEqual(decoder.cached[0].slice(0, 7), [1, 2, 3, ...first.slice(0, 4)]);
  const longer = [1, 2, 3, ...first, 7, 8];
  const { dispatches } = gpu.stats();
  const [next] = await generateWith(decoder, [longer], { maxNewTokens: 6, reuse: true });
  assert.ok(gpu.stats().dispatches > dispatches);
  assert.deepEqual([next], await recomputeGreedy(model, [longer], { maxNewTokens: 6 }));
  const other = [1, 2, 9, 9];
  const [after] = await generateWith(decoder, [other], { maxNewTokens: 6, reuse: true });
  assert.deepEqual([after], await recomputeGreedy(model, [other], { maxNewTokens: 6 }));
});

gpuTest("what cannot be generated is refused with the numbers, before anything runs", async (gpu) => {
  using model = tinyModel(gpu);
  const { dispatches } = gpu.stats();
  const refused = (prompts: number[][], options: Parameters<typeof generate>[2], expected: RegExp) =>
    assert.rejects(generate(model, prompts, options), expected);
  await refused(
    [[1], []],
    { maxNewTokens: 1 },
    /^RangeError: Cannot generate: .* one token in prompt 1, found none$/,
  );
  await refused(
    [[1, 2, 3]],
    { maxNewTokens: 30 },
    /at most 32 tokens, .* found 3 in prompt 0 and 30 new ones \(29 are left for new ones\)$/,
  );
  await refused([Array(33).fill(1)], { maxNewTokens: 1 }, /the prompt alone is 1 too long for one\)$/);
  await refused([[1]], { maxNewTokens: 1, topP: 1.5 }, /expected a top-p above 0, up to 1, found 1.5$/);
  await refused([[1]], { maxNewTokens: 1, topP: 0 }, /found 0$/);
  await refused([[1]], { maxNewTokens: 1, topK: 0.5 }, /a top-k of 1 or more, found 0.5$/);
  await refused([[1]], { maxNewTokens: 1, temperature: -1 }, /a temperature of 0 or more, found -1$/);
  await refused([[1]], { maxNewTokens: 1, repetitionPenalty: 0 }, /a repetition penalty above 0, found 0$/);
  await refused([[1]], { maxNewTokens: 1.5 }, /expected 0 or more new tokens, found 1.5$/);
  await refused([[1]], { maxNewTokens: 1, batchSize: 0 }, /expected 1 or more sequences a batch, found 0$/);
  assert.equal(gpu.stats().dispatches, dispatches);
  await refused([[TINY_VOCAB]], { maxNewTokens: 1 }, /expected ids below 16, found 16 at position 0$/);
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
    const expected = await generate(whole, PROMPTS, { maxNewTokens: 8 });
    assert.ok(
      expected.flat().some((id) => id >= 128) && expected.flat().some((id) => id < 64),
      `${expected}`,
    );
    assert.deepEqual(await generate(cut, PROMPTS, { maxNewTokens: 8 }), expected);
    const sampling = { maxNewTokens: 8, temperature: 1, seed: 3 };
    assert.deepEqual(await generate(cut, PROMPTS, sampling), await generate(whole, PROMPTS, sampling));
  }
  assert.equal(small.stats().memory.usedBytes, 0);
  small.buffers.destroy();
});

/** What may not grow. */
function countersOf({ memory, dispatches: _, submits: __, readbacks: ___, ...counters }: GpuStats) {
  return { created: memory.created, used: memory.usedBytes, ...counters };
}

for (const reading of ["ids", "logits"] as const) {
  gpuTest(
    `a token in steady state (${reading}) makes no buffer, pipeline or bind group, and waits once`,
    async (gpu) => {
      using model = tinyModel(gpu);
      using decoder = createDecoder(model, { sequences: 4, positions: 32 });
      await decoder.prefill([0, 1, 2].map((slot) => ({ slot, ids: [slot + 1, 2] })));
      const rows = [0, 1, 2].map((slot) => ({ slot, id: 1 }));
      const step = () => reading === "ids" ? decoder.step(rows, 3) : decoder.stepLogits(rows);
      await step();
      const before = gpu.stats();
      for (let turn = 1; turn <= 5; turn++) {
        await step();
        const now = gpu.stats();
        assert.deepEqual(countersOf(now), countersOf(before), `turn ${turn}`);
        assert.equal(now.readbacks, before.readbacks + turn);
        assert.equal(now.submits, before.submits + turn);
      }
      assert.equal(decoder.recorded, 1);
    },
    { layouts: LAYOUTS },
  );
}

gpuTest(
  "a cache over the budget, or longer than the model, is refused before it is allocated",
  async (gpu) => {
    const small = new Gpu(gpu.device, gpu.adapter, { memoryBudgetBytes: 2 ** 22 });
    {
      using model = tinyModel(small, { config: { num_hidden_layers: 2, max_position_embeddings: 4096 } });
      const { created, usedBytes } = small.stats().memory;
      assert.throws(() => createKeyValueCache(model, { sequences: 16, positions: 4096 }), {
        name: "MemoryBudgetError",
        message:
          "Cannot make a key/value cache: expected at most 4194304 bytes of GPU memory in all (the budget), " +
          `found ${usedBytes} in use and 8388608 wanted for 16 sequences of 4096 tokens`,
      });
      const many = Array(16).fill([1]);
      await assert.rejects(generate(model, many, { maxNewTokens: 4095, batchSize: 16 }), /MemoryBudgetError/);
      assert.equal(small.stats().memory.created, created);
      assert.throws(
        () => createKeyValueCache(model, { sequences: 1, positions: 4097 }),
        /expected at most 4096 positions, as the model has, found 4097$/,
      );
      // Without a batch size as many are decoded together as fit half of what is free.
      const { sequences } = generationSize(model, Array(16).fill(1), { maxNewTokens: 4095 });
      assert.ok(sequences > 1 && sequences < 8, `${sequences}`);
      assert.equal(generationSize(model, Array(300).fill(1), { maxNewTokens: 1 }).sequences, 256);
    }
    assert.equal(small.stats().memory.usedBytes, 0);
    small.buffers.destroy();
  },
);

gpuTest("the planned memory of a generation is what it takes", async (gpu) => {
  for (const temperature of [0, 1]) {
    const small = new Gpu(gpu.device, gpu.adapter);
    {
      using model = tinyModel(small, { trainable: false, config: { max_position_embeddings: 300 } });
      const prompts = Array(5).fill(null).map((_, index) =>
        integers(seededRandom(index), { length: 70, high: 16 })
      );
      const options = { maxNewTokens: 200, temperature, batchSize: 5 };
      await generate(model, prompts.map((ids) => [...ids]), options);
      const size = generationSize(model, prompts.map(({ length }) => length), options);
      const plan = await planGeneration(planningOptions(small), {
        ...{ config: model.config, model: { trainable: false }, size, promptTokens: 70 },
        reading: temperature === 0 ? "ids" : "logits",
      });
      const { peakBytes, categories } = small.stats().memory;
      assert.deepEqual(
        [plan.totalBytes, plan.categories.activations],
        [peakBytes, categories.activations.peakBytes],
      );
    }
    small.buffers.destroy();
  }
}, { layouts: LAYOUTS });

testWithSharedData(
  "stories260K: generation with the cache equals recomputation over many tokens",
  async () => {
    const gpu = await testGpu();
    const folder = join(SHARED_DATA, "models/stories260K");
    const { prompts } = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8")) as {
      prompts: { input_ids: number[] }[];
    };
    const { model } = await loadModel(gpu, folder, { trainable: false });
    using _ = model;
    const ids = prompts.map(({ input_ids }) => input_ids);
    const expected = await recomputeGreedy(model, ids, { maxNewTokens: 150 });
    assert.deepEqual(await generate(model, ids, { maxNewTokens: 150 }), expected);
    using decoder = createDecoder(model, { sequences: 1, positions: 200, prefillTokens: 3 });
    const [alone] = await generateWith(decoder, [ids[0]], { maxNewTokens: 150 });
    assert.deepEqual(alone, expected[0], "in chunks of three");
  },
);
