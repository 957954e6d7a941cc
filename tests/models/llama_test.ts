import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { scaledSum } from "../../engine/ops/scaled_sum.ts";
import { sizeOf } from "../../engine/shape.ts";
import { noGrad, Tape } from "../../engine/tape.ts";
import { fromHost, release, scope, toHost } from "../../engine/tensor.ts";
import { type BatchSize, completionsSize, packSequences } from "../../train/data/batch.ts";
import { hostBatch, uploadBatch } from "../../train/models/batch_tensors.ts";
import { uploadAll } from "../../engine/inputs.ts";
import type { EncodedCompletion } from "../../train/data/encode.ts";
import { generate } from "../../train/generate.ts";
import {
  batchSequenceLogps,
  batchTokenLogps,
  createModel,
  type Model,
  nextLogits,
} from "../../train/models/model.ts";
import { loadModel } from "../../train/models/model_files.ts";
import type { GoldenGradient } from "../golden/load_tiny_llama.ts";
import { loadTinyLlama } from "../golden/load_tiny_llama.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { HAS_SHARED_DATA, SHARED_DATA, testWithSharedData } from "../shared_data.ts";
import { modelFolder, randomCompletions, readGradients, tinyModel } from "../tiny_model.ts";

/** Registers a GPU test that needs published models; where they are absent it is ignored under a name that says so. */
function gpuTestWithSharedData(name: string, run: (gpu: Gpu) => Promise<void>): void {
  if (HAS_SHARED_DATA) gpuTest(`${name} (needs shared data)`, run);
  else testWithSharedData(name, () => {});
}

/** `[positions, V]` logits at the end of every prefix, all prefixes packed as sequences of one batch. */
async function prefixLogits(
  model: Model,
  prefixes: readonly (readonly number[])[],
): Promise<Float32Array> {
  const { gpu } = model;
  // A completion of one id: only inputs and offsets count here, so each prefix is split anywhere.
  const packed = packSequences(prefixes.map((ids) => split([...ids, 0], ids.length)));
  const [logits] = scope(
    gpu,
    () => noGrad(gpu, () => nextLogits(model, uploadBatch(model, dropLast(packed)))),
  );
  const values = await toHost(logits);
  release(logits);
  return values;
}

/** Takes the last token of every sequence away again. */
function dropLast(packed: ReturnType<typeof packSequences>): ReturnType<typeof packSequences> {
  const ends = new Set(packed.segmentOffsets.subarray(1).map((end) => end - 1));
  const keep = (_: number, row: number) => !ends.has(row);
  return {
    ...packed,
    inputIds: packed.inputIds.filter(keep),
    positions: packed.positions.filter(keep),
    segmentOffsets: packed.segmentOffsets.map((offset, s) => offset - s),
    rows: packed.rows.map((row, s) => row - s),
  };
}

function split(ids: readonly number[], prompt: number): EncodedCompletion {
  const source = { file: "made.jsonl", line: 1 };
  return { promptIds: ids.slice(0, prompt), completionIds: ids.slice(prompt), source };
}

const prefixesOf = (ids: readonly number[]) => ids.map((_, end) => ids.slice(0, end + 1));

/** Log-prob of every completion token. */
async function tokenLogpsOf(
  model: Model,
  completions: readonly EncodedCompletion[],
  capacity?: BatchSize,
): Promise<Float32Array> {
  const { gpu } = model;
  const logps = scope(
    gpu,
    () => noGrad(gpu, () => batchTokenLogps(model, uploadBatch(model, packSequences(completions), capacity))),
  );
  const values = await toHost(logps);
  release(logps);
  return values;
}

/** Cross entropy of completions, its gradients left in the model. */
async function crossEntropy(
  model: Model,
  completions: readonly EncodedCompletion[],
  { capacity, size }: { capacity?: BatchSize; size?: BatchSize } = {},
): Promise<number> {
  const { gpu } = model;
  const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
  model.parameters.zeroGradients();
  const tape = new Tape(gpu);
  const packed = packSequences(completions);
  const batch = size ? uploadAll(gpu, hostBatch(model, packed, size)) : uploadBatch(model, packed, capacity);
  const sums = batchSequenceLogps(model, batch);
  const loss = tape.keep(scaledSum(sums, { scale: -1 / packed.labels.length }));
  tape.backward([{ tensor: loss, gradient: one }]);
  const [value] = await toHost(loss);
  release(loss);
  release(one);
  return value;
}

function assertGradient(name: string, found: Float32Array, golden: GoldenGradient): void {
  assert.equal(found.length, sizeOf(golden.shape), name);
  const largest = Math.max(...golden.head.map(Math.abs));
  const head = found.subarray(0, golden.head.length);
  assertClose(head, golden.head, { what: `d ${name}`, rtol: 1e-3, atol: 1e-5 * largest });
  const total = (of: (value: number, i: number) => number) => found.reduce((sum, g, i) => sum + of(g, i), 0);
  // Sums of many signs cancel: what rounding may change grows with the root of the sum of squares.
  const atol = 1e-5 * Math.sqrt(found.length * golden.sumSquares);
  const sums = [total((g) => g), total((g) => g * g), total((g, i) => g * Math.cos(i))];
  assertClose(sums, [golden.sum, golden.sumSquares, golden.projection], {
    what: `sum, sum of squares, projection of d ${name}`,
    ...{ rtol: 1e-3, atol },
  });
}

for (const name of ["tiny_llama", "tiny_llama_tied"] as const) {
  const { golden, parameters } = loadTinyLlama(name);
  const fixture = (file: string) => new URL(`../golden/${name}/${file}`, import.meta.url);
  const files = { "config.json": fixture("config.json"), "model.safetensors": fixture("model.safetensors") };

  gpuTest(`${name}: loaded from its folder, logits are those of transformers`, async (gpu) => {
    const { model } = await loadModel(gpu, modelFolder(files, 48), { trainable: false });
    using _ = model;
    const logits = await prefixLogits(model, golden.sequences.flatMap(prefixesOf));
    assertClose(logits, golden.logits.flat(), { what: "logits", rtol: 1e-4 });
  }, { layouts: LAYOUTS });

  gpuTest(`${name}: loss and every parameter's gradient are those of transformers`, async (gpu) => {
    const { model } = await loadModel(gpu, modelFolder(files, 48), { trainable: true });
    using _ = model;
    assert.deepEqual([...model.parameters.shapes.keys()].sort(), [...parameters.keys()].sort());
    const loss = await crossEntropy(model, golden.sequences.map((ids) => split(ids, 1)));
    assertClose([loss], [golden.loss], { what: "loss", rtol: 1e-5 });
    for (const [parameter, gradient] of Object.entries(golden.gradients)) {
      assertGradient(parameter, await model.parameters.readGradient(parameter), gradient);
    }
  }, { layouts: LAYOUTS });
}

gpuTest("a tied head's gradient is the sum of the embedding's and the head's", async (gpu) => {
  const config = { tie_word_embeddings: true };
  using tied = tinyModel(gpu, { config });
  using own = tinyModel(gpu);
  for (const name of own.parameters.shapes.keys()) {
    const source = name === "lm_head.weight" ? "model.embed_tokens.weight" : name;
    own.parameters.write(name, await tied.parameters.read(source));
  }
  const completions = randomCompletions(3, 4);
  assert.equal(await crossEntropy(tied, completions), await crossEntropy(own, completions));
  const both = await tied.parameters.readGradient("model.embed_tokens.weight");
  const embedding = await own.parameters.readGradient("model.embed_tokens.weight");
  const head = await own.parameters.readGradient("lm_head.weight");
  assert.ok(embedding.some((value) => value !== 0) && head.some((value) => value !== 0));
  const atol = 1e-6;
  assertClose(both, embedding.map((value, i) => value + head[i]), { what: "d embed_tokens", atol });
});

interface StoriesGolden {
  prompts: {
    prompt: string;
    input_ids: number[];
    continuation_ids: number[];
    continuation_logprobs: number[];
    last_prompt_logits: number[];
  }[];
}

gpuTestWithSharedData(
  "stories260K: greedy text, log-probs and logits are the published ones",
  async (gpu) => {
    const folder = join(SHARED_DATA, "models/stories260K");
    const { prompts }: StoriesGolden = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));
    const { model, tokenizer } = await loadModel(gpu, folder, { trainable: false });
    using _ = model;
    const inputs = prompts.map(({ input_ids }) => input_ids);
    for (const { prompt, input_ids } of prompts) {
      const bos = tokenizer.bosTokenId === undefined ? [] : [tokenizer.bosTokenId];
      assert.deepEqual([...bos, ...tokenizer.encode(prompt, { addSpecialTokens: false })], input_ids);
    }
    const continuations = await generate(model, inputs, { maxNewTokens: 64 });
    assert.deepEqual(continuations, prompts.map(({ continuation_ids }) => continuation_ids));
    const logps = await tokenLogpsOf(
      model,
      prompts.map(({ input_ids, continuation_ids }) =>
        split([...input_ids, ...continuation_ids], input_ids.length)
      ),
    );
    const expected = prompts.flatMap(({ continuation_logprobs }) => continuation_logprobs);
    assertClose(logps, expected, { what: "log-probs", atol: 1e-4, rtol: 0 });
    const logits = await prefixLogits(model, inputs);
    assertClose(logits, prompts.flatMap(({ last_prompt_logits }) => last_prompt_logits), {
      what: "last logits",
      ...{ atol: 1e-4, rtol: 1e-5 },
    });
  },
);

gpuTestWithSharedData("a bfloat16 checkpoint of another project gives its golden logits", async (gpu) => {
  const folder = join(SHARED_DATA, "weights/tiny-random-llama-bf16");
  const meta = readFileSync(join(folder, "tiny_llama_meta.txt"), "utf8");
  const ids = /^tokens=(.*)$/m.exec(meta)![1].split(",").map(Number);
  const golden = new Float32Array(new Uint8Array(readFileSync(join(folder, "tiny_llama_golden.bin"))).buffer);
  const files = {
    "config.json": join(folder, "config.json"),
    "model.safetensors": join(folder, "tiny_llama.safetensors"),
  };
  const { model } = await loadModel(gpu, modelFolder(files, 48), { trainable: false, positions: 64 });
  using _ = model;
  assert.equal(golden.length, ids.length * model.config.vocab_size);
  assertClose(await prefixLogits(model, prefixesOf(ids)), golden, { what: "logits", rtol: 1e-4 });
});

gpuTest("packed sequences have the log-probs of the same sequences alone", async (gpu) => {
  using model = tinyModel(gpu, { config: { num_hidden_layers: 2 } });
  const completions = randomCompletions(5, 7);
  const packed = await tokenLogpsOf(model, completions);
  const alone: number[] = [];
  for (const completion of completions) alone.push(...await tokenLogpsOf(model, [completion]));
  // Not bit for bit: where a sequence starts decides which of its keys an attention tile sums together.
  assertClose(packed, alone, { what: "log-probs", atol: 1e-6, rtol: 1e-6 });
}, { layouts: LAYOUTS });

gpuTest("a later token never changes an earlier log-prob", async (gpu) => {
  using model = tinyModel(gpu, { config: { num_hidden_layers: 2 } });
  const ids = [3, 1, 4, 1, 5, 9, 2, 6];
  const before = await tokenLogpsOf(model, [split(ids, 1)]);
  const after = await tokenLogpsOf(model, [split([...ids.slice(0, 5), 0, 7, 8], 1)]);
  assert.deepEqual(after.subarray(0, 4), before.subarray(0, 4));
  assert.notDeepEqual(after.subarray(4), before.subarray(4));
}, { layouts: LAYOUTS });

gpuTest("room for larger batches changes neither loss nor gradients", async (gpu) => {
  using model = tinyModel(gpu);
  const completions = randomCompletions(4, 8);
  const loss = await crossEntropy(model, completions);
  const gradients = await readGradients(model);
  assert.ok(gradients.some((value) => value !== 0));
  assert.equal(await crossEntropy(model, completions, { capacity: { tokens: 300, labels: 200 } }), loss);
  assert.deepEqual(await readGradients(model), gradients);
}, { layouts: LAYOUTS });

gpuTest("padding changes neither loss nor gradients", async (gpu) => {
  using model = tinyModel(gpu, { config: { num_hidden_layers: 2 } });
  const completions = randomCompletions(4, 8);
  const loss = await crossEntropy(model, completions);
  const gradients = await readGradients(model);
  const { tokens, labels } = completionsSize(completions);
  for (const [moreTokens, moreLabels] of [[1, 0], [0, 1], [13, 5], [300, 200]]) {
    const size = { tokens: tokens + moreTokens, labels: labels + moreLabels };
    assert.equal(await crossEntropy(model, completions, { size }), loss);
    // Sums over rows are cut into parts by their number: nothing but their rounding may differ.
    assertClose(await readGradients(model), gradients, { what: "gradients", atol: 1e-6, rtol: 1e-6 });
  }
}, { layouts: LAYOUTS });

gpuTest("a frozen model has no gradients and records nothing", (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  assert.ok(model.parameters.blocks.every((block) => block.gradient === undefined));
  const packed = packSequences(randomCompletions(2, 9));
  using tape = new Tape(gpu);
  const logps = batchTokenLogps(model, uploadBatch(model, packed));
  assert.equal(logps.requiresGrad, false);
  const ones = fromHost(gpu, new Float32Array(logps.shape[0]).fill(1), { shape: logps.shape });
  assert.throws(() => tape.backward([{ tensor: logps, gradient: ones }]), /depends on a trainable one/);
});

gpuTest("positions past what the model was made for are refused", async (gpu) => {
  using model = tinyModel(gpu);
  assert.throws(
    () => createModel(gpu, model.config, { trainable: false, positions: 33 }),
    /^RangeError: Cannot make a model: expected at most 32 positions \(as config\.json says\), found 33$/,
  );
  const ids = Array.from({ length: 33 }, () => 1);
  await assert.rejects(
    () => tokenLogpsOf(model, [split(ids, 1)]),
    /^RangeError: Cannot run the model: expected at most 32 tokens a sequence, found 33$/,
  );
});
