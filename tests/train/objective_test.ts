import assert from "node:assert/strict";
import { NO_PENALTY, type SpoPenaltyOptions } from "../../engine/ops/pair_loss.ts";
import { PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { preferenceObjective, sftObjective } from "../../train/objective.ts";
import { gpuTest } from "../gpu.ts";
import { tinyModel } from "../tiny_model.ts";

const side = (prompt: number, completion: number, line: number) => ({
  promptIds: Array<number>(prompt).fill(1),
  completionIds: Array<number>(completion).fill(2),
  source: { file: "made.jsonl", line },
});

const PAIRS = [[2, 3, 5], [4, 1, 2]].map(([prompt, chosen, rejected], index) => ({
  chosen: side(prompt, chosen, index + 1),
  rejected: side(prompt, rejected, index + 1),
  source: { file: "made.jsonl", line: index + 1 },
}));

gpuTest("objectives count the rows of their items and name where they come from", (gpu) => {
  using model = tinyModel(gpu);
  using sft = sftObjective(model, PAIRS.map(({ chosen }) => chosen));
  assert.deepEqual(sft.size(Uint32Array.of(0, 1)), { tokens: 10, labels: 4 });
  assert.deepEqual(sft.size(Uint32Array.of(1)), { tokens: 5, labels: 1 });
  assert.equal(sft.source(1), "made.jsonl:2");
  assert.equal(sft.initialLoss, undefined);
  const zeros = new Float32Array(2);
  const options = {
    ...{ pairs: PAIRS, reference: { chosen: zeros, rejected: zeros }, lambda: 0 },
    ...{ loss: PAIR_LOSSES.dpo.resolve({}), spoAt: () => NO_PENALTY },
  };
  using dpo = preferenceObjective(model, options);
  const labels = 3 + 5 + 1 + 2;
  assert.deepEqual(dpo.size(Uint32Array.of(0, 1)), { tokens: 2 + 3 + 5 + 4 + 1 + 2, labels });
  using unshared = preferenceObjective(model, { ...options, sharePrompts: false });
  assert.deepEqual(unshared.size(Uint32Array.of(0, 1)), { tokens: 5 + 7 + 5 + 6, labels });
  assert.equal(dpo.source(0), "made.jsonl:1");
  assert.equal(dpo.count, 2);
});

gpuTest("a first loss is demanded only where the data cannot change it", (gpu) => {
  using model = tinyModel(gpu);
  const zeros = new Float32Array(2);
  const demanded = (loss: PairLossKey, spo: SpoPenaltyOptions) => {
    using objective = preferenceObjective(model, {
      ...{ pairs: PAIRS, reference: { chosen: zeros, rejected: zeros }, lambda: 0 },
      ...{ loss: PAIR_LOSSES[loss].resolve({}), spoAt: () => spo },
    });
    return objective.initialLoss;
  };
  assert.equal(demanded("dpo", NO_PENALTY), Math.LN2);
  assert.equal(demanded("hinge", NO_PENALTY), 1);
  assert.equal(demanded("simpo", NO_PENALTY), undefined);
  assert.equal(demanded("dpo", { ...NO_PENALTY, rho: 0.1 }), undefined);
  assert.equal(demanded("dpo", { ...NO_PENALTY, penalty: "linear", lambda: 1 }), undefined);
});
