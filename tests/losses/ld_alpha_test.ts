import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY, type SpoPenaltyOptions } from "../../engine/ops/pair_loss.ts";
import { release, scope, toHost } from "../../engine/tensor.ts";
import { parseRunConfig, resolveLoss } from "../../train/config.ts";
import type { EncodedPair } from "../../train/data/encode.ts";
import { ConfigError } from "../../train/errors.ts";
import { liveReference } from "../../train/live_reference.ts";
import { PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { resolvePairLoss } from "../../train/losses/weighted_sum.ts";
import { createMetricsRing, type MetricsRecord } from "../../train/metrics.ts";
import { preferenceObjective, type PreferenceOptions } from "../../train/objective.ts";
import { givenReference, referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import * as sequenceLogps from "../reference/sequence_logps.ts";
import * as spoReference from "../reference/spo.ts";
import { lossOf, randomPairs, referenceTokenLogps, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(8, 5);
const ALPHA = 0.3;
/** SPO's terms, which are of whole answers. */
const SPO: SpoPenaltyOptions = {
  ...NO_PENALTY,
  penalty: "linear",
  lambda: 0.4,
  vStar: 1,
  rho: 0.3,
  margin: 1,
};

/** Losses that compare log-ratios of whole answers, and so take `ldAlpha`. */
const TAKES = Object.values(PAIR_LOSSES).filter(({ optionNames }) => optionNames.includes("ldAlpha"))
  .map(({ name }) => name);

interface RunOptions {
  ldAlpha?: number;
  names?: string;
  spo?: SpoPenaltyOptions;
  sharePrompts?: boolean;
  isLive?: boolean;
  gradientAccumulationSteps?: number;
  batchTokens?: number;
}

/** Three steps of all pairs; the reference is another model, so that no rounding decides which reward is larger. */
async function records(gpu: Gpu, options: RunOptions = {}): Promise<MetricsRecord[]> {
  const { ldAlpha, names = "dpo", spo = NO_PENALTY, sharePrompts, isLive, ...parts } = options;
  using model = tinyModel(gpu);
  using other = tinyModel(gpu, { seed: 2 });
  using live = liveReference(other);
  using objective = preferenceObjective(model, {
    pairs: PAIRS,
    reference: isLive ? live : await referenceLogps(other, PAIRS, { ldAlpha }),
    startsAtReference: false,
    loss: resolvePairLoss(names, { options: ldAlpha === undefined ? {} : { ldAlpha } }),
    spoAt: () => spo,
    lambda: 0,
    sharePrompts,
  });
  const found: MetricsRecord[] = [];
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-3, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-3, warmupSteps: 0, maxSteps: 3 },
    ...{ batchSize: 8, seed: 1, logEvery: 1, ...parts },
    onLog: (record) => void found.push(record),
  });
  return found;
}

/** All that does not depend on how a step was split. */
function numbersOf(record: MetricsRecord): Record<string, number> {
  const { tokens_per_second: _, num_tokens: __, ...numbers } = record;
  return numbers as Record<string, number>;
}

function assertSame(found: readonly MetricsRecord[], expected: readonly MetricsRecord[], what: string): void {
  for (const [step, record] of expected.entries()) {
    const numbers = numbersOf(record);
    const others = Object.keys(numbers).map((key) => numbersOf(found[step])[key]);
    assertClose(others, Object.values(numbers), {
      what: `${what}, step ${step + 1}`,
      rtol: 1e-4,
      atol: 1e-4,
    });
  }
}

for (const names of ["dpo,sft", "ipo,apo_down"]) {
  gpuTest(
    `ldAlpha, ${names} in SPO: the same in parts, without shared prompts, and with a live reference`,
    async (gpu) => {
      const options = { ldAlpha: ALPHA, names, spo: SPO };
      const whole = await records(gpu, options);
      const others = [
        { gradientAccumulationSteps: 8 },
        { batchTokens: 25 },
        { sharePrompts: false },
        { isLive: true },
        { isLive: true, gradientAccumulationSteps: 4 },
      ];
      for (const other of others) {
        assertSame(await records(gpu, { ...options, ...other }), whole, JSON.stringify(other));
      }
      const plain = await records(gpu, { names, spo: SPO });
      assert.notEqual(numbersOf(whole[0])["logps/chosen"], numbersOf(plain[0])["logps/chosen"]);
      assert.equal(numbersOf(whole[0])["spo/lower_level"], numbersOf(plain[0])["spo/lower_level"]);
    },
  );
}

gpuTest("ldAlpha 1 is off: dpo to the bit, a sum with likelihoods to rounding", async (gpu) => {
  const [one, off] = [await records(gpu, { ldAlpha: 1 }), await records(gpu)];
  assert.deepEqual(one.map(numbersOf), off.map(numbersOf));
  const sum = { names: "dpo,sft", spo: SPO };
  const [summed, without] = [await records(gpu, { ...sum, ldAlpha: 1 }), await records(gpu, sum)];
  for (const [step, record] of without.entries()) {
    const numbers = numbersOf(record);
    const found = Object.keys(numbers).map((key) => numbersOf(summed[step])[key]);
    assertClose(found, Object.values(numbers), { what: `step ${step + 1}`, rtol: 1e-5, atol: 1e-6 });
  }
});

/** Sums under a model in f64: of all tokens, and with weighted tails. */
async function sumsOf(
  model: ReturnType<typeof tinyModel>,
  tailWeight: number,
): Promise<{ plain: Float64Array; weighted: Float64Array; lengths: number[] }> {
  const sides = [...PAIRS.map(({ chosen }) => chosen), ...PAIRS.map(({ rejected }) => rejected)];
  const tokens = await referenceTokenLogps(model, sides);
  const lengths = tokens.map(({ length }) => length);
  const sequenceOffsets = [0];
  lengths.forEach((length) => sequenceOffsets.push(sequenceOffsets.at(-1)! + length));
  const heads = PAIRS.map((_, p) => Math.min(lengths[p], lengths[p + PAIRS.length]));
  const inputs = { tokenLogps: Float64Array.from(tokens.flat()), sequenceOffsets };
  const dims = { M: inputs.tokenLogps.length, S: sides.length, tailWeight };
  return {
    plain: sequenceLogps.forward(inputs, dims).s,
    weighted: sequenceLogps.forward({ ...inputs, heads: [...heads, ...heads] }, dims).s,
    lengths,
  };
}

gpuTest("ldAlpha: loss and metrics are those of the f64 model, whose reference is another", async (gpu) => {
  using model = tinyModel(gpu);
  using other = tinyModel(gpu, { seed: 2 });
  for (const ldAlpha of [0, ALPHA]) {
    using ring = createMetricsRing(gpu, 1);
    using objective = preferenceObjective(model, {
      pairs: PAIRS,
      reference: await referenceLogps(other, PAIRS, { ldAlpha }),
      loss: resolvePairLoss("ipo,sft", { options: { ldAlpha }, weights: "1,0.5" }),
      ...{ spoAt: () => SPO, lambda: 0, startsAtReference: false },
    });
    const items = Uint32Array.from(PAIRS.keys());
    const loss = scope(gpu, () => lossOf(objective, { items, step: 1, metrics: ring.tensor }));
    const [policy, reference] = [await sumsOf(model, ldAlpha), await sumsOf(other, ldAlpha)];
    const inputs = { s: policy.weighted, ref: reference.weighted, lengths: policy.lengths };
    const expected = spoReference.forward({ ...inputs, plain: policy.plain, plainRef: reference.plain }, {
      ...{ ...SPO, lambda: 0.4, vStar: 1, penalty: "linear" },
      pairLoss: {
        terms: [{ loss: "ipo", beta: 0.1, weight: 1 }, { loss: "sft", weight: 0.5 }],
        ...{ P: PAIRS.length, normalizer: PAIRS.length },
      },
    });
    assertClose(await toHost(loss), [expected.total], { what: `loss, ldAlpha ${ldAlpha}` });
    const [found] = await ring.read(1, objective.metricNames);
    const numbers = { ...expected.metrics, "spo/lower_level": expected.lowerLevel };
    for (const [name, value] of Object.entries({ ...numbers, "spo/improvement": expected.improvement })) {
      assertClose([found[name]], [value], { what: `${name}, ldAlpha ${ldAlpha}` });
    }
    release(loss);
  }
});

Deno.test("ldAlpha is an option of the losses that compare log-ratios of whole answers", () => {
  // TRL 1.16 takes it with every loss of its DPOTrainer; these compare the policy's own log-probs.
  assert.deepEqual(
    Object.keys(PAIR_LOSSES).filter((name) => !TAKES.includes(name)),
    ["cpo", "simpo", "alphapo", "alphadpo", "orpo"],
  );
  for (const name of TAKES) {
    const { ldAlpha, options, initialLoss } = PAIR_LOSSES[name as PairLossKey].resolve({ ldAlpha: 0.5 });
    assert.deepEqual([ldAlpha, options.ldAlpha], [0.5, 0.5], name);
    assert.equal(initialLoss, PAIR_LOSSES[name as PairLossKey].resolve({}).initialLoss);
  }
  assert.equal(resolvePairLoss("mpo", { options: { ldAlpha: 0 } }).ldAlpha, 0);
  assert.ok(!("ldAlpha" in resolvePairLoss("mpo")));
});

Deno.test("ldAlpha is refused, by name, where it would do nothing or mean something else", () => {
  const parse = (raw: Record<string, unknown>) => parseRunConfig(raw, { describe: (path) => path.join(".") });
  assert.equal(resolveLoss(parse({ ldAlpha: 0.5 }))?.ldAlpha, 0.5);
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ loss: "sft", ldAlpha: 0.5 }, /Cannot use ldAlpha: expected a pairwise loss, found sft/],
    [{ loss: "kto", ldAlpha: 0.5 }, /Cannot use ldAlpha: expected a loss that reads it, found kto/],
    [
      { loss: "simpo", ldAlpha: 0.5 },
      /Cannot use ldAlpha: expected a loss that reads it \(dpo, .*found simpo/,
    ],
    [{ loss: "orpo", ldAlpha: 0.5 }, /Cannot use ldAlpha: .*found orpo/],
    [
      { loss: "dpo,cpo", ldAlpha: 0.5 },
      /Cannot use ldAlpha: expected losses that compare log-ratios of whole answers, found cpo, which/,
    ],
    [{ ldAlpha: 1.5 }, /Cannot use ldAlpha: expected .*1.*found 1\.5/],
    [{ ldAlpha: -0.1 }, /Cannot use ldAlpha: expected .*0.*found -0\.1/],
  ];
  for (const [raw, message] of refused) {
    assert.throws(() => parse(raw), (error) => {
      assert.ok(error instanceof ConfigError, `${JSON.stringify(raw)}: ${error}`);
      assert.match(error.message, message);
      return true;
    });
  }
});

gpuTest("ldAlpha refuses a reference's sums over whole answers, computed or of the data", async (gpu) => {
  using model = tinyModel(gpu);
  const plain = await referenceLogps(model, PAIRS);
  const make = (pairs: readonly EncodedPair[], reference: PreferenceOptions["reference"]) => {
    const loss = PAIR_LOSSES.dpo.resolve({ ldAlpha: 0.5 });
    return preferenceObjective(model, { pairs, reference, loss, spoAt: () => NO_PENALTY, lambda: 0 });
  };
  assert.throws(
    () => make(PAIRS, plain),
    new RangeError(
      "Cannot train with ldAlpha 0.5: expected a reference's log-probs under it, found sums over whole answers",
    ),
  );
  const other = await referenceLogps(model, PAIRS, { ldAlpha: 0.25 });
  assert.throws(() => make(PAIRS, other), /found ones under 0\.25/);
  const brought = PAIRS.map((pair, p) => ({
    ...pair,
    referenceChosen: plain.chosen[p],
    referenceRejected: plain.rejected[p],
  }));
  using live = liveReference(model);
  for (const reference of [givenReference(brought)!, live]) {
    assert.throws(() => make(brought, reference), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /ldAlpha 0\.5: .*found sums over whole answers in made\.jsonl:1$/);
      return true;
    });
  }
});
