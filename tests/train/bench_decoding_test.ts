import assert from "node:assert/strict";
import { readConditions } from "../../train/bench/conditions.ts";
import { benchDecoding, decodingModel } from "../../train/bench/decoding.ts";
import { formatDecoding } from "../../train/bench/format.ts";
import { describeModel } from "../../train/bench/shapes.ts";
import { TRAINING_SHAPES } from "../../train/bench/training_shapes.ts";
import { gpuTest } from "../gpu.ts";

gpuTest("generation is measured with and without the cache, and becomes a table", async (gpu) => {
  using model = decodingModel(gpu, TRAINING_SHAPES.tiny);
  const log: string[] = [];
  const results = await benchDecoding(model, {
    batches: [1, 3],
    samples: 2,
    log: (line) => void log.push(line),
  });
  assert.deepEqual(log, ["decoding: 1 sequences", "decoding: 3 sequences"]);
  assert.deepEqual(results.map(({ batch, promptTokens, newTokens }) => [batch, promptTokens, newTokens]), [
    [1, 32, 32],
    [3, 32, 32],
  ]);
  for (const { prefill, greedy, logits, recomputed } of results) {
    for (const { median, samples } of [prefill, greedy, logits, recomputed]) {
      assert.ok(median > 0);
      assert.equal(samples.length, 2);
    }
  }
  const title = describeModel(model);
  assert.match(
    title,
    /^llama of 1 layers, C = 32, 2 heads \(2 of keys\) of 16, V = 128, 128 positions, 18,528 /,
  );
  const text = formatDecoding(results, { title, conditions: readConditions(gpu), markdown: true });
  assert.match(text, /\n\| +1 \| +32 \| +32 \| [0-9]+ \([0-9]+ to [0-9]+\) +\|/);
});
