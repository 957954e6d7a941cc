import assert from "node:assert/strict";
import { assertBackward } from "./central_difference.ts";
import * as pairLoss from "./pair_loss.ts";
import type { PairLossInputs, PairLossKind, TermKind } from "./pair_loss.ts";
import { integers, normals, seededRandom } from "./random.ts";
import * as spo from "./spo.ts";
import type { PenaltyShape, SpoDims } from "./spo.ts";
import { dualLambda, lambdaAt, updateInitialValue } from "./spo_schedule.ts";

const P = 6;
const KINDS: TermKind[] = [
  { loss: "dpo", beta: 0.1, labelSmoothing: 0.1 },
  { loss: "hinge", beta: 0.2 },
  { loss: "ipo", beta: 0.1 },
  { loss: "simpo", beta: 2, gammaBetaRatio: 0.5 },
];
const SHAPES: PenaltyShape[] = ["linear", "hinge", "quadratic"];

function randomPairs(seed: number): PairLossInputs {
  const random = seededRandom(seed);
  const ref = normals(random, { length: 2 * P, scale: 3 }).map((value) => value - 20);
  const moved = normals(random, { length: 2 * P, scale: 2 });
  return {
    s: ref.map((value, i) => value + moved[i]),
    ref,
    lengths: integers(random, { length: 2 * P, low: 2, high: 9 }),
  };
}

function settings(kind: PairLossKind, changes: Partial<SpoDims> = {}): SpoDims {
  return {
    pairLoss: { ...kind, P, normalizer: P },
    lambda: 0.7,
    penalty: "linear",
    epsilon: 0.1,
    vStar: 1,
    rho: 0,
    margin: 0,
    ...changes,
  };
}

/** G of the inputs, to place v* inside or outside the region. */
function lowerLevelOf(inputs: PairLossInputs): number {
  return spo.forward(inputs, settings(KINDS[0])).lowerLevel;
}

for (const kind of KINDS) {
  for (const penalty of SHAPES) {
    for (const [where, gap] of [["inside", -0.5], ["outside", 0.5]] as const) {
      Deno.test(`spo ${kind.loss} ${penalty} ${where} the region: backward is the central difference`, () => {
        const inputs = randomPairs(1);
        const vStar = lowerLevelOf(inputs) - gap;
        const dims = settings(kind, { penalty, vStar, rho: 0.4, margin: 0.5 });
        assertBackward(spo, { inputs, dims, outputs: ["total"], seed: 2 });
      });
    }
  }

  Deno.test(`spo ${kind.loss}: beside plain sums G and R are of those`, () => {
    const inputs = randomPairs(6);
    const tail = normals(seededRandom(7), { length: 2 * P, scale: 2 }).map(Math.abs);
    const plain = inputs.s.map((value, i) => value - tail[i]);
    const whole = { ...inputs, plain, plainRef: inputs.ref.map((value, i) => value - 0.5 * tail[i]) };
    for (const penalty of SHAPES) {
      const dims = settings(kind, { penalty, rho: 0.4, margin: 0.5 });
      assertBackward(spo, { inputs: whole, dims, outputs: ["total"], seed: 2 });
      const { lowerLevel, improvement } = spo.forward(whole, dims);
      const expected = spo.forward({ ...inputs, s: plain, ref: whole.plainRef }, dims);
      assert.deepEqual([lowerLevel, improvement], [expected.lowerLevel, expected.improvement]);
    }
  });

  Deno.test(`spo ${kind.loss}: lambda = rho = 0 is the pair loss exactly`, () => {
    const inputs = randomPairs(3);
    const dims = settings(kind, { lambda: 0 });
    assert.equal(spo.forward(inputs, dims).total, pairLoss.forward(inputs, dims.pairLoss).loss);
    assert.deepEqual(
      spo.backward(inputs, dims, { dTotal: 1 }).dS,
      pairLoss.backward(inputs, dims.pairLoss, { dLoss: 1 }).dS,
    );
  });

  Deno.test(`spo ${kind.loss}: hinge is the pair loss exactly inside, plus lambda grad G outside`, () => {
    const inputs = randomPairs(4);
    const plain = pairLoss.backward(inputs, settings(kind).pairLoss, { dLoss: 1 }).dS;
    const inside = settings(kind, { penalty: "hinge", vStar: lowerLevelOf(inputs) - 0.09 });
    assert.deepEqual(spo.backward(inputs, inside, { dTotal: 1 }).dS, plain);
    assert.equal(spo.forward(inputs, inside).total, pairLoss.forward(inputs, inside.pairLoss).loss);
    const outside = { ...inside, vStar: lowerLevelOf(inputs) - 0.11 };
    assertPlainPlusNll(spo.backward(inputs, outside, { dTotal: 1 }).dS, { plain, inputs, lambda: 0.7 });
  });

  Deno.test(`spo ${kind.loss}: linear is the pair loss plus lambda NLL of the chosen, wherever v* is`, () => {
    const inputs = randomPairs(5);
    const plain = pairLoss.backward(inputs, settings(kind).pairLoss, { dLoss: 1 }).dS;
    for (const vStar of [-10, 0, 10]) {
      const { dS } = spo.backward(inputs, settings(kind, { vStar }), { dTotal: 1 });
      assertPlainPlusNll(dS, { plain, inputs, lambda: 0.7 });
    }
  });
}

/** Asserts dS = plain + lambda d(mean over pairs of -s_w / n_w)/dS, the length-averaged NLL of the chosen. */
function assertPlainPlusNll(
  dS: Float64Array,
  { plain, inputs, lambda }: { plain: Float64Array; inputs: PairLossInputs; lambda: number },
): void {
  for (let i = 0; i < 2 * P; i++) {
    const nll = i < P ? -1 / (inputs.lengths[i] * P) : 0;
    assert.ok(Math.abs(dS[i] - (plain[i] + lambda * nll)) < 1e-15, `element ${i} is ${dS[i]}`);
  }
  assert.notDeepEqual(dS, plain);
}

Deno.test("spo: terms of two pairs by hand", () => {
  const inputs = {
    s: Float64Array.of(-4, -9, -6, -3),
    ref: Float64Array.of(-5, -6, -5, -5),
    lengths: [2, 3, 3, 1],
  };
  const dims = settings({ loss: "hinge", beta: 1 }, {
    pairLoss: { loss: "hinge", beta: 1, P: 2, normalizer: 2 },
    penalty: "quadratic",
    vStar: 1.4,
    rho: 3,
    margin: 0.5,
    lambda: 2,
  });
  const outputs = spo.forward(inputs, dims);
  assert.equal(outputs.loss, 3); // D = 2 and -5: max(0, -1) and 6
  assert.equal(outputs.lowerLevel, 2.5); // (2 + 3) / 2
  assert.ok(Math.abs(outputs.improvement - 3.5 / 3 / 2) < 1e-15); // shortfalls max(0, -0.5) and 3.5
  assert.ok(Math.abs(outputs.gap - 1.1) < 1e-15);
  assert.ok(Math.abs(outputs.penalty - 0.5) < 1e-15); // (1.1 - .1)^2 / 2
  assert.ok(Math.abs(outputs.total - (3 + 3 * 3.5 / 6 + 2 * 0.5)) < 1e-14);
});

Deno.test("the improvement term acts only on pairs that fall short of the reference plus margin", () => {
  const inputs = {
    s: Float64Array.of(-4, -9, 0, 0),
    ref: Float64Array.of(-5, -6, 0, 0),
    lengths: [2, 3, 1, 1],
  };
  const dims = settings({ loss: "dpo", beta: 0.1 }, {
    pairLoss: { loss: "dpo", beta: 0.1, P: 2, normalizer: 2 },
    lambda: 0,
    rho: 1,
  });
  const plain = pairLoss.backward(inputs, dims.pairLoss, { dLoss: 1 }).dS;
  const { dS } = spo.backward(inputs, dims, { dTotal: 1 });
  assert.equal(dS[0], plain[0]);
  assert.equal(dS[1], plain[1] - 1 / 6);
});

Deno.test("lambda schedules start, grow and hold", () => {
  const at = (kind: "linear" | "geometric", step: number) =>
    lambdaAt({ kind, start: 1, end: 9, steps: 4 }, step);
  assert.deepEqual([0, 1, 2, 4, 100].map((step) => at("linear", step)), [1, 3, 5, 9, 9]);
  assert.deepEqual([0, 2, 4, 100].map((step) => at("geometric", step)), [1, 3, 9, 9]);
  assert.equal(lambdaAt({ kind: "constant", lambda: 0.3 }, 50), 0.3);
  assert.throws(
    () => lambdaAt({ kind: "geometric", start: 0, end: 1, steps: 2 }, 1),
    /expected positive bounds/,
  );
});

Deno.test("dual lambda grows outside the region, decays inside, and never falls below 0", () => {
  assert.equal(dualLambda(1, { eta: 0.5, gap: 3, epsilon: 1 }), 2);
  assert.equal(dualLambda(1, { eta: 0.5, gap: 0, epsilon: 1 }), 0.5);
  assert.equal(dualLambda(0.1, { eta: 0.5, gap: 0, epsilon: 1 }), 0);
});

Deno.test("v* = initial: the first gap is 0, later steps average, and the window freezes it", () => {
  let state = updateInitialValue(undefined, { lowerLevel: 2 });
  assert.equal(2 - state.value, 0);
  state = updateInitialValue(state, { lowerLevel: 4, decay: 0.5, window: 2 });
  assert.deepEqual(state, { value: 3, steps: 2 });
  assert.equal(updateInitialValue(state, { lowerLevel: 100, decay: 0.5, window: 2 }), state);
});
