import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { goldenNames } from "./golden.ts";
import { readGeneration } from "./generation.ts";

const { greedy, warped } = readGeneration();

Deno.test("golden generation: small, and of four models", () => {
  assert.ok(statSync(new URL("../generation.json", import.meta.url)).size < 100_000);
  const models = [...new Set(greedy.map(({ model }) => model))];
  assert.deepEqual(models, ["stories260K", "llama3", "gpt2", "qwen3"]);
  assert.ok(models.every((model) => model === "stories260K" || goldenNames().includes(model)));
});

Deno.test("golden generation: greedy continuations end at the end token or the limit, never in a close call", () => {
  for (const { continuation, eos_token_id, max_new_tokens, smallest_gap } of greedy) {
    const end = eos_token_id === null ? -1 : continuation.indexOf(eos_token_id);
    assert.equal(continuation.length, end < 0 ? max_new_tokens : end + 1);
    assert.ok(smallest_gap > 1e-3);
  }
  const stopped = greedy.filter(({ continuation, max_new_tokens }) => continuation.length < max_new_tokens);
  assert.ok(new Set(stopped.map(({ model }) => model)).size === 4);
});

Deno.test("golden generation: a repetition penalty changes what follows", () => {
  const plain = greedy.filter((one) => one.repetition_penalty === 1 && one.eos_token_id === null);
  for (const { model, prompt, continuation } of plain) {
    const penalized = greedy.filter((one) =>
      one.model === model && String(one.prompt) === String(prompt) && one.repetition_penalty > 1
    );
    assert.equal(penalized.length, 1);
    assert.notDeepEqual(penalized[0].continuation, continuation);
  }
});

Deno.test("golden generation: warped probabilities are distributions, cut as their options say", () => {
  for (const { logits, probabilities, top_k, top_p, repetition_penalty } of warped) {
    assert.equal(probabilities.length, logits.length);
    assert.ok(Math.abs(probabilities.reduce((a, b) => a + b) - 1) < 1e-10);
    const kept = probabilities.filter((p) => p > 0).length;
    assert.ok(kept >= 1);
    if (top_k === null && top_p === null) assert.equal(kept, logits.length);
    // Equal logits are all kept.
    if (top_k !== null && new Set(logits).size === logits.length) assert.ok(kept <= top_k);
    if (repetition_penalty === null && top_k !== null && top_p === null) {
      const least = logits.toSorted((a, b) => b - a)[Math.min(top_k, logits.length) - 1];
      assert.deepEqual(probabilities.map((p) => p > 0), logits.map((value) => value >= least));
    }
  }
});
