import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY, type SpoPenaltyOptions } from "../../engine/ops/pair_loss.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release } from "../../engine/tensor.ts";
import { packSequences } from "../../train/data/batch.ts";
import { PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { type SpoOptions, spoPenaltyAt, spoSchema } from "../../train/losses/spo.ts";
import { createMetricsRing, type MetricsRecord } from "../../train/metrics.ts";
import { uploadBatch } from "../../train/models/batch_tensors.ts";
import { batchTokenLogps, type Model } from "../../train/models/model.ts";
import { type Objective, preferenceObjective } from "../../train/objective.ts";
import { type ReferenceLogps, referenceLogps } from "../../train/reference.ts";
import { lambdaAt } from "../../train/schedule.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { lossOf, randomPairs, readGradients, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(6, 11);
const LOSSES = Object.keys(PAIR_LOSSES) as PairLossKey[];

type Numbers = Record<string, number>;

/** One forward and backward of the whole data set. */
interface Pass {
  metrics: Numbers;
  gradients: Float32Array;
}

function objectiveOf(
  model: Model,
  options: { loss: PairLossKey; reference: ReferenceLogps; spo: SpoPenaltyOptions },
): Objective {
  return preferenceObjective(model, {
    ...{ pairs: PAIRS, reference: options.reference, lambda: 0 },
    loss: PAIR_LOSSES[options.loss].resolve({}),
    spoAt: () => options.spo,
  });
}

async function passOf(
  model: Model,
  options: { loss: PairLossKey; reference: ReferenceLogps; spo: SpoPenaltyOptions },
): Promise<Pass> {
  const { gpu } = model;
  using objective = objectiveOf(model, options);
  using ring = createMetricsRing(gpu, 1);
  const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
  const items = Uint32Array.from(PAIRS.keys());
  model.parameters.zeroGradients();
  const tape = new Tape(gpu);
  const loss = lossOf(objective, { items, step: 1, metrics: ring.tensor });
  tape.backward([{ tensor: loss, gradient: one }]);
  const [{ grad_norm: _, ...metrics }] = await ring.read(1, objective.metricNames);
  release(one);
  return { metrics, gradients: await readGradients(model) };
}

/** The gradient of G, by a pass of its own over the chosen answers alone: no pair loss takes part. */
async function lowerLevelGradients(model: Model): Promise<Float32Array> {
  const { gpu } = model;
  const chosen = PAIRS.map((pair) => pair.chosen);
  const weights = chosen.flatMap(({ completionIds }) =>
    completionIds.map(() => -1 / (completionIds.length * PAIRS.length))
  );
  const gradient = fromHost(gpu, Float32Array.from(weights), { shape: [weights.length] });
  model.parameters.zeroGradients();
  const tape = new Tape(gpu);
  tape.backward([{ tensor: batchTokenLogps(model, uploadBatch(model, packSequences(chosen))), gradient }]);
  release(gradient);
  return await readGradients(model);
}

/** a + factor b. */
const plus = (a: Float32Array, factor: number, b: Float32Array) => a.map((value, i) => value + factor * b[i]);

function assertGradients(found: Float32Array, expected: Float32Array, what: string): void {
  const largest = expected.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  assert.ok(largest > 1e-3, `${what}: there is a gradient`);
  assertClose(found, expected, { what, rtol: 1e-4, atol: 2e-6 * largest });
}

/** Runs a test for each loss with a policy that is not the reference. */
function eachLoss(
  name: string,
  body: (model: Model, pass: (spo: SpoPenaltyOptions) => Promise<Pass>) => Promise<void>,
): void {
  for (const loss of LOSSES) {
    gpuTest(`${loss}: ${name}`, async (gpu: Gpu) => {
      using model = tinyModel(gpu);
      using other = tinyModel(gpu, { seed: 2, trainable: false });
      const reference = await referenceLogps(other, PAIRS);
      await body(model, (spo) => passOf(model, { loss, reference, spo }));
    });
  }
}

const LINEAR: SpoPenaltyOptions = { ...NO_PENALTY, penalty: "linear", lambda: 0.7, vStar: 0.5 };

eachLoss(
  "the linear penalty's gradient is the loss's plus lambda times that of NLL(chosen)",
  async (model, pass) => {
    const plain = await pass(NO_PENALTY);
    const lower = await lowerLevelGradients(model);
    const spo = await pass(LINEAR);
    assertGradients(spo.gradients, plus(plain.gradients, 0.7, lower), "gradient");
    const G = plain.metrics["spo/lower_level"];
    assertClose([spo.metrics["spo/gap"]], [G - 0.5], { what: "gap" });
    assertClose([spo.metrics.loss], [plain.metrics.loss + 0.7 * (G - 0.5)], { what: "loss" });
    assert.equal(spo.metrics.preference_loss, plain.metrics.loss);
  },
);

eachLoss("lambda 0 and rho 0 is exactly the pairwise loss, whatever the penalty", async (_, pass) => {
  const plain = await pass(NO_PENALTY);
  for (const penalty of ["linear", "hinge", "quadratic"] as const) {
    const spo = await pass({ ...LINEAR, penalty, lambda: 0, vStar: 0, epsilon: 0.1 });
    assert.ok(spo.metrics["spo/gap"] > 0.1, "outside the region, where a penalty would act");
    assert.deepEqual(spo.gradients, plain.gradients, penalty);
    assert.equal(spo.metrics.loss, plain.metrics.loss);
  }
});

eachLoss("the hinge acts outside the safe region alone, the quadratic by the excess", async (model, pass) => {
  const plain = await pass(NO_PENALTY);
  const lower = await lowerLevelGradients(model);
  const vStar = plain.metrics["spo/lower_level"] - 0.5;
  for (const penalty of ["hinge", "quadratic"] as const) {
    const inside = await pass({ ...LINEAR, penalty, vStar, epsilon: 0.6 });
    assert.deepEqual(inside.gradients, plain.gradients, `${penalty} inside`);
    assert.equal(inside.metrics.loss, plain.metrics.loss);
    const outside = await pass({ ...LINEAR, penalty, vStar, epsilon: 0.2 });
    const slope = penalty === "hinge" ? 1 : 0.3;
    assertGradients(outside.gradients, plus(plain.gradients, 0.7 * slope, lower), `${penalty} outside`);
    const phi = penalty === "hinge" ? 0.3 : 0.3 ** 2 / 2;
    // As a sum: SPPO's own loss is half a million, of which an f32 difference has no digit left.
    assertClose([outside.metrics.loss], [plain.metrics.loss + 0.7 * phi], { what: penalty });
  }
});

eachLoss(
  "rho with every chosen answer short of its margin adds rho times the gradient of NLL(chosen)",
  async (model, pass) => {
    const plain = await pass(NO_PENALTY);
    const lower = await lowerLevelGradients(model);
    const spo = await pass({ ...NO_PENALTY, rho: 0.4, margin: 1000 });
    assertGradients(spo.gradients, plus(plain.gradients, 0.4, lower), "gradient");
    const reached = await pass({ ...NO_PENALTY, rho: 0.4, margin: -1000 });
    assert.deepEqual(reached.gradients, plain.gradients);
    assertClose([spo.metrics.loss], [plain.metrics.loss + 0.4 * spo.metrics["spo/improvement"]], {
      what: "loss",
    });
  },
);

/** Trains DPO inside SPO from the reference itself. */
async function runSpo(gpu: Gpu, given: Partial<SpoOptions>, maxSteps = 6): Promise<MetricsRecord[]> {
  using model = tinyModel(gpu);
  const spo = spoSchema.parse({ solver: "penalty", ...given });
  using objective = preferenceObjective(model, {
    ...{ pairs: PAIRS, reference: await referenceLogps(model, PAIRS), lambda: spo.lambda },
    loss: PAIR_LOSSES.dpo.resolve({}),
    spoAt: (step) => spoPenaltyAt(spo, step, maxSteps),
  });
  const records: MetricsRecord[] = [];
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps },
    ...{ batchSize: PAIRS.length, seed: 1, logEvery: 1 },
    onLog: (record) => void records.push(record),
  });
  return records;
}

const column = (records: readonly MetricsRecord[], name: string) =>
  records.map((record) => record[name] as number);

gpuTest("from the reference, SPO's first loss is log 2 and its gap 0 with v* initial", async (gpu) => {
  const [first] = await runSpo(gpu, { lambda: 3 }, 1);
  assertClose([first.loss as number], [Math.LN2], { what: "loss", rtol: 1e-6, atol: 0 });
  assert.equal(first["spo/gap"], 0);
  assert.equal(first["spo/lambda"], 3);
});

gpuTest("v* initial follows the exponential mean of G over the first steps, then stays", async (gpu) => {
  const records = await runSpo(gpu, { vStarSteps: 3 });
  const G = column(records, "spo/lower_level");
  let vStar = G[0];
  const gaps = G.map((value, index) => {
    if (index > 0 && index < 3) vStar = 0.9 * vStar + 0.1 * value;
    return value - vStar;
  });
  assertClose(column(records, "spo/gap"), gaps, { what: "gap", atol: 2e-6, rtol: 1e-6 });
  assert.ok(Math.abs(gaps[5]) > 1e-3, "G moved");
});

gpuTest("lambda grows as its schedule says, and the dual one by the gap", async (gpu) => {
  for (const lambdaSchedule of ["linear", "geometric"] as const) {
    const records = await runSpo(gpu, { lambdaSchedule, lambda: 0.5, lambdaEnd: 2, lambdaSteps: 4 });
    const expected = records.map((_, index) =>
      lambdaAt({ kind: lambdaSchedule, lambda: 0.5, lambdaEnd: 2, lambdaSteps: 4 }, index + 1) as number
    );
    assertClose(column(records, "spo/lambda"), expected, { what: lambdaSchedule, rtol: 1e-6, atol: 0 });
  }
  const dual = await runSpo(gpu, {
    lambdaSchedule: "dual",
    lambda: 0.2,
    dualRate: 2,
    epsilon: 0.01,
    vStar: 0,
  });
  const gaps = column(dual, "spo/gap");
  const lambdas = [Math.fround(0.2)];
  for (const gap of gaps) lambdas.push(Math.max(0, lambdas.at(-1)! + 2 * (gap - 0.01)));
  assertClose(column(dual, "spo/lambda"), lambdas.slice(0, 6), { what: "dual", rtol: 1e-5 });
  assert.ok(lambdas[5] > 1, "the gap was open");
});

gpuTest("a strong penalty keeps the chosen answers where plain DPO lets them go", async (gpu) => {
  const plain = await runSpo(gpu, { lambda: 0 }, 20);
  const spo = await runSpo(gpu, { lambda: 10 }, 20);
  const last = (records: MetricsRecord[]) => records.at(-1)!["spo/lower_level"] as number;
  assert.ok(last(spo) < last(plain), `${last(spo)} < ${last(plain)}`);
  assert.ok(column(spo, "spo/gap").at(-1)! < 0);
});
