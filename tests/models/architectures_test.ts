/**
 * What every architecture must do alike, on fresh random weights; tests/golden/models holds each against transformers.
 *
 * @module
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MEMORY_CATEGORIES } from "../../engine/buffers.ts";
import { Gpu } from "../../engine/gpu.ts";
import { uploadAll } from "../../engine/inputs.ts";
import { noGrad, Tape } from "../../engine/tape.ts";
import { fromHost, release, scope, toHost } from "../../engine/tensor.ts";
import { type BatchSize, completionsSize, packSequences } from "../../train/data/batch.ts";
import type { EncodedCompletion } from "../../train/data/encode.ts";
import { parseRunConfig } from "../../train/config.ts";
import { hostBatch, uploadBatch } from "../../train/models/batch_tensors.ts";
import { batchTokenLogps, type Model } from "../../train/models/model.ts";
import { loadModel, saveModel } from "../../train/models/model_files.ts";
import { openSafetensors } from "../../train/models/safetensors.ts";
import { writeSafetensors } from "../../train/models/safetensors_write.ts";
import { planRun } from "../../train/plan.ts";
import { runTraining } from "../../train/run.ts";
import type { Session } from "../../train/session.ts";
import { gpuTest, testGpu } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import {
  randomCompletions,
  randomPairs,
  readGradients,
  readWeights,
  temporaryFolder,
  tinyModel,
  tinyTokenizer,
} from "../tiny_model.ts";

/** Keys that make the tiny Llama of the tests another model. */
const CONFIGS: Record<string, Record<string, unknown>> = {
  "llama with biases": { attention_bias: true, mlp_bias: true, head_dim: 16 },
  "llama with scaled RoPE": {
    rope_scaling: {
      ...{ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
      original_max_position_embeddings: 16,
    },
  },
  mistral: { model_type: "mistral", sliding_window: 24 },
  qwen2: { model_type: "qwen2", tie_word_embeddings: true },
  qwen3: { model_type: "qwen3", head_dim: 16, attention_bias: true },
  phi3: { model_type: "phi3", eos_token_id: 2, pad_token_id: null },
  gpt2: {
    ...{ model_type: "gpt2", n_embd: 16, n_head: 2, n_layer: 2, n_positions: 128 },
    ...{ bos_token_id: 1, eos_token_id: 2 },
  },
  "gpt2 with a head of its own": {
    ...{ model_type: "gpt2", n_embd: 16, n_head: 2, n_layer: 1, n_positions: 32, n_inner: 24 },
    ...{ bos_token_id: 1, eos_token_id: 2, tie_word_embeddings: false },
  },
};

const filesOf = (folder: string) =>
  readdirSync(folder).sort().map((name) => [name, new Uint8Array(readFileSync(join(folder, name)))]);

async function logpsOf(model: Model, completions: readonly EncodedCompletion[]): Promise<Float32Array> {
  const { gpu } = model;
  const logps = scope(
    gpu,
    () => noGrad(gpu, () => batchTokenLogps(model, uploadBatch(model, packSequences(completions)))),
  );
  const values = await toHost(logps);
  release(logps);
  return values;
}

/** Gradients of the sum of all log-probs. */
async function gradientsOf(
  model: Model,
  completions: readonly EncodedCompletion[],
  options: { size?: BatchSize; capacity?: BatchSize } = {},
): Promise<Float32Array> {
  const { gpu } = model;
  const packed = packSequences(completions);
  model.parameters.zeroGradients();
  const batch = options.size
    ? uploadAll(gpu, hostBatch(model, packed, options.size))
    : uploadBatch(model, packed, options.capacity);
  // Of the padding no label counts.
  const length = options.size?.labels ?? packed.labels.length;
  const ones = Float32Array.from({ length }, (_, r) => r < packed.labels.length ? 1 : 0);
  const gradient = fromHost(gpu, ones, { shape: [length] });
  const tape = new Tape(gpu);
  const logps = batchTokenLogps(model, batch);
  tape.backward([{ tensor: logps, gradient }]);
  const gradients = await readGradients(model);
  release(gradient);
  return gradients;
}

for (const [name, config] of Object.entries(CONFIGS)) {
  gpuTest(`${name}: fresh weights load as they were saved, and save to equal bytes`, async (gpu) => {
    using model = tinyModel(gpu, { config });
    const [first, second] = [temporaryFolder(), temporaryFolder()];
    await saveModel(first, model, { tokenizer: tinyTokenizer() });
    const { model: again, tokenizer } = await loadModel(gpu, first, { trainable: true });
    using _ = again;
    assert.deepEqual(again.config, model.config);
    assert.deepEqual(await readWeights(again), await readWeights(model));
    await saveModel(second, again, { tokenizer });
    assert.deepEqual(filesOf(second), filesOf(first));
    const completions = randomCompletions(3, 1);
    assert.deepEqual(await logpsOf(again, completions), await logpsOf(model, completions));
  });

  gpuTest(`${name}: packing changes no log-prob, and a later token no earlier one`, async (gpu) => {
    using model = tinyModel(gpu, { config });
    const completions = randomCompletions(4, 2);
    const packed = await logpsOf(model, completions);
    const alone: number[] = [];
    for (const completion of completions) alone.push(...await logpsOf(model, [completion]));
    assertClose(packed, alone, { what: "log-probs", atol: 1e-6, rtol: 1e-6 });
    const [first] = completions;
    const longer = { ...first, completionIds: [...first.completionIds, 3, 1] };
    const kept = (await logpsOf(model, [longer])).subarray(0, first.completionIds.length);
    assertClose(kept, await logpsOf(model, [first]), { what: "earlier log-probs", atol: 1e-6, rtol: 1e-6 });
  });

  gpuTest(`${name}: padding and room for larger batches change no gradient`, async (gpu) => {
    using model = tinyModel(gpu, { config });
    const completions = randomCompletions(4, 3);
    const expected = await gradientsOf(model, completions);
    assert.ok(expected.some((value) => value !== 0) && expected.every(Number.isFinite));
    const { tokens, labels } = completionsSize(completions);
    const larger = { tokens: tokens + 30, labels: labels + 7 };
    assert.deepEqual(await gradientsOf(model, completions, { capacity: larger }), expected);
    const padded = await gradientsOf(model, completions, { size: larger });
    assertClose(padded, expected, { what: "gradients", atol: 2e-5, rtol: 1e-5 });
  });
}

gpuTest(
  "a GPT-2 without the prefix is named as its file names it, and keeps its element types",
  async (gpu) => {
    using model = tinyModel(gpu, { config: CONFIGS.gpt2 });
    const [folder, saved] = [temporaryFolder(), temporaryFolder()];
    await saveModel(folder, model, { tokenizer: tinyTokenizer() });
    const write = async (spoil: (name: string, values: Float32Array) => void) => {
      const tensors = Array.from(model.parameters.shapes, ([name, shape]) => ({
        name: name.replace(/^transformer\./, ""),
        shape,
        data: async () => {
          const values = await model.parameters.read(name);
          spoil(name, values);
          return values;
        },
      }));
      await writeSafetensors(join(folder, "model.safetensors"), tensors, { dtype: "f16" });
    };
    await write(() => {});
    const { model: again, tokenizer } = await loadModel(gpu, folder, { trainable: false });
    using _ = again;
    await saveModel(saved, again, { tokenizer, dtype: "loaded" });
    using file = await openSafetensors(join(saved, "model.safetensors"));
    assert.deepEqual([...file.tensors.keys()].toSorted(), [...model.parameters.shapes.keys()].toSorted());
    assert.ok([...file.tensors.values()].every(({ dtype }) => dtype === "F16"));
    await write((name, values) => {
      if (name === "transformer.h.1.ln_2.bias") values[3] = NaN;
    });
    await assert.rejects(() => loadModel(gpu, folder, { trainable: false }), {
      name: "CheckpointError",
      message: `Cannot read ${
        join(folder, "model.safetensors")
      }: tensor "h.1.ln_2.bias": expected finite values, found NaN at [3]`,
    });
  },
);

gpuTest("f16 refuses heads whose halves do not divide by four, before anything is made", (gpu) => {
  assert.throws(() => tinyModel(gpu, { config: { head_dim: 12 }, dtype: "f16" }), {
    name: "ConfigError",
    message:
      "Cannot make a model in f16: expected a head_dim that divides by eight, because RoPE turns halves of heads " +
      "in fours, found 12",
  });
  using model = tinyModel(gpu, { config: { ...CONFIGS.gpt2, n_embd: 24 }, dtype: "f16" });
  assert.equal(model.architecture.dimensions.headDim, 12); // which nothing rotates
});

const RUNS: [name: string, raw: Record<string, unknown>][] = [
  ["qwen3", { activationCheckpointing: true }],
  ["qwen3", { activationCheckpointing: true, dtype: "f16" }],
  ["gpt2", {}],
  ["gpt2", { activationCheckpointing: true, dtype: "f16" }],
  ["llama with biases", { dtype: "f16" }],
  ["phi3", {}],
];

/** A whole run: before, reference, training, saving, after. */
async function run(session: Session, name: string, raw: Record<string, unknown>): Promise<void> {
  const describe = (path: readonly string[]) => path.join(".");
  const config = parseRunConfig({ loss: "dpo", batchSize: 4, maxSteps: 3, logEvery: 2, ...raw }, {
    describe,
  });
  const { dtype, activationCheckpointing } = config;
  const longer = { ...CONFIGS[name], max_position_embeddings: 128 };
  const plain = tinyModel(session.gpu, { config: longer, dtype });
  using model = { ...plain, activationCheckpointing };
  const pairs = randomPairs(16, 5);
  const loaded = { model, tokenizer: tinyTokenizer() };
  const data = { config, loaded, pairs, evalPairs: pairs.slice(0, 7), [Symbol.dispose]() {} };
  await runTraining(session, data, { cacheFolder: temporaryFolder() });
}

for (const [name, raw] of RUNS) {
  Deno.test(`${name}: a run's planned memory is the measured one ${JSON.stringify(raw)}`, async () => {
    const { device, adapter } = await testGpu();
    const gpu = new Gpu(device, adapter);
    const nothing = () => {};
    const metrics = { flush: () => 0, append: nothing, close: nothing, [Symbol.dispose]: nothing };
    const progress = () => ({ update: nothing, finish: nothing });
    await run({ gpu, folder: temporaryFolder(), metrics, progress, log: nothing }, name, raw);
    const { peakBytes, categories } = gpu.stats().memory;
    const planned = await planRun({ limits: device.limits, adapter }, (session) => run(session, name, raw));
    const measured = MEMORY_CATEGORIES.map((category) => [category, categories[category].peakBytes]);
    assert.deepEqual(Object.entries(planned.categories), measured);
    assert.equal(planned.totalBytes, peakBytes);
    gpu.queue.destroy();
    gpu.buffers.destroy();
  });
}
