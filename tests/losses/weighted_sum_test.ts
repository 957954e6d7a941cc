import assert from "node:assert/strict";
import { ConfigError } from "../../train/errors.ts";
import { resolvePairLoss } from "../../train/losses/weighted_sum.ts";

Deno.test("a loss alone, by its name or TRL's, is the registry's", () => {
  assert.equal(resolvePairLoss("sigmoid").name, "dpo");
  assert.equal(resolvePairLoss("aot_pair").name, "aot");
  const simpo = resolvePairLoss("simpo", { options: { beta: 3 } });
  assert.deepEqual(simpo.options, { beta: 3, gammaBetaRatio: 0.5 });
  assert.equal(resolvePairLoss("dpo", { weights: "0.5" }).initialLoss, Math.LN2 / 2);
});

Deno.test("a weighted sum: terms in order, options to the terms that have them, a first loss where all have one", () => {
  const sum = resolvePairLoss("dpo, nca_pair", { weights: "0.5,2", options: { labelSmoothing: 0.1 } });
  assert.equal(sum.name, "dpo+nca_pair");
  assert.deepEqual(sum.head.terms, [
    { loss: "dpo", weight: 0.5, options: { beta: 0.1, label_smoothing: 0.1 } },
    { loss: "nca_pair", weight: 2, options: { beta: 0.01 } },
  ]);
  assert.ok(Math.abs(sum.initialLoss! - (0.5 + 2 * 2) * Math.LN2) < 1e-12);
  // Their betas differ, so that no one value stands for both.
  assert.deepEqual(sum.options, { labelSmoothing: 0.1, fDivergenceType: "reverse_kl", referenceFree: false });
  assert.equal(sum.beta, 0.1);
  assert.equal(sum.needsWholeBatch, false);
  const other = resolvePairLoss("sft,simpo,aot", { options: { beta: 0.3 } });
  assert.equal(other.initialLoss, undefined);
  assert.equal(other.beta, 0.3);
  assert.deepEqual([other.needsReference, other.needsWholeBatch], [true, true]);
  assert.equal(resolvePairLoss("sft,simpo").needsReference, false);
});

Deno.test("presets are the sums they name", () => {
  const same = (preset: string, names: string, weights: string) =>
    assert.deepEqual(resolvePairLoss(preset), resolvePairLoss(names, { weights }));
  same("mpo", "dpo,bco_pair,sft", "0.8,0.2,1");
  same("rpo", "dpo,sft", "1,0.005");
  same("irpo", "dpo,sft", "1,1");
});

Deno.test("what does not fit is refused by name", () => {
  const refused: [string, Parameters<typeof resolvePairLoss>[1], RegExp][] = [
    ["dpoo", {}, /Cannot use loss: expected one of sft, dpo, .*found "dpoo" \(did you mean dpo\?\)/],
    ["dpo,dpo", {}, /expected dpo once, found it twice/],
    ["dpo,sigmoid", {}, /expected dpo once, found it twice/],
    ["dpo,", {}, /found ""/],
    ["sft", {}, /expected a pairwise loss, found sft alone/],
    ["toString", {}, /expected one of/],
    ["dpo,sft", { weights: "1" }, /Cannot use lossWeights: expected 2 numbers above 0/],
    ["dpo,sft", { weights: "1,x" }, /expected 2 numbers above 0/],
    ["dpo,sft", { weights: "1,-1" }, /expected 2 numbers above 0/],
    ["dpo,sft", { weights: "1," }, /expected 2 numbers above 0/],
    ["mpo", { weights: "1,1,1" }, /expected a list of losses with it, found mpo/],
    [
      "hinge,sft",
      { options: { labelSmoothing: 0.1 } },
      /expected a loss that reads it \(dpo, .*found hinge, sft/,
    ],
    [
      "exo_pair",
      { options: { labelSmoothing: 0 } },
      /Cannot use labelSmoothing with exo_pair: expected .*found 0/,
    ],
    ["dpo,exo_pair", { options: { labelSmoothing: 0 } }, /labelSmoothing with exo_pair/],
    ["dpo", { options: { beta: -1 }, describe: (name) => `--${name}` }, /Cannot use --beta with dpo/],
  ];
  for (const [names, choice, message] of refused) {
    assert.throws(() => resolvePairLoss(names, choice), (error: Error) => {
      assert.ok(error instanceof ConfigError, `${names}: ${error}`);
      assert.match(error.message, message);
      return true;
    });
  }
});
