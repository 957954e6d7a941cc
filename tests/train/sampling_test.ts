import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import {
  chooseId,
  keepTopK,
  keepTopP,
  probabilitiesOf,
  type SamplingOptions,
  warpLogits,
} from "../../train/generation/sampling.ts";
import { createRandom } from "../../train/random.ts";

interface Warped {
  logits: number[];
  context: number[];
  temperature: number | null;
  top_k: number | null;
  top_p: number | null;
  repetition_penalty: number | null;
  probabilities: number[];
}

const { warped }: { warped: Warped[] } = JSON.parse(
  readFileSync(new URL("../golden/generation.json", import.meta.url), "utf8"),
);

Deno.test("warped probabilities are those of transformers", () => {
  assert.ok(warped.length > 5);
  for (const [index, one] of warped.entries()) {
    const options: SamplingOptions = {
      // Without a temperature transformers does not scale.
      temperature: one.temperature ?? 1,
      ...(one.top_k === null ? {} : { topK: one.top_k }),
      ...(one.top_p === null ? {} : { topP: one.top_p }),
      ...(one.repetition_penalty === null ? {} : { repetitionPenalty: one.repetition_penalty }),
    };
    const found = probabilitiesOf(warpLogits(one.logits, one.context, options));
    one.probabilities.forEach((expected, id) => {
      const where = `case ${index}, id ${id}: found ${found[id]}, expected ${expected}`;
      assert.equal(found[id] === 0, expected === 0, where);
      // transformers computes in f32.
      assert.ok(Math.abs(found[id] - expected) <= 1e-6 + 1e-5 * expected, where);
    });
  }
});

Deno.test("top-k leaves ties with the last, top-p the first ids of equal scores", () => {
  const kept = (scores: Float64Array) => [...scores.keys()].filter((id) => scores[id] > -Infinity);
  const scores = Float64Array.of(1, 3, 1, 2, 1);
  keepTopK(scores, 3);
  assert.deepEqual(kept(scores), [0, 1, 2, 3, 4]);
  keepTopK(scores, 2);
  assert.deepEqual(kept(scores), [1, 3]);
  const equal = new Float64Array(8);
  keepTopP(equal, 0.5);
  assert.deepEqual(kept(equal), [0, 1, 2, 3]);
  keepTopP(equal, 1e-9);
  assert.deepEqual(kept(equal), [0]);
});

Deno.test("draws have the frequencies of their probabilities", () => {
  const logits = [0, 1, 2, -1];
  const random = createRandom(4);
  const counts = [0, 0, 0, 0];
  const draws = 20_000;
  for (let draw = 0; draw < draws; draw++) counts[chooseId(logits, [], { temperature: 0.8 }, random)]++;
  const expected = probabilitiesOf(warpLogits(logits, [], { temperature: 0.8 }));
  counts.forEach((count, id) => {
    const sigma = Math.sqrt(draws * expected[id] * (1 - expected[id]));
    assert.ok(Math.abs(count - draws * expected[id]) < 4 * sigma, `id ${id}: ${count}`);
  });
});

Deno.test("logits that are no numbers are refused", () => {
  assert.throws(() => chooseId([NaN, NaN], [], {}, createRandom(1)), /expected finite logits, found NaN/);
});
