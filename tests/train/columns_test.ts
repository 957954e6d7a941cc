import assert from "node:assert/strict";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { release, scope, toHost } from "../../engine/tensor.ts";
import type { EncodedPair } from "../../train/data/encode.ts";
import { ConfigError } from "../../train/errors.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import { createMetricsRing } from "../../train/metrics.ts";
import type { Model } from "../../train/models/model.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { givenReference, type ReferenceLogps, referenceLogps } from "../../train/reference.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { lossOf, randomPairs, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(4, 2);

async function firstLoss(
  model: Model,
  pairs: readonly EncodedPair[],
  { reference, loss = "dpo" }: { reference: ReferenceLogps; loss?: "dpo" | "nca_pair" },
): Promise<number> {
  using ring = createMetricsRing(model.gpu, 1);
  const options = { pairs, reference, spoAt: () => NO_PENALTY, lambda: 0, startsAtReference: false };
  using objective = preferenceObjective(model, { ...options, loss: PAIR_LOSSES[loss].resolve({ beta: 1 }) });
  const items = Uint32Array.from(pairs.keys());
  const tensor = scope(model.gpu, () => lossOf(objective, { items, step: 1, metrics: ring.tensor }));
  const [value] = await toHost(tensor);
  release(tensor);
  return value;
}

gpuTest("margins of the data are subtracted inside the sigmoid, pair by pair", async (gpu) => {
  using model = tinyModel(gpu);
  const reference = await referenceLogps(model, PAIRS);
  const margins = [0, 0.5, 2, -1];
  const pairs = PAIRS.map((pair, index) => ({ ...pair, margin: margins[index] }));
  // At policy = reference D is 0: -log sigmoid(-margin).
  const expected = margins.reduce((total, margin) => total + Math.log1p(Math.exp(margin)), 0) / 4;
  assertClose([await firstLoss(model, pairs, { reference })], [expected], { what: "loss" });
  await assert.rejects(firstLoss(model, pairs, { reference, loss: "nca_pair" }), (error) => {
    assert.ok(error instanceof ConfigError);
    assert.match(
      error.message,
      /^Cannot train with nca_pair: expected a loss that takes margins, as made\.jsonl:1/,
    );
    return true;
  });
});

gpuTest("log-probs that the data brings are the reference", async (gpu) => {
  using model = tinyModel(gpu);
  const own = await referenceLogps(model, PAIRS);
  // A reference that likes the chosen answers 1 nat less: D is 1.
  const pairs = PAIRS.map((pair, index) => ({
    ...pair,
    referenceChosen: own.chosen[index] - 1,
    referenceRejected: own.rejected[index],
  }));
  const reference = givenReference(pairs)!;
  const expected = Math.log1p(Math.exp(-1));
  assertClose([await firstLoss(model, pairs, { reference })], [expected], { what: "loss" });
  assert.equal(givenReference(PAIRS), undefined);
});
