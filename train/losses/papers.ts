/**
 * Where losses were published.
 * @module
 */
import type { PairLossKey } from "./registry.ts";
import type { UnpairedLossKey } from "./unpaired.ts";

/** Number on arXiv of each loss's paper; likelihood alone has none. */
export const LOSS_PAPERS: Readonly<Record<PairLossKey | UnpairedLossKey | "sft", string | undefined>> = {
  sft: undefined,
  dpo: "2305.18290",
  robust: "2403.00409",
  hinge: "2305.10425",
  ipo: "2310.12036",
  exo_pair: "2402.00856",
  nca_pair: "2402.05369",
  bco_pair: "2404.04656",
  sppo_hard: "2405.00675",
  apo_zero: "2408.06266",
  apo_down: "2408.06266",
  discopop: "2406.08414",
  sigmoid_norm: "2411.15124",
  aot: "2406.05882",
  aot_unpaired: "2406.05882",
  cpo: "2401.08417",
  simpo: "2405.14734",
  alphapo: "2501.03884",
  alphadpo: "2410.10148",
  dpop: "2402.13228",
  rdpo: "2403.19159",
  beta_dpo: "2407.08639",
  cal_dpo: "2412.14516",
  orpo: "2403.07691",
  kto: "2402.01306",
  apo_zero_unpaired: "2408.06266",
};

/** Of Stable Preference Optimization. */
export const SPO_PAPER = "2507.07723";
