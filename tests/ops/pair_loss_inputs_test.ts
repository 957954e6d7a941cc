import assert from "node:assert/strict";
import { NO_PENALTY, pairLoss, spoState } from "../../engine/ops/pair_loss.ts";
import { fromHost, release, upload } from "../../engine/tensor.ts";
import { METRICS_STRIDE, pairMetrics, SPO_STATE } from "../../shaders/pair_loss.ts";
import { gpuTest, readAll } from "../gpu.ts";
import { batchBeta, marginMoments, marginShifts, meanMargin, moving } from "../reference/pair_batch.ts";
import * as reference from "../reference/pair_loss.ts";
import { BATCH_KINDS, SINGLE_KINDS, SUM_KINDS } from "../reference/pair_loss_cases.ts";
import { normals, seededRandom } from "../reference/random.ts";
import * as spoReference from "../reference/spo.ts";
import { assertClose } from "./check_op.ts";
import { pairLossOptions } from "./pair_loss_options.ts";
import { randomPairs, runSteps, WHOLE } from "./pair_loss_steps.ts";

const P = 17;
const LOOSE = { atol: 1e-5, rtol: 3e-5 };

/** Losses that subtract a pair's margin. */
const WITH_MARGIN: Record<string, reference.PairLossKind> = Object.fromEntries(
  Object.entries({ ...SINGLE_KINDS, ...BATCH_KINDS }).filter(([, { loss }]) =>
    [
      "dpo",
      "robust",
      "hinge",
      "sigmoid_norm",
      "cpo",
      "simpo",
      "alphapo",
      "dpop",
      "rdpo",
      "alphadpo",
      "beta_dpo",
    ]
      .includes(loss)
  ),
);

function drawn(length: number, seed: number): Float64Array {
  return normals(seededRandom(seed), { length, scale: 1 }).map(Math.fround);
}

/** Loss and gradients of one batch against the reference. */
async function check(
  gpu: Parameters<Parameters<typeof gpuTest>[1]>[0],
  kind: reference.PairLossKind,
  extra: Partial<reference.PairLossInputs>,
): Promise<void> {
  const inputs = { ...randomPairs(P, 8, kind), ...extra };
  const promptTokens = inputs.promptLogps ? 91 : undefined;
  const { found: [found], metrics } = await runSteps(gpu, [inputs], {
    ...{ pairOptions: pairLossOptions(kind), spo: NO_PENALTY, promptTokens },
  });
  const dims = { ...kind, P, normalizer: P, promptTokens };
  const { dS, dPromptLogps, dPlain } = reference.backward(inputs, dims, { dLoss: 1 });
  assertClose([found.loss], [reference.forward(inputs, dims).loss], { what: "loss", ...LOOSE });
  assertClose(found.dLogps, dS, { what: "d logps", ...LOOSE });
  if (dPromptLogps) assertClose(found.dPrompt!, dPromptLogps, { what: "d prompt logps", ...LOOSE });
  if (dPlain) assertClose(found.dPlain!, dPlain, { what: "d plain logps", ...LOOSE });
  const names = pairMetrics(pairLossOptions(kind).terms);
  for (const [name, value] of Object.entries(reference.termMetrics(inputs, dims))) {
    assertClose([metrics[names.indexOf(name)]], [value], { what: name, ...LOOSE });
  }
}

for (const [name, kind] of Object.entries(WITH_MARGIN)) {
  gpuTest(
    `pair_loss ${name}: a pair's margin is subtracted from its reward margin`,
    (gpu) => check(gpu, kind, { margins: drawn(P, 1) }),
  );
}

for (const name of Object.keys(SINGLE_KINDS)) {
  gpuTest(
    `pair_loss ${name}: a pair's weight scales its preference, not its likelihood`,
    (gpu) => check(gpu, SINGLE_KINDS[name], { weights: drawn(P, 2).map(Math.abs) }),
  );
}

gpuTest(
  "pair_loss mpo: weights scale the preference terms alone",
  (gpu) => check(gpu, SUM_KINDS.mpo, { weights: drawn(P, 2).map(Math.abs) }),
);

gpuTest(
  "pair_loss orpo: the likelihood is of prompt and chosen answer where prompts are given",
  async (gpu) => {
    const promptLogps = drawn(P, 3).map((value) => value - 20);
    await check(gpu, SINGLE_KINDS.orpo, { promptLogps });
    await check(gpu, SUM_KINDS["sft first, then odds and sorts"], { promptLogps });
  },
);

for (const [name, kind] of Object.entries({ ...SINGLE_KINDS, ...SUM_KINDS, aot: BATCH_KINDS.aot })) {
  gpuTest(
    `pair_loss ${name}: beside plain sums likelihoods are of those, preferences are not`,
    async (gpu) => {
      const prompts = "terms" in kind && name !== "mpo" || name === "orpo"
        ? { promptLogps: drawn(P, 3).map((value) => value - 20) }
        : {};
      await check(gpu, kind, { ...prompts, ...plainSums(randomPairs(P, 8, kind)) });
    },
  );
}

/** Sums over whole completions, whose tails the sums of `inputs` lack. */
function plainSums({ s, ref }: reference.PairLossInputs): { plain: Float64Array; plainRef: Float64Array } {
  const longer = (values: Float64Array, seed: number) => {
    const tail = drawn(values.length, seed);
    return values.map((value, i) => Math.fround(value - 4 * Math.abs(tail[i])));
  };
  return { plain: longer(s, 5), plainRef: longer(ref, 6) };
}

gpuTest("pair_loss: SPO's terms and the displacement metrics are of the plain sums", async (gpu) => {
  for (const kind of [SINGLE_KINDS.dpo, SUM_KINDS.mpo]) {
    for (const penalty of ["linear", "quadratic"] as const) {
      const pairs = randomPairs(P, 8, kind);
      const inputs = { ...pairs, ...plainSums(pairs) };
      const spo = { ...NO_PENALTY, penalty, lambda: 0.6, epsilon: 0.5, vStar: 2.5, rho: 0.3, margin: 2 };
      const pairOptions = pairLossOptions(kind);
      const { found: [found], metrics } = await runSteps(gpu, [inputs], { pairOptions, spo });
      const dims = { pairLoss: { ...kind, P, normalizer: P }, ...spo };
      const expected = spoReference.forward(inputs, dims);
      const { dS, dPlain } = spoReference.backward(inputs, dims, { dTotal: 1 });
      assertClose([found.loss], [expected.total], { what: "loss", ...LOOSE });
      assertClose(found.dLogps, dS, { what: "d logps", ...LOOSE });
      assertClose(found.dPlain!, dPlain!, { what: "d plain logps", ...LOOSE });
      const names = pairMetrics(pairOptions.terms);
      const numbers = {
        ...expected.metrics,
        "spo/lower_level": expected.lowerLevel,
        "spo/improvement": expected.improvement,
      };
      for (const [name, value] of Object.entries(numbers)) {
        assertClose([metrics[names.indexOf(name)]], [value], { what: name, ...LOOSE });
      }
    }
  }
});

gpuTest(
  "pair_loss alphadpo: margins are normalised by moving moments that start with the first batch",
  async (gpu) => {
    const kind = BATCH_KINDS.alphadpo as Extract<reference.TermKind, { loss: "alphadpo" }>;
    const state = spoState(gpu, { lambda: 0 });
    let [mean, deviation]: (number | undefined)[] = [];
    for (let step = 0; step < 4; step++) {
      const inputs = randomPairs(P, 50 + step);
      const pairs = reference.pairsOf(inputs, { P }).map((pair) => ({ ...pair, offset: 0 }));
      const moments = marginMoments(pairs);
      [mean, deviation] = [moving(mean, moments.mean), moving(deviation, moments.deviation)];
      const detached = { shifts: marginShifts(pairs, { mean, deviation }) };
      const dims = { ...kind, detached, P, normalizer: P };
      const { found: [found] } = await runSteps(gpu, [inputs], {
        ...{ pairOptions: pairLossOptions(kind), spo: NO_PENALTY, state },
      });
      assertClose([found.loss], [reference.forward(inputs, dims).loss], { what: `loss ${step}`, ...LOOSE });
      assertClose(found.dLogps, reference.backward(inputs, dims, { dLoss: 1 }).dS, {
        ...{ what: `d logps ${step}`, ...LOOSE },
      });
      const [values] = await readAll(gpu, [state]);
      assertClose(values.subarray(SPO_STATE.memory, SPO_STATE.memory + 3), [step + 1, mean, deviation], {
        what: `memory ${step}`,
      });
    }
    release(state);
  },
);

gpuTest(
  "pair_loss beta_dpo: beta follows the batch's margin over its moving mean, at least 0.001",
  async (gpu) => {
    const kind = { loss: "beta_dpo", beta: 0.2, alpha: 2 } as const;
    const state = spoState(gpu, { lambda: 0 });
    let above: number | undefined;
    const betas: number[] = [];
    for (let step = 0; step < 4; step++) {
      const inputs = randomPairs(P, 70 + step);
      // The last batch is far below the mean.
      if (step === 3) inputs.s.subarray(0, P).forEach((value, p) => inputs.s[p] = Math.fround(value - 9));
      const margin = meanMargin(reference.pairsOf(inputs, { P }).map((pair) => ({ ...pair, offset: 0 })));
      const beta = batchBeta(kind, margin - (above ?? margin));
      above = moving(above, margin);
      betas.push(beta);
      const dims = { ...kind, detached: { beta }, P, normalizer: P };
      const { found: [found] } = await runSteps(gpu, [inputs], {
        ...{ pairOptions: pairLossOptions(kind), spo: NO_PENALTY, state },
      });
      assertClose([found.loss], [reference.forward(inputs, dims).loss], { what: `loss ${step}`, ...LOOSE });
      assertClose(found.dLogps, reference.backward(inputs, dims, { dLoss: 1 }).dS, {
        ...{ what: `d logps ${step}`, ...LOOSE },
      });
    }
    assert.deepEqual([betas[0], betas[3]], [0.2, 1e-3]);
    assert.ok(new Set(betas).size === 4, "it moves");
    release(state);
  },
);

gpuTest("pair_loss aot: equal numbers keep their order, bit for bit the same when run again", async (gpu) => {
  for (const name of ["aot", "aot_unpaired"]) {
    const inputs = randomPairs(65, 4);
    // Many ties on both sides.
    for (const values of [inputs.s, inputs.ref]) {
      values.forEach((value, i) => values[i] = Math.round(value / 8));
    }
    const kind = BATCH_KINDS[name];
    const run = () => runSteps(gpu, [inputs], { pairOptions: pairLossOptions(kind), spo: NO_PENALTY });
    const [{ found: [first] }, { found: [second] }] = [await run(), await run()];
    assert.deepEqual(first, second);
    const { dS } = reference.backward(inputs, { ...kind, P: 65, normalizer: 65 }, { dLoss: 1 });
    assertClose(first.dLogps, dS, { what: name, ...LOOSE });
  }
});

gpuTest(
  "pair_loss refuses inputs that no term reads, or that one lacks, and split batches by name",
  (gpu) => {
    const tensor = (length: number) => upload(gpu, new Float32Array(length));
    const prompts = { promptLogps: tensor(2), promptTokens: 5 };
    const refused: [reference.PairLossKind, object, RegExp][] = [
      [SINGLE_KINDS.ipo, { margins: tensor(2) }, /losses that read margins, found terms ipo/],
      [SUM_KINDS.mpo, { margins: tensor(2) }, /losses that read margins/],
      [BATCH_KINDS.aot, { weights: tensor(2) }, /losses that read weights/],
      [SINGLE_KINDS.dpo, prompts, /losses that read promptLogps/],
      [SINGLE_KINDS.orpo, { promptLogps: tensor(2) }, /promptLogps and promptTokens together/],
      [SINGLE_KINDS.cpo, { chosenTokens: undefined }, /chosenTokens with a negative log-likelihood/],
      [
        { terms: [{ weight: 1, ...SINGLE_KINDS.dpo }, { weight: 1, ...SINGLE_KINDS.dpo }] },
        {},
        /none of them twice/,
      ],
      [{ terms: [] }, {}, /1 to 8 terms/],
      [{ loss: "dpop", beta: 1, lambda: 1, divergence: "js_divergence" }, {}, /log-ratios alone/],
      [{ loss: "simpo", beta: 1, gammaBetaRatio: 1, referenceFree: true }, {}, /log-ratios alone/],
      [{ loss: "robust", beta: 1 } as reference.TermKind, {}, /options beta, label_smoothing of robust/],
      [
        { loss: "hinge", beta: 1, lambda: 1 } as reference.TermKind,
        {},
        /options beta of hinge \(beta, lambda given\)/,
      ],
      ...Object.keys(BATCH_KINDS).map((name): [reference.PairLossKind, object, RegExp] => [
        BATCH_KINDS[name],
        { microBatch: { pairsInBatch: 4, isFirst: true, isLast: false } },
        new RegExp(`one micro-batch a step with ${name}, whose slope depends on the whole batch`),
      ]),
    ];
    for (const [kind, extra, message] of refused) {
      const inputs = {
        ...{ reference: tensor(4), lengths: tensor(4), metrics: tensor(METRICS_STRIDE), metricsRow: 0 },
        ...{ state: tensor(SPO_STATE.size), pairLoss: pairLossOptions(kind), spo: NO_PENALTY },
        ...{ microBatch: WHOLE(2), chosenTokens: 6, ...extra },
      };
      assert.throws(() => pairLoss(tensor(4), inputs), (error: Error) => {
        assert.ok(error instanceof RangeError, `${error}`);
        assert.match(error.message, message);
        return true;
      });
    }
    const short = { ...{ margins: fromHost(gpu, new Float32Array(3), { shape: [3] }) } };
    assert.throws(() =>
      pairLoss(tensor(4), {
        ...{ reference: tensor(4), lengths: tensor(4), metrics: tensor(METRICS_STRIDE), metricsRow: 0 },
        ...{ state: tensor(SPO_STATE.size), pairLoss: pairLossOptions(SINGLE_KINDS.dpo), spo: NO_PENALTY },
        ...{ microBatch: WHOLE(2), ...short },
      }), /margins/);
    release(short.margins);
    assert.throws(() =>
      pairLoss(tensor(4), {
        ...{ reference: tensor(4), lengths: tensor(4), metrics: tensor(METRICS_STRIDE), metricsRow: 0 },
        ...{ state: tensor(SPO_STATE.size), pairLoss: pairLossOptions(SINGLE_KINDS.dpo), spo: NO_PENALTY },
        ...{ microBatch: WHOLE(2), plain: { logps: tensor(4), reference: tensor(2) } },
      }), /plain.reference of shape \[4\], found \[2\]/);
  },
);
