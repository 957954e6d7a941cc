/**
 * What each of TRL's golden runs is called in Keel, and what of it cannot be compared.
 *
 * @module
 */
/** A golden run in Keel's terms. */
export interface ParityCase {
  /** As `--loss` has it. */
  readonly loss: string;
  /** As `--loss-weights` has them. */
  readonly weights?: string;
  /** Of the loss. */
  readonly options: Readonly<Record<string, unknown>>;
  /** How the reference follows the policy. */
  readonly sync?: { readonly alpha: number; readonly steps: number };
  /** WPO. */
  readonly useWeighting?: boolean;
  /** Names that TRL logs with another meaning than Keel, and so are not compared; docs/losses.md says why. */
  readonly differs?: readonly string[];
}

const BETA = { beta: 0.1 };
const LOGPS = ["logps/chosen", "logps/rejected"];
/** CPO and ORPO average logits over the padding as well. */
const LOGITS = ["logits/chosen", "logits/rejected"];
const REWARDS = ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"];

function one(loss: string, options: ParityCase["options"] = BETA): ParityCase {
  return { loss, options };
}

/** The names are those of make.py. */
export const PARITY_CASES: Readonly<Record<string, ParityCase>> = {
  dpo: one("dpo"),
  robust: one("robust", { ...BETA, labelSmoothing: 0.1 }),
  ipo: one("ipo"),
  hinge: one("hinge"),
  exo_pair: one("exo_pair", { ...BETA, labelSmoothing: 1e-3 }),
  nca_pair: one("nca_pair"),
  bco_pair: one("bco_pair"),
  sppo_hard: one("sppo_hard"),
  apo_zero: one("apo_zero"),
  apo_down: one("apo_down"),
  discopop: one("discopop"),
  sigmoid_norm: one("sigmoid_norm", { beta: 1 }),
  aot: one("aot"),
  aot_label_smoothing: one("aot", { ...BETA, labelSmoothing: 0.2 }),
  aot_unpaired: one("aot_unpaired"),
  // Without pairs: no rewards, no log-probs, and the entropy of the chosen answers alone.
  sft: { ...one("sft", {}), differs: [...REWARDS, ...LOGPS, ...LOGITS, "entropy"] },
  mpo: one("mpo"),
  rpo: { ...one("dpo,sft"), weights: "1,0.005" },
  dpo_forward_kl: one("dpo", { beta: 0.01, fDivergenceType: "forward_kl" }),
  dpo_js: one("dpo", { ...BETA, fDivergenceType: "js_divergence" }),
  dpo_alpha: one("dpo", { ...BETA, fDivergenceType: "alpha_divergence", fAlphaDivergenceCoef: 0.5 }),
  ipo_js: one("ipo", { ...BETA, fDivergenceType: "js_divergence" }),
  dpo_ld: one("dpo", { ...BETA, ldAlpha: 0.5 }),
  dpo_wpo: { ...one("dpo"), useWeighting: true },
  dpo_tr: { ...one("dpo"), sync: { alpha: 0.6, steps: 3 } },
  cpo: { ...one("cpo"), differs: LOGITS },
  dpo_label_smoothing: {
    ...one("dpo", { ...BETA, labelSmoothing: 0.2, referenceFree: true }),
    differs: LOGITS,
  },
  cpo_hinge: { ...one("hinge", { ...BETA, referenceFree: true }), differs: LOGITS },
  cpo_ipo: {
    ...one("ipo", { ...BETA, referenceFree: true }),
    differs: [...LOGITS, ...LOGPS, ...REWARDS],
  },
  simpo: { ...one("simpo", { beta: 2, gammaBetaRatio: 0.5 }), differs: [...LOGITS, ...LOGPS] },
  alphapo: {
    ...one("alphapo", { beta: 2, gammaBetaRatio: 0.5, alpha: 0.25 }),
    differs: [...LOGITS, ...LOGPS],
  },
  orpo: {
    ...one("orpo"),
    differs: [...LOGITS, ...LOGPS],
  },
  kto: one("kto"),
  kto_weights: one("kto", { ...BETA, undesirableWeight: 1.5 }),
  apo_zero_unpaired: one("apo_zero_unpaired"),
};
