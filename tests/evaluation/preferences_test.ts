import assert from "node:assert/strict";
import { comparePreferences } from "../../train/evaluation/preferences.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { randomPairs, referenceTokenLogps, sum, tinyModel } from "../tiny_model.ts";
import { referenceLogps } from "../../train/reference.ts";

const source = { file: "made.jsonl" };
const side = (length: number) => ({ promptIds: [1], completionIds: Array(length).fill(2), source });
const pair = (chosen: number, rejected: number) => ({
  chosen: side(chosen),
  rejected: side(rejected),
  source,
});

Deno.test("accuracies, margins and changes are those of a calculation by hand", () => {
  const pairs = [pair(2, 1), pair(4, 1), pair(1, 4), pair(1, 1)];
  const policy = { chosen: Float32Array.of(-1, -8, -3, -2), rejected: Float32Array.of(-2, -4, -8, -2) };
  const reference = { chosen: Float32Array.of(-2, -8, -2, -2), rejected: Float32Array.of(-2, -2, -4, -3) };
  const found = comparePreferences(pairs, { policy, reference, beta: 0.5 });
  assert.equal(found.pairs, 4);
  // -1 > -2, -8 < -4, -3 > -8, and -2 = -2 is no success.
  assert.equal(found.accuracy.value, 0.5);
  // -0.5 > -2, -2 > -4, -3 < -2, -2 = -2.
  assert.equal(found.accuracyPerToken.value, 0.5);
  assert.equal(found.logpsChosen.value, -3.5);
  assert.equal(found.logpsRejected.value, -4);
  assert.equal(found.logpsChosenPerToken.value, (-0.5 - 2 - 3 - 2) / 4);
  assert.equal(found.logpsRejectedPerToken.value, (-2 - 4 - 2 - 2) / 4);
  // Deltas: chosen 1, 0, -1, 0; rejected 0, -2, -4, 1.
  assert.deepEqual(found.reference!.rewardAccuracy.value, 0.75);
  assert.equal(found.reference!.chosenDelta.value, 0);
  assert.equal(found.reference!.rejectedDelta.value, -1.25);
  assert.equal(found.reference!.rewardMargin.value, 0.5 * (1 + 2 + 3 - 1) / 4);
  assert.ok(Math.abs(found.reference!.rewardMargin.standardError! - 0.5 * Math.sqrt(8.75 / 3 / 4)) < 1e-12);
  assert.equal(found.reference!.logpsRejected.value, -2.75);
  assert.equal(comparePreferences(pairs, { policy }).reference, undefined);
});

gpuTest("accuracies of a model are those of the f64 model", async (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  const pairs = randomPairs(9, 5);
  const f64 = async (name: "chosen" | "rejected") =>
    await referenceTokenLogps(model, pairs.map((pair) => pair[name]));
  const [chosen, rejected] = [await f64("chosen"), await f64("rejected")];
  const mean = (logps: number[]) => sum(logps) / logps.length;
  const share = (of: (logps: number[]) => number) =>
    chosen.filter((logps, i) => of(logps) > of(rejected[i])).length / pairs.length;
  const found = comparePreferences(pairs, { policy: await referenceLogps(model, pairs) });
  assert.equal(found.accuracy.value, share(sum));
  assert.equal(found.accuracyPerToken.value, share(mean));
  assert.notEqual(found.accuracy.value, found.accuracyPerToken.value, "the two must not be the same number");
  assertClose([found.logpsChosenPerToken.value], [mean(chosen.map(mean))], { what: "per token" });
});
