import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release, toHost } from "../../engine/tensor.ts";
import { packPairs } from "../../train/data/batch.ts";
import type { EncodedPair } from "../../train/data/encode.ts";
import { uploadBatch } from "../../train/models/batch_tensors.ts";
import { batchTokenLogps, type Model } from "../../train/models/model.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { integers, normals, seededRandom } from "../reference/random.ts";
import { readGradients, referenceTokenLogps, TINY_VOCAB, tinyModel } from "../tiny_model.ts";

/** Grouped queries, two layers: what a layer gets wrong, the next one spreads. */
const CONFIG = {
  ...{ num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, hidden_size: 32 },
  max_position_embeddings: 128,
};

/** Lengths of prompt, chosen and rejected; the third pair's sides have other prompts. */
const LENGTHS = [[30, 9, 17], [1, 1, 1], [5, 6, 7], [65, 3, 40], [2, 33, 1]];

function pairsOf(lengths: readonly (readonly number[])[]): EncodedPair[] {
  const random = seededRandom(3);
  const ids = (length: number) => [...integers(random, { length, high: TINY_VOCAB })];
  const source = { file: "made.jsonl", line: 1 };
  return lengths.map(([prompt, chosen, rejected], index) => {
    const promptIds = ids(prompt);
    return {
      chosen: { promptIds, completionIds: ids(chosen), source },
      rejected: {
        promptIds: index === 2 ? ids(prompt - 1) : promptIds,
        completionIds: ids(rejected),
        source,
      },
      source,
    };
  });
}

/** Log-probs of every completion token, and every gradient of their sum with random weights. */
async function run(gpu: Gpu, model: Model, pairs: readonly EncodedPair[], sharePrompts: boolean) {
  const packed = packPairs(pairs, { sharePrompts });
  const weights = Float32Array.from(normals(seededRandom(8), { length: packed.labels.length }));
  const gradient = fromHost(gpu, weights, { shape: [weights.length] });
  model.parameters.zeroGradients();
  const tape = new Tape(gpu);
  const logps = tape.keep(batchTokenLogps(model, uploadBatch(model, packed)));
  tape.backward([{ tensor: logps, gradient }]);
  const result = {
    tokens: packed.inputIds.length,
    logps: await toHost(logps),
    gradients: await readGradients(model),
  };
  release(logps);
  release(gradient);
  return result;
}

gpuTest("a shared prompt changes neither log-probs nor any parameter's gradient", async (gpu) => {
  using model = tinyModel(gpu, { config: CONFIG });
  const pairs = pairsOf(LENGTHS);
  const shared = await run(gpu, model, pairs, true);
  const alone = await run(gpu, model, pairs, false);
  assert.equal(shared.tokens, alone.tokens - (30 + 1 + 65 + 2));
  // Not bit for bit: sums over the prompt's rows have another order.
  assertClose(shared.logps, alone.logps, { what: "log-probs", ...{ atol: 2e-6, rtol: 2e-6 } });
  const largest = alone.gradients.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  assert.ok(largest > 0.1, "there are gradients");
  assertClose(shared.gradients, alone.gradients, { what: "gradients", rtol: 1e-5, atol: 2e-6 * largest });
}, { layouts: LAYOUTS });

gpuTest("log-probs with a shared prompt are those of the model in f64", async (gpu) => {
  using model = tinyModel(gpu, { config: CONFIG });
  const pairs = pairsOf(LENGTHS.slice(0, 3));
  const { logps } = await run(gpu, model, pairs, true);
  const sequences = [...pairs.map(({ chosen }) => chosen), ...pairs.map(({ rejected }) => rejected)];
  const expected = (await referenceTokenLogps(model, sequences)).flat();
  assertClose(logps, expected, { what: "log-probs", ...{ atol: 1e-5, rtol: 1e-5 } });
});
