import assert from "node:assert/strict";
import { NO_PENALTY, pairLoss, spoState } from "../../engine/ops/pair_loss.ts";
import { fromHost, release, scope, toHost } from "../../engine/tensor.ts";
import { HEADS } from "../../shaders/pair_heads.ts";
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import { LOSS_OPTIONS } from "../../train/config.ts";
import { PAIR_LOSSES, PAIR_TERMS, type PairLossKey } from "../../train/losses/registry.ts";
import { UNPAIRED_OPTIONS } from "../../train/losses/unpaired.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import * as reference from "../reference/pair_loss.ts";
import { normals, seededRandom } from "../reference/random.ts";

/** Options as a user gives them, and the same loss in f64 with defaults written out. */
const CASES: [PairLossKey, Record<string, unknown>, reference.TermKind][] = [
  ["dpo", {}, { loss: "dpo", beta: 0.1, labelSmoothing: 0 }],
  ["dpo", { beta: 0.7, labelSmoothing: 0.2 }, { loss: "dpo", beta: 0.7, labelSmoothing: 0.2 }],
  ["dpo", { fDivergenceType: "forward_kl" }, { loss: "dpo", beta: 0.1, divergence: "forward_kl" }],
  ["dpo", { fDivergenceType: "js_divergence" }, { loss: "dpo", beta: 0.1, divergence: "js_divergence" }],
  ["dpo", { fDivergenceType: "alpha_divergence" }, {
    ...{ loss: "dpo", beta: 0.1, divergence: "alpha_divergence", divergenceAlpha: 0.5 },
  }],
  ["dpo", { fDivergenceType: "alpha_divergence", fAlphaDivergenceCoef: 0.2 }, {
    ...{ loss: "dpo", beta: 0.1, divergence: "alpha_divergence", divergenceAlpha: 0.2 },
  }],
  ["dpo", { referenceFree: true }, { loss: "dpo", beta: 0.1, referenceFree: true }],
  ["robust", {}, { loss: "robust", beta: 0.1, labelSmoothing: 0.1 }],
  ["robust", { beta: 0.7, labelSmoothing: 0.3 }, { loss: "robust", beta: 0.7, labelSmoothing: 0.3 }],
  ["hinge", {}, { loss: "hinge", beta: 0.1 }],
  ["hinge", { beta: 0.7 }, { loss: "hinge", beta: 0.7 }],
  ["ipo", {}, { loss: "ipo", beta: 0.1, lengthNormalize: true }],
  ["ipo", { beta: 0.7, lengthNormalize: false }, { loss: "ipo", beta: 0.7, lengthNormalize: false }],
  ["exo_pair", {}, { loss: "exo_pair", beta: 0.1, labelSmoothing: 1e-3 }],
  ["exo_pair", { beta: 0.7, labelSmoothing: 0.2 }, { loss: "exo_pair", beta: 0.7, labelSmoothing: 0.2 }],
  ["nca_pair", {}, { loss: "nca_pair", beta: 0.01 }],
  ["nca_pair", { beta: 0.7 }, { loss: "nca_pair", beta: 0.7 }],
  ["bco_pair", {}, { loss: "bco_pair", beta: 0.1 }],
  ["bco_pair", { beta: 0.7 }, { loss: "bco_pair", beta: 0.7 }],
  ["sppo_hard", {}, { loss: "sppo_hard", beta: 0.001 }],
  ["sppo_hard", { beta: 0.7 }, { loss: "sppo_hard", beta: 0.7 }],
  ["ipo", { fDivergenceType: "forward_kl" }, { loss: "ipo", beta: 0.1, divergence: "forward_kl" }],
  ["sigmoid_norm", { fDivergenceType: "alpha_divergence" }, {
    ...{ loss: "sigmoid_norm", beta: 0.1, divergence: "alpha_divergence", divergenceAlpha: 0.5 },
  }],
  ["robust", { fDivergenceType: "js_divergence" }, {
    ...{ loss: "robust", beta: 0.1, labelSmoothing: 0.1, divergence: "js_divergence" },
  }],
  ["apo_zero", {}, { loss: "apo_zero", beta: 0.1 }],
  ["apo_zero", { beta: 0.7 }, { loss: "apo_zero", beta: 0.7 }],
  ["apo_down", {}, { loss: "apo_down", beta: 0.1 }],
  ["apo_down", { beta: 0.7 }, { loss: "apo_down", beta: 0.7 }],
  ["discopop", {}, { loss: "discopop", beta: 0.1, tau: 0.05 }],
  ["discopop", { beta: 0.7, discopopTau: 0.3 }, { loss: "discopop", beta: 0.7, tau: 0.3 }],
  ["sigmoid_norm", {}, { loss: "sigmoid_norm", beta: 0.1 }],
  ["sigmoid_norm", { beta: 0.7 }, { loss: "sigmoid_norm", beta: 0.7 }],
  ["aot", {}, { loss: "aot", beta: 0.1 }],
  ["aot", { beta: 0.7, labelSmoothing: 0.2 }, { loss: "aot", beta: 0.7, labelSmoothing: 0.2 }],
  ["aot_unpaired", {}, { loss: "aot_unpaired", beta: 0.1 }],
  ["aot_unpaired", { beta: 0.7, labelSmoothing: 0.2 }, {
    ...{ loss: "aot_unpaired", beta: 0.7, labelSmoothing: 0.2 },
  }],
  ["cpo", {}, { loss: "cpo", beta: 0.1, labelSmoothing: 0, cpoAlpha: 1 }],
  ["cpo", { beta: 0.7, labelSmoothing: 0.2, cpoAlpha: 0.5 }, {
    ...{ loss: "cpo", beta: 0.7, labelSmoothing: 0.2, cpoAlpha: 0.5 },
  }],
  ["simpo", {}, { loss: "simpo", beta: 2, gammaBetaRatio: 0.5 }],
  ["simpo", { beta: 5, gammaBetaRatio: 0.3 }, { loss: "simpo", beta: 5, gammaBetaRatio: 0.3 }],
  ["alphapo", {}, { loss: "alphapo", beta: 2, gammaBetaRatio: 0.5, alpha: 0.25 }],
  ["alphapo", { beta: 3, gammaBetaRatio: 0.3, alpha: -0.1 }, {
    ...{ loss: "alphapo", beta: 3, gammaBetaRatio: 0.3, alpha: -0.1 },
  }],
  ["alphadpo", {}, { loss: "alphadpo", beta: 2.5, gammaBetaRatio: 0.6, alpha: 0.2 }],
  ["alphadpo", { beta: 3, gammaBetaRatio: 0.3, alpha: 0.1 }, {
    ...{ loss: "alphadpo", beta: 3, gammaBetaRatio: 0.3, alpha: 0.1 },
  }],
  ["dpop", {}, { loss: "dpop", beta: 0.1, lambda: 50 }],
  ["dpop", { beta: 0.7, dpopLambda: 5 }, { loss: "dpop", beta: 0.7, lambda: 5 }],
  ["rdpo", {}, { loss: "rdpo", beta: 0.1, alpha: 0.1 }],
  ["rdpo", { beta: 0.7, alpha: 0.02 }, { loss: "rdpo", beta: 0.7, alpha: 0.02 }],
  ["beta_dpo", {}, { loss: "beta_dpo", beta: 0.1, alpha: 0.6 }],
  ["beta_dpo", { beta: 0.7, alpha: 0.2 }, { loss: "beta_dpo", beta: 0.7, alpha: 0.2 }],
  ["cal_dpo", {}, { loss: "cal_dpo", beta: 0.1 }],
  ["cal_dpo", { beta: 0.7 }, { loss: "cal_dpo", beta: 0.7 }],
  ["orpo", {}, { loss: "orpo", beta: 0.1 }],
  ["orpo", { beta: 0.7 }, { loss: "orpo", beta: 0.7 }],
];

/** Losses whose value where policy and reference are equal depends on the data. */
const UNKNOWN = ["cpo", "simpo", "alphapo", "alphadpo", "rdpo", "orpo"];

/** Losses that do not read the reference. */
const REFERENCE_FREE = ["cpo", "simpo", "alphapo", "orpo"];

const P = 5;
const CHOSEN_TOKENS = 2 + 3 + 4 + 5 + 6;

gpuTest(
  "every loss, with its defaults and with other options, is the f64 loss of those options",
  async (gpu) => {
    const random = seededRandom(6);
    const draw = () => Float32Array.from(normals(random, { length: 2 * P, scale: 3 }), (value) => value - 12);
    const [s, ref] = [draw(), draw()];
    const lengths = Float32Array.from({ length: 2 * P }, (_, i) => 2 + i);
    const inputs = { s: Float64Array.from(s), ref: Float64Array.from(ref), lengths };
    const tensor = (values: Float32Array<ArrayBuffer>) => fromHost(gpu, values, { shape: [values.length] });
    const shared = {
      ...{
        reference: tensor(ref),
        lengths: tensor(lengths),
        metrics: tensor(new Float32Array(METRICS_STRIDE)),
      },
    };
    const logps = tensor(s);
    for (const [name, given, kind] of CASES) {
      // What losses carry from step to step starts anew.
      const state = spoState(gpu, { lambda: 0 });
      // Its gradient, which it makes at once, goes with the scope.
      const loss = scope(gpu, () =>
        pairLoss(logps, {
          ...{ ...shared, state },
          metricsRow: 0,
          pairLoss: PAIR_LOSSES[name].resolve(given).head,
          chosenTokens: CHOSEN_TOKENS,
          spo: NO_PENALTY,
          microBatch: { pairsInBatch: P, isFirst: true, isLast: true },
        }));
      const expected = reference.forward(inputs, { ...kind, P, normalizer: P }).loss;
      assertClose(await toHost(loss), [expected], { what: `${name} ${JSON.stringify(given)}` });
      [loss, state].forEach(release);
    }
    [logps, ...Object.values(shared)].forEach(release);
  },
);

Deno.test("the first loss that a run must show is the f64 loss at policy = reference", () => {
  for (const [name, given, kind] of CASES) {
    const { initialLoss } = PAIR_LOSSES[name].resolve(given);
    if (UNKNOWN.includes(name) || given.referenceFree) {
      assert.equal(initialLoss, undefined, `${name}'s depends on the data`);
      continue;
    }
    const ref = Float64Array.of(-7, -5, -2, -9);
    const inputs = { s: ref.slice(), ref, lengths: [3, 2, 8, 4] };
    const { loss } = reference.forward(inputs, { ...kind, P: 2, normalizer: 2 });
    assert.ok(Math.abs(initialLoss! - loss) < 1e-12 * (1 + loss), `${name}: ${initialLoss}, ${loss}`);
  }
});

Deno.test("every registered loss is filed under its own name and has a case here", () => {
  for (const [key, { name }] of Object.entries(PAIR_LOSSES)) assert.equal(name, key);
  assert.deepEqual([...new Set(CASES.map(([name]) => name))].sort(), Object.keys(PAIR_LOSSES).sort());
  const free = Object.values(PAIR_LOSSES).filter((loss) => !loss.resolve({}).needsReference);
  assert.deepEqual(free.map(({ name }) => name), REFERENCE_FREE);
  assert.equal(PAIR_LOSSES.dpo.resolve({ referenceFree: true }).needsReference, false);
  const coupled = Object.values(PAIR_LOSSES).filter((loss) => loss.resolve({}).needsWholeBatch);
  assert.deepEqual(coupled.map(({ name }) => name), ["aot", "aot_unpaired", "alphadpo", "beta_dpo"]);
  // Every head of the kernel is some registered loss's, or the likelihood's.
  const heads = [...Object.values(PAIR_LOSSES), PAIR_TERMS.sft].map((loss) =>
    loss.resolve({}).head.terms[0].loss
  );
  assert.deepEqual(heads.sort(), Object.keys(HEADS).sort());
});

Deno.test("options: the flags are those that some loss has, and every loss's are flags", () => {
  const known = new Set([
    ...Object.values(PAIR_TERMS).flatMap(({ optionNames }) => optionNames),
    ...UNPAIRED_OPTIONS,
  ]);
  assert.deepEqual([...known].sort(), [...LOSS_OPTIONS].sort());
});

Deno.test("a loss refuses options of another loss and values out of range", () => {
  const refused: [PairLossKey, Record<string, unknown>, RegExp][] = [
    ["hinge", { labelSmoothing: 0.1 }, /labelSmoothing/],
    ["simpo", { beta: -1 }, /beta/],
    ["dpo", { labelSmoothing: 0.5 }, /labelSmoothing/],
    ["ipo", { lengthNormalize: 1 }, /lengthNormalize/],
    ["exo_pair", { labelSmoothing: 0 }, /labelSmoothing/],
    ["alphapo", { alpha: 0 }, /other than 0/],
    ["dpo", { fAlphaDivergenceCoef: 0.2 }, /alpha_divergence with it/],
    ["dpo", { fDivergenceType: "alpha_divergence", fAlphaDivergenceCoef: 1 }, /other than 1/],
    ["bco_pair", { referenceFree: true }, /referenceFree/],
    ["dpop", { fDivergenceType: "js_divergence" }, /fDivergenceType/],
    ["simpo", { referenceFree: true }, /referenceFree/],
  ];
  for (const [name, given, message] of refused) {
    assert.throws(() => PAIR_LOSSES[name].resolve(given), message);
  }
});
