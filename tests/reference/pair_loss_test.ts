import assert from "node:assert/strict";
import { assertBackward, centralDifference } from "./central_difference.ts";
import { batchBeta, marginMoments, marginShifts } from "./pair_batch.ts";
import * as pairLoss from "./pair_loss.ts";
import { BATCH_KINDS, SINGLE_KINDS, SUM_KINDS } from "./pair_loss_cases.ts";
import type { PairLossInputs, PairLossKind } from "./pair_loss.ts";
import { integers, normals, seededRandom } from "./random.ts";

const KINDS: Record<string, PairLossKind> = { ...SINGLE_KINDS, ...BATCH_KINDS, ...SUM_KINDS };

/** Pairs, with a margin, a weight and a prompt each. */
function randomPairs(
  P: number,
  seed: number,
  scale = 8,
): Required<Omit<PairLossInputs, "plain" | "plainRef">> & { weights: Float64Array } {
  const random = seededRandom(seed);
  const ref = normals(random, { length: 2 * P, scale: 5 }).map((value) => value - 40);
  const moved = normals(random, { length: 2 * P, scale });
  return {
    s: ref.map((value, i) => value + moved[i]),
    ref,
    lengths: integers(random, { length: 2 * P, low: 4, high: 12 }),
    margins: normals(random, { length: P, scale: 0.5 }),
    weights: normals(random, { length: P, scale: 0.3 }).map((value) => Math.exp(value)),
    promptLogps: normals(random, { length: P, scale: 3 }).map((value) => value - 20),
  };
}

/** Sorted over the batch, a value is of no one pair: such losses take no weights. */
function inputsFor(kind: PairLossKind, inputs: PairLossInputs): PairLossInputs {
  const sorts = pairLoss.termsOf(kind).some(({ loss }) => loss.startsWith("aot"));
  return sorts ? { ...inputs, weights: undefined } : inputs;
}

/** A pair's exponential would drown the others' digits. */
const scaleOf = (kind: PairLossKind) => "divergence" in kind ? 1 : 8;

/** The kind with what it detaches fixed at these pairs. */
function fixed(kind: PairLossKind, inputs: PairLossInputs, P: number): PairLossKind {
  if ("terms" in kind) return kind;
  const pairs = pairLoss.pairsOf(inputs, { P }).map((pair) => ({ ...pair, offset: 0 }));
  if (kind.loss === "alphadpo") {
    return { ...kind, detached: { shifts: marginShifts(pairs, marginMoments(pairs)) } };
  }
  return kind.loss === "beta_dpo" ? { ...kind, detached: { beta: batchBeta(kind, 0.3) } } : kind;
}

for (const [name, kind] of Object.entries(KINDS)) {
  for (const P of [1, 5, 17]) {
    Deno.test(`pair_loss ${name}, ${P} pairs: backward is the central difference`, () => {
      const inputs = inputsFor(kind, randomPairs(P, P, scaleOf(kind)));
      const dims = {
        ...fixed(kind, inputs, P),
        P,
        normalizer: 2 * P,
        chosenTokens: 7 * P,
        promptTokens: 9 * P,
      };
      assertBackward(pairLoss, { inputs, dims, outputs: ["loss"], seed: 1 });
    });
  }
}

/** The same pairs with sums over whole completions: less likely than what has weights. */
function withPlain(inputs: PairLossInputs, seed: number): PairLossInputs {
  const random = seededRandom(seed);
  const tails = () => normals(random, { length: inputs.s.length, scale: 3 }).map((value) => -Math.abs(value));
  const [tail, refTail] = [tails(), tails()];
  return {
    ...inputs,
    plain: inputs.s.map((value, i) => value + tail[i]),
    plainRef: inputs.ref.map((value, i) => value + refTail[i]),
  };
}

for (const [name, kind] of Object.entries(KINDS)) {
  Deno.test(`pair_loss ${name}: beside plain sums likelihoods are of those, preferences are not`, () => {
    const P = 5;
    const inputs = withPlain(inputsFor(kind, randomPairs(P, 2, scaleOf(kind))), 4);
    const dims = { ...fixed(kind, inputs, P), P, normalizer: P, chosenTokens: 7 * P, promptTokens: 9 * P };
    assertBackward(pairLoss, { inputs, dims, outputs: ["loss"], seed: 1 });
    const { dPlain } = pairLoss.backward(inputs, dims, { dLoss: 1 });
    const hasLikelihood = pairLoss.termsOf(kind).some(({ loss }) => ["sft", "cpo", "orpo"].includes(loss));
    assert.equal(dPlain!.some((value) => value !== 0), hasLikelihood);
    const { plain: _, plainRef: __, ...alone } = inputs;
    const same = { ...alone, plain: alone.s, plainRef: alone.ref };
    assert.deepEqual(pairLoss.forward(same, dims), pairLoss.forward(alone, dims));
    const [{ metrics }, { metrics: without }] = [
      pairLoss.forward(inputs, dims),
      pairLoss.forward(alone, dims),
    ];
    assert.equal(metrics["logps/chosen"], without["logps/chosen"], "those of the loss");
    assert.notEqual(metrics["displacement/chosen_delta"], without["displacement/chosen_delta"]);
  });
}

for (const [name, kind] of Object.entries({ ...SINGLE_KINDS, mpo: SUM_KINDS.mpo })) {
  Deno.test(`pair_loss ${name}: the halves of a batch add up to the whole`, () => {
    const whole = randomPairs(4, 3, scaleOf(kind));
    const counts = { normalizer: 4, chosenTokens: 21, promptTokens: 30 };
    const wholeDims = { ...kind, P: 4, ...counts };
    const expected = pairLoss.forward(whole, wholeDims);
    const expectedGradient = pairLoss.backward(whole, wholeDims, { dLoss: 1 }).dS;
    const take = (values: ArrayLike<number>, first: number) =>
      Float64Array.from(
        values.length === 4 ? [first, first + 1] : [first, first + 1, first + 4, first + 5],
        (i) => values[i],
      );
    let loss = 0;
    let margins = 0;
    for (const first of [0, 2]) {
      const half = {
        s: take(whole.s, first),
        ref: take(whole.ref, first),
        lengths: take(whole.lengths, first),
        margins: take(whole.margins, first),
        weights: take(whole.weights, first),
        promptLogps: take(whole.promptLogps, first),
      };
      const dims = { ...kind, P: 2, ...counts };
      const outputs = pairLoss.forward(half, dims);
      loss += outputs.loss;
      margins += outputs.metrics["rewards/margins"];
      assert.deepEqual(pairLoss.backward(half, dims, { dLoss: 1 }).dS, take(expectedGradient, first));
    }
    assert.ok(Math.abs(loss - expected.loss) < 1e-12 * Math.abs(expected.loss));
    assert.ok(Math.abs(margins - expected.metrics["rewards/margins"]) < 1e-12 * (1 + Math.abs(margins)));
  });
}

Deno.test("aot: each sorted place pairs the policy's number with the reference's; equal ones keep their order", () => {
  const inputs = {
    // Margins of the policy 3, 1, 3; of the reference 0, 5, 2: the first and third are equal.
    s: Float64Array.of(3, 1, 3, 0, 0, 0),
    ref: Float64Array.of(0, 5, 2, 0, 0, 0),
    lengths: [1, 1, 1, 1, 1, 1],
  };
  const { losses } = pairLoss.forward(inputs, { loss: "aot", beta: 1, P: 3, normalizer: 3 });
  const expected = [3 - 2, 1 - 0, 3 - 5].map((z) => Math.log1p(Math.exp(-z)));
  losses.forEach((loss, p) => assert.ok(Math.abs(loss - expected[p]) < 1e-12));
});

Deno.test("dpo: where policy equals reference the loss is log 2 and the rewards are 0", () => {
  const { ref, lengths } = randomPairs(6, 2);
  const dims = { loss: "dpo", beta: 0.1, P: 6, normalizer: 6 } as const;
  const { losses, loss, metrics } = pairLoss.forward({ s: ref.slice(), ref, lengths }, dims);
  for (const value of losses) assert.equal(value, Math.LN2);
  assert.ok(Math.abs(loss - Math.LN2) < 1e-15);
  assert.equal(metrics["rewards/margins"], 0);
  assert.equal(metrics["rewards/accuracies"], 0);
  assert.equal(metrics["displacement/fraction"], 0);
});

Deno.test("losses and gradients stay finite and right at |z| = 80, 1,000 and 1e6", () => {
  for (const size of [80, 1000, 1e6]) {
    for (const kind of [{ loss: "dpo", beta: 1 }, { loss: "simpo", beta: 1, gammaBetaRatio: 0 }] as const) {
      const dims = { ...kind, P: 2, normalizer: 1 };
      // First pair z = size, second z = -size.
      const inputs = {
        s: Float64Array.of(size, -size, 0, 0),
        ref: new Float64Array(4),
        lengths: Float64Array.of(1, 1, 1, 1),
      };
      const { losses } = pairLoss.forward(inputs, dims);
      assert.ok(Math.abs(losses[0] - Math.exp(-size)) <= 1e-12 * Math.exp(-size), `found ${losses[0]}`);
      assert.equal(losses[1], size);
      const { dS } = pairLoss.backward(inputs, dims, { dLoss: 1 });
      assert.ok(Math.abs(dS[0] + Math.exp(-size)) <= 1e-12 * Math.exp(-size));
      assert.deepEqual([dS[1], dS[3]], [-1, 1]);
    }
  }
});

Deno.test("dpo's gradient on a pair already won by z = 80 keeps its relative accuracy", () => {
  const inputs = { s: Float64Array.of(80, 0), ref: new Float64Array(2), lengths: [1, 1] };
  const { dS } = pairLoss.backward(inputs, { loss: "dpo", beta: 1, P: 1, normalizer: 1 }, { dLoss: 1 });
  assert.ok(Math.abs(dS[0] / -Math.exp(-80) - 1) < 1e-12, `found ${dS[0]}`);
});

Deno.test("label smoothing: its least loss is at sigmoid(bD) = 1 - e", () => {
  const z = Math.log(0.8 / 0.2);
  const inputs = { s: Float64Array.of(z, 0), ref: new Float64Array(2), lengths: [1, 1] };
  const dims = { loss: "dpo", beta: 1, labelSmoothing: 0.2, P: 1, normalizer: 1 } as const;
  assert.ok(Math.abs(pairLoss.backward(inputs, dims, { dLoss: 1 }).dS[0]) < 1e-15);
});

Deno.test("simpo: the reference moves neither loss nor gradient, the ratio moves the loss", () => {
  const inputs = randomPairs(3, 7);
  const dims = { loss: "simpo", beta: 2, gammaBetaRatio: 0.5, P: 3, normalizer: 3 } as const;
  const { ref } = inputs;
  const slope = centralDifference(() => pairLoss.forward(inputs, dims).loss, { input: ref, index: 1 });
  assert.equal(slope, 0);
  const loss = pairLoss.forward(inputs, dims).loss;
  assert.ok(pairLoss.forward(inputs, { ...dims, gammaBetaRatio: 0.6 }).loss > loss);
});

Deno.test("metrics of two pairs by hand", () => {
  const inputs = {
    s: Float64Array.of(-4, -9, -6, -3),
    ref: Float64Array.of(-5, -6, -5, -5),
    lengths: [2, 3, 3, 1],
  };
  const counts = { P: 2, normalizer: 2 };
  assert.deepEqual(pairLoss.forward(inputs, { loss: "dpo", beta: 0.5, ...counts }).metrics, {
    "rewards/chosen": -0.5, // .5 (1 - 3) / 2
    "rewards/rejected": 0.25, // .5 (-1 + 2) / 2
    "rewards/margins": -0.75,
    "rewards/accuracies": 0.5,
    "logps/chosen": -6.5,
    "logps/rejected": -4.5,
    "displacement/chosen_delta": -1,
    "displacement/rejected_delta": 0.5,
    "displacement/fraction": 0.5,
  });
  const simpo = pairLoss.forward(inputs, { loss: "simpo", beta: 2, gammaBetaRatio: 0.5, ...counts }).metrics;
  assert.equal(simpo["rewards/chosen"], -5); // 2 (-2 - 3) / 2
  assert.equal(simpo["rewards/rejected"], -5); // 2 (-2 - 3) / 2
  assert.equal(simpo["rewards/accuracies"], 0); // both pairs are equal, which is not larger
});

Deno.test("pair_loss refuses an empty completion", () => {
  const inputs = { s: new Float64Array(2), ref: new Float64Array(2), lengths: [3, 0] };
  assert.throws(
    () => pairLoss.forward(inputs, { loss: "dpo", beta: 1, P: 1, normalizer: 1 }),
    /Cannot score completion 1: expected at least 1 token, found 0/,
  );
});
