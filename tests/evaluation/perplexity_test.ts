import assert from "node:assert/strict";
import {
  evaluatePerplexity,
  type ScoredText,
  slidingWindows,
  type TextScore,
} from "../../train/evaluation/perplexity.ts";
import { createModel } from "../../train/models/model.ts";
import { parseModelConfig } from "../../train/models/config.ts";
import { assertClose } from "../ops/check_op.ts";
import { gpuTest } from "../gpu.ts";
import { integers, seededRandom } from "../reference/random.ts";
import { referenceTokenLogps, sum, TINY_VOCAB, tinyModel } from "../tiny_model.ts";

const SOURCE = { file: "made.txt" };

function idsOf(length: number, seed: number): number[] {
  return [...integers(seededRandom(seed), { length, high: TINY_VOCAB })];
}

Deno.test("windows predict every token but the given ones once, in order, with the context that is promised", async () => {
  for (
    const [length, maxLength, stride, given] of [
      ...[[1, 4, 2, 1], [2, 4, 2, 1], [4, 4, 2, 1], [5, 4, 2, 1], [6, 4, 2, 1], [7, 4, 2, 1], [29, 8, 7, 1]],
      ...[[29, 8, 1, 1], [2, 2, 1, 1], [17, 2, 1, 1], [20, 8, 4, 5], [20, 8, 4, 8], [20, 8, 4, 13], [
        12,
        8,
        3,
        11,
      ]],
    ]
  ) {
    const ids = Array.from({ length }, (_, i) => i);
    for (const pieceLength of [1, 3, 100]) {
      const pieces = Array.from(
        { length: Math.ceil(length / pieceLength) },
        (_, i) => ids.slice(i * pieceLength, (i + 1) * pieceLength),
      );
      const windows = await Array.fromAsync(
        slidingWindows(pieces, { maxLength, stride, given, source: SOURCE }),
      );
      const what = JSON.stringify({ length, maxLength, stride, given, pieceLength });
      assert.deepEqual(windows.flatMap(({ completionIds }) => completionIds), ids.slice(given), what);
      for (const { promptIds, completionIds } of windows) {
        const text = [...promptIds, ...completionIds];
        assert.deepEqual(text, ids.slice(text[0], text[0] + text.length), what);
        assert.ok(text.length <= maxLength, what);
        assert.ok(promptIds.length >= Math.min(completionIds[0], maxLength - stride), what);
        assert.ok(promptIds.length > 0, what);
      }
    }
  }
});

Deno.test("windows refuse a stride that leaves no context", async () => {
  for (const stride of [0, 4, 1.5]) {
    const windows = slidingWindows([[1, 2]], { maxLength: 4, stride, source: SOURCE });
    await assert.rejects(windows.next(), /expected a stride of 1 to 3/);
  }
});

function textOf(ids: number[], options: { maxLength: number; stride: number; bytes?: number }): ScoredText {
  const windows = slidingWindows([ids], { ...options, source: SOURCE });
  return { source: SOURCE, windows, bytes: () => options.bytes ?? ids.length };
}

gpuTest("a model of zeros has the perplexity of its vocabulary", async (gpu) => {
  const config = parseModelConfig({
    model_type: "llama",
    ...{
      vocab_size: 48,
      hidden_size: 16,
      intermediate_size: 16,
      num_hidden_layers: 1,
      num_attention_heads: 2,
    },
  }, { file: "config.json" });
  using model = createModel(gpu, config, { trainable: false, positions: 16 });
  const found = await evaluatePerplexity(model, [
    textOf(idsOf(50, 1), { maxLength: 16, stride: 4, bytes: 98 }),
  ]);
  assert.equal(found.tokens, 49);
  assertClose([found.perplexity, found.bitsPerByte], [48, Math.log2(48) / 2], { what: "of zeros" });
});

gpuTest("perplexity is the f64 model's, whatever the batches", async (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  const [maxLength, stride] = [12, 5];
  const texts = [idsOf(31, 2), idsOf(1, 3), idsOf(7, 4), idsOf(12, 5), idsOf(23, 6)];
  // One window of its own for each token, as the definition has it: context is what the last window that holds it shows.
  const expected = [];
  for (const ids of texts.filter((ids) => ids.length > 1)) {
    const steps = ids.slice(1).map((_, i) => Math.max(0, Math.ceil((i + 2 - maxLength) / stride)) * stride);
    const alone = steps.map((begin, i) => ({
      promptIds: ids.slice(begin, i + 1),
      completionIds: [ids[i + 1]],
      source: SOURCE,
    }));
    expected.push(-sum((await referenceTokenLogps(model, alone)).flat()));
  }
  for (const batchTokens of [1, 30, 4096]) {
    const scores: TextScore[] = [];
    let batches = 0;
    const found = await evaluatePerplexity(model, texts.map((ids) => textOf(ids, { maxLength, stride })), {
      batchTokens,
      onText: (score) => void scores.push(score),
      onProgress: () => void batches++,
    });
    assert.equal(batches, batchTokens === 1 ? 11 : batchTokens === 30 ? 5 : 1);
    assert.equal(found.texts, 4, "a text of one token has nothing to predict");
    assert.equal(found.tokens, 30 + 6 + 11 + 22);
    assert.equal(found.bytes, 31 + 7 + 12 + 23);
    assertClose(scores.map((score) => score.negativeLogLikelihood), expected, { what: "texts" });
    assertClose(
      [found.perplexity, found.bitsPerByte],
      [Math.exp(sum(expected) / 69), sum(expected) / Math.LN2 / 73],
      { what: "total" },
    );
  }
});

gpuTest("texts without a token to predict are refused", async (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  await assert.rejects(
    evaluatePerplexity(model, [textOf([3], { maxLength: 8, stride: 4 })]),
    /expected a text of two tokens or more, found none/,
  );
});
