import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as llama from "../reference/llama.ts";
import * as pairLoss from "../reference/pair_loss.ts";
import * as sequenceLogps from "../reference/sequence_logps.ts";
import { IGNORED_LABEL } from "../reference/token_logps.ts";
import * as tokenLogps from "../reference/token_logps.ts";
import { loadTinyLlama } from "./load_tiny_llama.ts";

interface Golden {
  settings: { beta: number; batchSize: number };
  pairs: { prompt: number[]; chosen: number[]; rejected: number[] }[];
  steps: Record<string, number>[];
}

const golden: Golden = JSON.parse(readFileSync(new URL("trl_dpo.json", import.meta.url), "utf8"));

/** TRL's head computes in float32. */
const TOLERANCE = 1e-5;

/** Summed log-probabilities of the first batch under the initial weights, all chosen first. */
function firstBatch(): pairLoss.PairLossInputs {
  const { config, parameters } = loadTinyLlama("tiny_llama");
  const pairs = golden.pairs.slice(0, golden.settings.batchSize);
  const completions = [
    ...pairs.map(({ prompt, chosen }) => ({ prompt, completion: chosen })),
    ...pairs.map(({ prompt, rejected }) => ({ prompt, completion: rejected })),
  ];
  const inputIds = completions.flatMap(({ prompt, completion }) => [...prompt, ...completion]);
  // Row n predicts the token after it: the last prompt row predicts the first completion token.
  const labels = completions.flatMap(({ prompt, completion }) => [
    ...prompt.slice(1).map(() => IGNORED_LABEL),
    ...completion,
    IGNORED_LABEL,
  ]);
  const sequenceOffsets = offsetsOf(
    completions.map(({ prompt, completion }) => prompt.length + completion.length),
  );
  const { hidden, lmHead } = llama.forward({ parameters, inputIds, sequenceOffsets }, config);
  const dims = { N: labels.length, C: config.hidden_size, V: config.vocab_size };
  const { logps } = tokenLogps.forward({ hidden, lmHead, labels }, dims);
  const { s, lengths } = sequenceLogps.forward({
    tokenLogps: logps,
    sequenceOffsets: offsetsOf(completions.map(({ completion }) => completion.length)),
  }, { M: logps.length, S: completions.length });
  return { s, ref: s.slice(), lengths };
}

function offsetsOf(lengths: number[]): number[] {
  const offsets = [0];
  for (const length of lengths) offsets.push(offsets[offsets.length - 1] + length);
  return offsets;
}

Deno.test("TRL's first DPO step has the reference's log-probs, loss and rewards", () => {
  const { beta, batchSize: P } = golden.settings;
  const { loss, metrics } = pairLoss.forward(firstBatch(), { loss: "dpo", beta, P, normalizer: P });
  const found: Record<string, number> = { loss, ...metrics };
  const { grad_norm: _, ...expected } = golden.steps[0];
  for (const [key, value] of Object.entries(expected)) {
    assert.ok(Math.abs(found[key] - value) < TOLERANCE, `${key} is ${found[key]}, TRL has ${value}`);
  }
});

Deno.test("TRL's golden run has ten steps, learns, and keeps margins = chosen - rejected", () => {
  assert.equal(golden.steps.length, 10);
  assert.ok(golden.steps[9].loss < 0.25);
  for (const step of golden.steps) {
    const margin = step["rewards/chosen"] - step["rewards/rejected"];
    assert.ok(Math.abs(step["rewards/margins"] - margin) < 1e-6);
  }
});
