import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import {
  NO_PENALTY,
  pairLoss,
  type PairLossOptions,
  type SpoPenaltyOptions,
  spoState,
} from "../../engine/ops/pair_loss.ts";
import { ShapeError } from "../../engine/shape.ts";
import { empty, fromHost, release, upload } from "../../engine/tensor.ts";
import { METRICS_STRIDE, pairMetrics, SPO_STATE } from "../../shaders/pair_loss.ts";
import { gpuTest, readAll } from "../gpu.ts";
import * as reference from "../reference/pair_loss.ts";
import type { PairLossInputs, PairLossKind } from "../reference/pair_loss.ts";
import * as spoReference from "../reference/spo.ts";
import { dualLambda, type InitialValue, updateInitialValue } from "../reference/spo_schedule.ts";
import { BATCH_KINDS, SINGLE_KINDS, SUM_KINDS } from "../reference/pair_loss_cases.ts";
import { assertClose, checkOp } from "./check_op.ts";
import { pairLossOptions } from "./pair_loss_options.ts";
import { chosenTokens, randomPairs, runSteps, WHOLE } from "./pair_loss_steps.ts";

/** What a loss with its reference is for a call of the op. */
type Case = [PairLossOptions, PairLossKind];

const casesOf = (kinds: Record<string, PairLossKind>): Record<string, Case> =>
  Object.fromEntries(Object.entries(kinds).map(([name, kind]) => [name, [pairLossOptions(kind), kind]]));

const SINGLE = casesOf(SINGLE_KINDS);
const ALL = { ...SINGLE, ...casesOf(BATCH_KINDS), ...casesOf(SUM_KINDS) };
const [DPO, DPO_KIND] = SINGLE.dpo;
const DPO_METRICS = pairMetrics(DPO.terms);

/** Each penalty; the gap of the test's pairs is about 4, so that the hinge and the quadratic act. */
const PENALTIES: Record<string, SpoPenaltyOptions> = {
  "no penalty": NO_PENALTY,
  "rho alone": { ...NO_PENALTY, rho: 0.7, margin: 1.5 },
  "linear": { ...NO_PENALTY, penalty: "linear", lambda: 0.6, vStar: 2.5, rho: 0.3, margin: 2 },
  "hinge": { ...NO_PENALTY, penalty: "hinge", lambda: 0.6, epsilon: 0.5, vStar: 2.5 },
  "hinge inside the safe region": { ...NO_PENALTY, penalty: "hinge", lambda: 0.6, epsilon: 0.5, vStar: 100 },
  "quadratic": { ...NO_PENALTY, penalty: "quadratic", lambda: 0.6, epsilon: 0.5, vStar: 2.5, rho: 0.3 },
  "quadratic inside the safe region": {
    ...NO_PENALTY,
    penalty: "quadratic",
    lambda: 1,
    epsilon: 0.5,
    vStar: 100,
  },
};

for (const [name, [pairOptions, kind]] of Object.entries(ALL)) {
  gpuTest(`pair_loss ${name}`, async (gpu) => {
    // 65: more pairs than lanes.
    for (const P of [1, 17, 65]) await checkGradient(gpu, { P, pairOptions, kind, spo: NO_PENALTY });
  });

  gpuTest(`pair_loss ${name}: with each penalty, loss, gradient and every metric`, async (gpu) => {
    // Of the penalties each kernel is compiled; the others differ in numbers alone.
    const penalties = name === "dpo" ? Object.keys(PENALTIES) : ["rho alone", "linear", "hinge", "quadratic"];
    for (const penalty of penalties) {
      const inputs = randomPairs(65, 3, kind);
      const spo = PENALTIES[penalty];
      const { found: [found], metrics } = await runSteps(gpu, [inputs], { pairOptions, spo });
      const dims = spoDims(65, kind, spo);
      const expected = spoReference.forward(inputs, dims);
      const { dS } = spoReference.backward(inputs, dims, { dTotal: 1 });
      const what = (number: string) => `${penalty}: ${number}`;
      assertClose([found.loss], [expected.total], { what: what("loss"), ...LOOSE });
      assertClose(found.dLogps, dS, { what: what("d logps"), ...LOOSE });
      assertMetrics(metrics, pairOptions, {
        loss: expected.total,
        preference_loss: expected.loss,
        ...expected.metrics,
        ...reference.termMetrics(inputs, dims.pairLoss),
        "spo/lower_level": expected.lowerLevel,
        "spo/improvement": expected.improvement,
        "spo/gap": expected.gap,
        "spo/lambda": spo.lambda as number,
      });
    }
  });
}

/** IPO squares sums of magnitude 30 that are rounded to 2e-6 each. */
const LOOSE = { atol: 1e-5, rtol: 3e-5 };

function checkGradient(
  gpu: Gpu,
  { P, pairOptions, kind, spo }: {
    P: number;
    pairOptions: PairLossOptions;
    kind: PairLossKind;
    spo: SpoPenaltyOptions;
  },
): Promise<void> {
  const { s, ref, lengths } = randomPairs(P, P, kind);
  const dims = spoDims(P, kind, spo);
  return checkOp(gpu, {
    op: `pair_loss of ${P}`,
    inputs: { logps: { shape: [2 * P], values: s } },
    run: ({ logps }) =>
      pairLoss(logps, {
        reference: upload(gpu, Float32Array.from(ref)),
        lengths: upload(gpu, Float32Array.from(lengths)),
        metrics: empty(gpu, [METRICS_STRIDE]),
        metricsRow: 0,
        state: spoState(gpu, { lambda: 0 }),
        pairLoss: pairOptions,
        chosenTokens: chosenTokens(lengths),
        spo,
        microBatch: WHOLE(P),
      }),
    reference: ({ logps }) => {
      const inputs = { s: logps, ref, lengths };
      return {
        output: Float64Array.of(spoReference.forward(inputs, dims).total),
        backward: ([dTotal]) => ({ logps: spoReference.backward(inputs, dims, { dTotal }).dS }),
      };
    },
    ...LOOSE,
  });
}

gpuTest("pair_loss: micro-batches of a step add up to the whole batch", async (gpu) => {
  const [pairOptions, kind] = ALL.mpo;
  const spo = PENALTIES.linear;
  const whole = randomPairs(65, 5, kind);
  const parts = [take(whole, 0, 20), take(whole, 20, 21), take(whole, 21, 65)];
  const dims = spoDims(65, kind, spo);
  const { total, ...terms } = spoReference.forward(whole, dims);
  const { dS } = spoReference.backward(whole, dims, { dTotal: 1 });
  const { found, metrics } = await runSteps(gpu, parts, { pairOptions, spo, split: true });
  const loss = found.reduce((sum, part) => sum + part.loss, 0);
  assertClose([loss], [total], { what: "loss" });
  const chosen = found.flatMap(({ dLogps }) => [...dLogps.subarray(0, dLogps.length / 2)]);
  const rejected = found.flatMap(({ dLogps }) => [...dLogps.subarray(dLogps.length / 2)]);
  assertClose([...chosen, ...rejected], dS, { what: "d logps" });
  assertMetrics(metrics, pairOptions, {
    loss: total,
    preference_loss: terms.loss,
    ...terms.metrics,
    ...reference.termMetrics(whole, dims.pairLoss),
    "spo/lower_level": terms.lowerLevel,
    "spo/improvement": terms.improvement,
    "spo/gap": terms.gap,
    "spo/lambda": 0.6,
  });
});

gpuTest(
  "pair_loss: a dual lambda starts where the state says and follows the gap, not below 0",
  async (gpu) => {
    const [pairOptions, kind] = [DPO, DPO_KIND];
    const dual = { ...NO_PENALTY, penalty: "linear", lambda: "dual", dualRate: 0.5, epsilon: 0.25 } as const;
    let lambda = 0.1;
    const state = spoState(gpu, { lambda });
    // First far outside the safe region, then far inside.
    for (const vStar of [1, 1, 20]) {
      const inputs = randomPairs(9, vStar);
      const expected = spoReference.forward(inputs, spoDims(9, kind, { ...dual, lambda, vStar }));
      const { found, metrics } = await runSteps(gpu, [inputs], {
        pairOptions,
        spo: { ...dual, vStar },
        state,
      });
      assertClose([found[0].loss], [expected.total], { what: "loss" });
      assertClose([metrics[DPO_METRICS.indexOf("spo/lambda")]], [lambda], { what: "lambda" });
      lambda = dualLambda(lambda, { eta: 0.5, gap: expected.gap, epsilon: 0.25 });
    }
    assert.equal(lambda, 0, "the last step is inside");
    const [values] = await readAll(gpu, [state]);
    assert.equal(values[SPO_STATE.lambda], 0);
    release(state);
  },
);

gpuTest(
  "pair_loss: v* initial is the exponential mean of G over the first steps, then stays",
  async (gpu) => {
    const [pairOptions, kind] = [DPO, DPO_KIND];
    const window = 3;
    const spo = { ...NO_PENALTY, penalty: "linear", lambda: 0.5, vStar: { initialSteps: window } } as const;
    const state = spoState(gpu, { lambda: 0 });
    let initial: InitialValue | undefined;
    for (let step = 0; step < 5; step++) {
      const inputs = randomPairs(9, 100 + step);
      const { lowerLevel } = spoReference.forward(inputs, spoDims(9, kind, NO_PENALTY));
      initial = updateInitialValue(initial, { lowerLevel, window });
      const { metrics } = await runSteps(gpu, [inputs], { pairOptions, spo, state });
      const gap = metrics[DPO_METRICS.indexOf("spo/gap")];
      assertClose([gap], [lowerLevel - initial.value], { what: `gap ${step}` });
      const [values] = await readAll(gpu, [state]);
      assertClose(values.subarray(0, 4), [initial.value, step + 1, 0, lowerLevel], { what: `state ${step}` });
      if (step === 0) assert.equal(gap, 0);
    }
    release(state);
  },
);

gpuTest("pair_loss: where policy equals reference, dpo is log 2 and its rewards are 0", async (gpu) => {
  const { ref, lengths } = randomPairs(6, 2);
  const { found, metrics } = await runSteps(gpu, [{ s: ref, ref, lengths }], {
    pairOptions: DPO,
    spo: NO_PENALTY,
  });
  assertClose([found[0].loss], [Math.LN2], { what: "loss", atol: 1e-7 });
  for (const name of ["rewards/margins", "rewards/accuracies", "displacement/fraction"] as const) {
    assert.equal(metrics[DPO_METRICS.indexOf(name)], 0, name);
  }
});

gpuTest("pair_loss writes its row of the metrics and no other", async (gpu) => {
  const metrics = fromHost(gpu, new Float32Array(3 * METRICS_STRIDE).fill(7), { shape: [3, METRICS_STRIDE] });
  await runSteps(gpu, [randomPairs(4, 1)], {
    pairOptions: DPO,
    spo: NO_PENALTY,
    metrics,
    metricsRow: 1,
  });
  const [values] = await readAll(gpu, [metrics]);
  const last = METRICS_STRIDE + DPO_METRICS.length;
  values.forEach((value, i) =>
    assert.equal(value !== 7, i >= METRICS_STRIDE && i < last, `element ${i} is ${value}`)
  );
  release(metrics);
});

gpuTest("pair_loss refuses odd inputs, and a curved penalty over several micro-batches", (gpu) => {
  const tensor = (length: number) => upload(gpu, new Float32Array(length));
  const inputs = {
    reference: tensor(4),
    lengths: tensor(4),
    metrics: tensor(METRICS_STRIDE),
    metricsRow: 0,
    state: tensor(SPO_STATE.size),
    pairLoss: DPO,
    spo: NO_PENALTY,
    microBatch: WHOLE(2),
  };
  assert.throws(
    () => pairLoss(tensor(3), inputs),
    new ShapeError("Cannot run pair_loss: expected logps of shape [2P], found [3]"),
  );
  assert.throws(() => pairLoss(tensor(6), inputs), ShapeError);
  assert.throws(() => pairLoss(tensor(4), { ...inputs, lengths: tensor(2) }), ShapeError);
  const microBatch = { pairsInBatch: 4, isFirst: true, isLast: false };
  for (const name of ["hinge", "quadratic"]) {
    assert.throws(() => pairLoss(tensor(4), { ...inputs, spo: PENALTIES[name], microBatch }), RangeError);
  }
});

function assertMetrics(
  found: Float32Array,
  { terms }: PairLossOptions,
  expected: Record<string, number>,
): void {
  const names = pairMetrics(terms);
  assert.deepEqual(Object.keys(expected).sort(), [...names].sort());
  names.forEach((name, index) => assertClose([found[index]], [expected[name]], { what: name, ...LOOSE }));
}

function spoDims(
  P: number,
  kind: PairLossKind,
  spo: SpoPenaltyOptions & { lambda: number | "dual" },
): spoReference.SpoDims {
  return {
    pairLoss: { ...kind, P, normalizer: P },
    // The reference has no "none": lambda 0 of another shape.
    penalty: spo.penalty === "none" ? "linear" : spo.penalty,
    lambda: spo.lambda as number,
    epsilon: spo.epsilon,
    vStar: spo.vStar as number,
    rho: spo.rho,
    margin: spo.margin,
  };
}

/** Pairs first to last of a batch. */
function take({ s, ref, lengths }: PairLossInputs, first: number, last: number): PairLossInputs {
  const P = s.length / 2;
  const pick = (values: ArrayLike<number>) =>
    Float64Array.from(
      { length: 2 * (last - first) },
      (_, i) => values[i < last - first ? first + i : P + first + i - (last - first)],
    );
  return { s: pick(s), ref: pick(ref), lengths: pick(lengths) };
}
