import assert from "node:assert/strict";
import { centralDifference } from "../reference/central_difference.ts";
import * as llama from "../reference/llama.ts";
import { IGNORED_LABEL } from "../reference/token_logps.ts";
import * as tokenLogps from "../reference/token_logps.ts";
import { loadTinyLlama, type TinyLlama } from "./load_tiny_llama.ts";

/** Both sequences of the golden file, packed. */
function packed({ parameters, golden }: TinyLlama): llama.LlamaInputs {
  const [first, second] = golden.sequences;
  return {
    parameters,
    inputIds: [...first, ...second],
    sequenceOffsets: [0, first.length, first.length + second.length],
  };
}

/** Mean cross-entropy over all next tokens; the last token of a sequence has none. */
function lossOf(model: TinyLlama): number {
  const inputs = packed(model);
  const { hidden_size: C, vocab_size: V } = model.config;
  const { hidden, lmHead } = llama.forward(inputs, model.config);
  const labels = model.golden.sequences.flatMap((ids) => [...ids.slice(1), IGNORED_LABEL]);
  const { logps } = tokenLogps.forward({ hidden, lmHead, labels }, { N: labels.length, C, V });
  return -logps.reduce((sum, value) => sum + value, 0) / logps.length;
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length);
  return Array.from(a).reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i])), 0);
}

for (const name of ["tiny_llama", "tiny_llama_tied"] as const) {
  Deno.test(`${name}: logits and loss of packed sequences are those of transformers`, () => {
    const model = loadTinyLlama(name);
    const { logits } = llama.forward(packed(model), model.config);
    assert.ok(largestDifference(logits, model.golden.logits.flat()) < 1e-10);
    assert.ok(Math.abs(lossOf(model) - model.golden.loss) < 1e-10);
  });

  Deno.test(`${name}: golden gradients are the central differences of the loss`, () => {
    const model = loadTinyLlama(name);
    assert.deepEqual([...model.parameters.keys()].sort(), Object.keys(model.golden.gradients).sort());
    for (const [parameter, { head, shape }] of Object.entries(model.golden.gradients)) {
      const input = model.parameters.get(parameter)!;
      assert.equal(input.length, shape.reduce((a, b) => a * b));
      // Index 31 is the last element of the first row, or of a gain.
      for (const index of [0, 31]) {
        const expected = centralDifference(() => lossOf(model), { input, index });
        assert.ok(
          Math.abs(head[index] - expected) < 1e-8,
          `${parameter}[${index}]: ${head[index]}, ${expected}`,
        );
      }
    }
  });

  Deno.test(`${name}: packed sequences equal the same sequences alone, bit for bit`, () => {
    const model = loadTinyLlama(name);
    const { parameters, config, golden } = model;
    const alone = golden.sequences.flatMap((inputIds) => [
      ...llama.forward({ parameters, inputIds, sequenceOffsets: [0, inputIds.length] }, config).logits,
    ]);
    assert.deepEqual(llama.forward(packed(model), config).logits, Float64Array.from(alone));
  });

  Deno.test(`${name}: a later token never changes earlier logits`, () => {
    const { parameters, config, golden } = loadTinyLlama(name);
    const ids = golden.sequences[0];
    const logitsOf = (inputIds: number[]) =>
      llama.forward({ parameters, inputIds, sequenceOffsets: [0, inputIds.length] }, config).logits;
    const before = logitsOf(ids);
    const after = logitsOf([...ids.slice(0, -2), 20, 21]);
    const kept = (ids.length - 2) * config.vocab_size;
    assert.deepEqual(after.slice(0, kept), before.slice(0, kept));
    assert.notDeepEqual(after.slice(kept), before.slice(kept));
  });
}

Deno.test("the reference model refuses a missing parameter and one of another size", () => {
  const model = loadTinyLlama("tiny_llama");
  const run = () => llama.forward(packed(model), model.config);
  model.parameters.set("model.norm.weight", new Float64Array(31));
  assert.throws(run, /expected model.norm.weight of 32 elements, found 31/);
  model.parameters.delete("lm_head.weight");
  model.parameters.delete("model.norm.weight");
  assert.throws(run, /expected a parameter model.norm.weight, found none/);
});
