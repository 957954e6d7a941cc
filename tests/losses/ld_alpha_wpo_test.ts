/**
 * LD-DPO's tail weights and WPO's pair weights in one loss, against the model in plain f64: the loss, its metrics, and the
 * gradient of a step.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release, scope, toHost } from "../../engine/tensor.ts";
import { resolvePairLoss } from "../../train/losses/weighted_sum.ts";
import { createMetricsRing } from "../../train/metrics.ts";
import type { Model } from "../../train/models/model.ts";
import { type Objective, preferenceObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import * as pairLoss from "../reference/pair_loss.ts";
import { seededRandom } from "../reference/random.ts";
import * as sequenceLogps from "../reference/sequence_logps.ts";
import { pairWeights } from "../reference/sequence_statistics.ts";
import { lossOf, randomPairs, referenceStatistics, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(8, 5);
const P = PAIRS.length;
const SIDES = [...PAIRS.map(({ chosen }) => chosen), ...PAIRS.map(({ rejected }) => rejected)];
const LENGTHS = SIDES.map(({ completionIds }) => completionIds.length);
const HEADS = [...LENGTHS.keys()].map((side) => Math.min(LENGTHS[side % P], LENGTHS[side % P + P]));
const ITEMS = Uint32Array.from(PAIRS.keys());

/** Sums of all tokens, sums with weighted tails, and WPO's weights of the pairs. */
async function sumsOf(model: Model, tailWeight: number) {
  const inputs = await referenceStatistics(model, SIDES);
  const { logps: tokenLogps, sequenceOffsets } = inputs;
  const dims = { M: tokenLogps.length, S: SIDES.length, tailWeight };
  return {
    plain: sequenceLogps.forward({ tokenLogps, sequenceOffsets }, dims).s,
    weighted: sequenceLogps.forward({ tokenLogps, sequenceOffsets, heads: HEADS }, dims).s,
    weights: pairWeights(inputs),
  };
}

type Sums = Awaited<ReturnType<typeof sumsOf>>;

/** The loss in f64; the weights of the pairs, which have no gradient, may be those of another moment. */
function expectedOf(policy: Sums, reference: Sums, weights = policy.weights) {
  return pairLoss.forward({
    ...{ s: policy.weighted, ref: reference.weighted, lengths: LENGTHS, weights },
    ...{ plain: policy.plain, plainRef: reference.plain },
  }, {
    terms: [{ loss: "dpo", beta: 0.5, weight: 1 }, { loss: "sft", weight: 0.5 }],
    ...{ P, normalizer: P },
  });
}

async function objectiveOf(
  model: Model,
  other: Model,
  { ldAlpha, useWeighting = true }: { ldAlpha: number; useWeighting?: boolean },
): Promise<Objective> {
  return preferenceObjective(model, {
    pairs: PAIRS,
    reference: await referenceLogps(other, PAIRS, { ldAlpha }),
    loss: resolvePairLoss("dpo,sft", { options: { ldAlpha, beta: 0.5 }, weights: "1,0.5" }),
    ...{ spoAt: () => NO_PENALTY, lambda: 0, startsAtReference: false, useWeighting },
  });
}

gpuTest("ldAlpha with WPO's weights: loss and metrics are those of the f64 model", async (gpu) => {
  using model = tinyModel(gpu);
  using other = tinyModel(gpu, { seed: 2 });
  for (const ldAlpha of [0, 0.3]) {
    using ring = createMetricsRing(gpu, 1);
    using objective = await objectiveOf(model, other, { ldAlpha });
    const loss = scope(gpu, () => lossOf(objective, { items: ITEMS, step: 1, metrics: ring.tensor }));
    const [policy, reference] = [await sumsOf(model, ldAlpha), await sumsOf(other, ldAlpha)];
    const expected = expectedOf(policy, reference);
    assertClose(await toHost(loss), [expected.loss], { what: `loss, ldAlpha ${ldAlpha}` });
    const [found] = await ring.read(1, objective.metricNames);
    for (const [name, value] of Object.entries(expected.metrics)) {
      assertClose([found[name]], [value], { what: `${name}, ldAlpha ${ldAlpha}` });
    }
    // Each of the two changes the loss: none of them is left out unseen.
    const unweighted = expectedOf(policy, reference, new Float64Array(P).fill(1)).loss;
    const untailed = expectedOf(await sumsOf(model, 1), await sumsOf(other, 1)).loss;
    for (const without of [unweighted, untailed]) assert.ok(Math.abs(without - expected.loss) > 1e-2);
    release(loss);
  }
});

/** The step's gradient of some parameters, by name. */
async function gradientsOf(gpu: Gpu, objective: Objective, names: readonly string[]) {
  using ring = createMetricsRing(gpu, 1);
  const { model } = objective;
  model.trained.zeroGradients();
  const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
  const tape = new Tape(gpu);
  const loss = lossOf(objective, { items: ITEMS, step: 1, metrics: ring.tensor });
  tape.backward([{ tensor: loss, gradient: one }]);
  const gradients = new Map<string, Float32Array>();
  for (const name of names) gradients.set(name, await model.parameters.readGradient(name));
  release(one);
  return gradients;
}

gpuTest("ldAlpha with WPO's weights: a step's gradient is the slope of the f64 loss", async (gpu) => {
  using model = tinyModel(gpu);
  using other = tinyModel(gpu, { seed: 2 });
  const ldAlpha = 0.3;
  using objective = await objectiveOf(model, other, { ldAlpha });
  const names = ["lm_head.weight", "model.norm.weight", "model.layers.0.self_attn.o_proj.weight"];
  const gradients = await gradientsOf(gpu, objective, names);
  const reference = await sumsOf(other, ldAlpha);
  const { weights } = await sumsOf(model, ldAlpha);
  const random = seededRandom(11);
  for (const name of names) {
    const values = await model.parameters.read(name);
    const direction = values.map(() => 2e-3 * (2 * random() - 1));
    const lossAt = async (sign: number) => {
      const moved = values.map((value, index) => value + sign * direction[index]);
      model.parameters.write(name, moved);
      return { moved, loss: expectedOf(await sumsOf(model, ldAlpha), reference, weights).loss };
    };
    const [up, down] = [await lossAt(1), await lossAt(-1)];
    model.parameters.write(name, values);
    const gradient = gradients.get(name)!;
    // What f32 made of the two points, so that the slope is along the way between them.
    const slope = gradient.reduce(
      (sum, value, index) => sum + value * (up.moved[index] - down.moved[index]),
      0,
    );
    // The third order of the direction is left out of a central difference.
    assertClose([slope], [up.loss - down.loss], { what: name, rtol: 1e-3, atol: 1e-8 });
  }
});
