/**
 * Every loss against every option: one that it does not read is refused, one that it reads changes what is computed.
 *
 * @module
 */
import assert from "node:assert/strict";
import { LOSS_OPTIONS, parseRunConfig, resolveLoss, resolveUnpaired } from "../../train/config.ts";
import { ConfigError } from "../../train/errors.ts";
import { UNPAIRED_LOSSES } from "../../train/losses/unpaired.ts";
import { PAIR_LOSS_NAMES } from "../../train/losses/weighted_sum.ts";

const SOURCE = { describe: (path: readonly string[]) => `<${path.join(".")}>` };
const parse = (raw: Record<string, unknown>) => parseRunConfig(raw, SOURCE);

type LossOption = (typeof LOSS_OPTIONS)[number];

/** A value of each option that no loss has by default and none refuses, with what else it needs. */
const VALUES: Readonly<Record<LossOption, Record<string, unknown>>> = {
  beta: { beta: 0.37 },
  labelSmoothing: { labelSmoothing: 0.23 },
  lengthNormalize: { lengthNormalize: false },
  gammaBetaRatio: { gammaBetaRatio: 0.37 },
  alpha: { alpha: 0.37 },
  cpoAlpha: { cpoAlpha: 0.37 },
  dpopLambda: { dpopLambda: 3 },
  discopopTau: { discopopTau: 0.37 },
  fDivergenceType: { fDivergenceType: "forward_kl" },
  fAlphaDivergenceCoef: { fDivergenceType: "alpha_divergence", fAlphaDivergenceCoef: 0.37 },
  referenceFree: { referenceFree: true },
  ldAlpha: { ldAlpha: 0.37 },
  desirableWeight: { desirableWeight: 1.37 },
  undesirableWeight: { undesirableWeight: 1.37 },
};

const ON_LOG_RATIOS = ["dpo", "robust", "hinge", "ipo", "exo_pair", "discopop", "sigmoid_norm"];
/** Those besides whose log-ratios are of whole answers, against a reference. */
const OTHERS_ON_WHOLE_ANSWERS = [
  ...["nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "aot", "aot_unpaired", "dpop", "rdpo"],
  ...["beta_dpo", "cal_dpo"],
];
const UNPAIRED = ["kto", "apo_zero_unpaired"];

/** Which losses read it, as docs/losses.md has them; their aliases and presets follow. */
const READERS: Readonly<Record<LossOption, readonly string[] | "all but sft">> = {
  beta: "all but sft",
  labelSmoothing: ["dpo", "robust", "exo_pair", "aot", "aot_unpaired", "cpo"],
  lengthNormalize: ["ipo"],
  gammaBetaRatio: ["simpo", "alphapo", "alphadpo"],
  alpha: ["alphapo", "rdpo", "alphadpo", "beta_dpo"],
  cpoAlpha: ["cpo"],
  dpopLambda: ["dpop"],
  discopopTau: ["discopop"],
  fDivergenceType: ON_LOG_RATIOS,
  fAlphaDivergenceCoef: ON_LOG_RATIOS,
  referenceFree: ON_LOG_RATIOS,
  ldAlpha: [...ON_LOG_RATIOS, ...OTHERS_ON_WHOLE_ANSWERS],
  desirableWeight: UNPAIRED,
  undesirableWeight: UNPAIRED,
};

/** What names that stand for others are made of. */
const MADE_OF: Readonly<Record<string, readonly string[]>> = {
  sigmoid: ["dpo"],
  aot_pair: ["aot"],
  mpo: ["dpo", "bco_pair"],
  rpo: ["dpo"],
  irpo: ["dpo"],
};

const NAMES = [...PAIR_LOSS_NAMES, ...Object.keys(UNPAIRED_LOSSES), "sft"];

function isRead(option: LossOption, loss: string): boolean {
  const readers = READERS[option];
  if (readers === "all but sft") return loss !== "sft";
  return (MADE_OF[loss] ?? [loss]).some((name) => readers.includes(name));
}

for (const loss of NAMES) {
  Deno.test(`${loss}: an option that it does not read is refused, one that it reads changes the loss`, () => {
    const computed = (raw: Record<string, unknown>) => {
      const config = parse({ loss, ...raw });
      const pairwise = resolveLoss(config);
      return pairwise ? [pairwise.head, pairwise.ldAlpha] : resolveUnpaired(config)?.options;
    };
    for (const option of LOSS_OPTIONS) {
      const given = VALUES[option];
      if (isRead(option, loss)) {
        const { [option]: _, ...rest } = given;
        assert.notDeepEqual(computed(given), computed(rest), `${option} changes nothing`);
        continue;
      }
      assert.throws(() => parse({ loss, ...given }), (error: Error) => {
        assert.ok(error instanceof ConfigError, `${option}: ${error}`);
        // A divergence's coefficient comes with its divergence, which is then named first.
        const named = option === "fAlphaDivergenceCoef" ? "(fAlphaDivergenceCoef|fDivergenceType)" : option;
        assert.match(error.message, new RegExp(`^Cannot use <${named}>: expected .*, found .*`), option);
        return true;
      });
    }
  });
}

/** Losses whose own terms do not read the reference. */
const WITHOUT_REFERENCE: Record<string, unknown>[] = [
  ...["cpo", "simpo", "alphapo", "orpo", "simpo,orpo", "cpo,sft"].map((loss) => ({ loss })),
  ...ON_LOG_RATIOS.map((loss) => ({ loss, referenceFree: true })),
];

/** What says which reference, or how it is had. */
const REFERENCE_SETTINGS: [string, Record<string, unknown>][] = [
  ["precomputeReference", { precomputeReference: true }],
  ["precomputeReference", { precomputeReference: false }],
  ["syncRefModel", { syncRefModel: true, precomputeReference: false }],
  ["refModelMixupAlpha", { refModelMixupAlpha: 0.5 }],
  ["refModelSyncSteps", { refModelSyncSteps: 5 }],
  ["lora.reference", { lora: { reference: "start" } }],
  ["lora.reference", { lora: { reference: "base" } }],
];

Deno.test("a loss without a reference refuses every setting of it, unless SPO's regularizer reads it", () => {
  for (const loss of [...WITHOUT_REFERENCE, { loss: "sft" }]) {
    for (const [name, settings] of REFERENCE_SETTINGS) {
      const raw = { ...loss, ...settings };
      const message = new RegExp(`^ConfigError: Cannot use <${name}>: expected .*, found `);
      assert.throws(() => parse(raw), message, JSON.stringify(raw));
    }
  }
  for (const loss of WITHOUT_REFERENCE) {
    const spo = { solver: "penalty", rho: 0.1 };
    assert.equal(parse({ ...loss, spo, precomputeReference: false }).precomputeReference, false);
    assert.throws(() => parse({ ...loss, spo: { ...spo, rho: 0 }, precomputeReference: false }), ConfigError);
  }
});

Deno.test("what cannot be trained at all is refused with the reason", () => {
  const refused: [Record<string, unknown>, RegExp][] = [
    ...UNPAIRED.map((loss): [Record<string, unknown>, RegExp] => [
      { loss, spo: { solver: "penalty" } },
      new RegExp(`<spo>: expected a pairwise loss, found ${loss}`),
    ]),
    [{ loss: "sft", spo: { solver: "alternating" } }, /<spo>: expected a pairwise loss, found sft/],
    [{ loss: "kto", batchSize: 1 }, /<batchSize>: expected at least 2 with kto, whose KL estimate/],
    [
      { loss: "exo_pair", labelSmoothing: 0 },
      /<labelSmoothing> with exo_pair: expected more than 0, found 0/,
    ],
    [{ loss: "exo_pair,sft", labelSmoothing: 0 }, /<labelSmoothing> with exo_pair: expected more than 0/],
    [{ loss: "robust", labelSmoothing: 0.5 }, /<labelSmoothing>: expected less than 0.5, found 0.5/],
    [{ loss: "alphapo", alpha: 0 }, /<alpha> with alphapo: .*other than 0/],
  ];
  for (const [raw, message] of refused) assert.throws(() => parse(raw), message, JSON.stringify(raw));
});
