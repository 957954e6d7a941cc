/**
 * Losses that pull the chosen answer's log-ratio c = s_w - ref_w up and the rejected one's r = s_l - ref_l down, each
 * towards a place of its own.
 * @module
 */
import { z } from "zod";
import { beta } from "./options.ts";
import { definePairLoss, type PairLoss } from "./pair_loss.ts";

/** NCA on pairs: -log sigmoid(beta c) - log sigmoid(-beta c) / 2 - log sigmoid(-beta r) / 2. arXiv 2402.05369. */
export const ncaPair: PairLoss = definePairLoss({
  name: "nca_pair",
  head: "nca_pair",
  options: z.strictObject({ beta: beta(0.01) }),
  initialLoss: () => 2 * Math.LN2,
});

/** BCO on pairs: -log sigmoid(beta c) - log sigmoid(-beta r). arXiv 2404.04656, without its reward shift, as TRL has it. */
export const bcoPair: PairLoss = definePairLoss({
  name: "bco_pair",
  head: "bco_pair",
  options: z.strictObject({ beta: beta(0.1) }),
  initialLoss: () => 2 * Math.LN2,
});

/** SPPO with hard labels: (c - 1/(2 beta))^2 + (r + 1/(2 beta))^2. Eq. 4.7, arXiv 2405.00675. */
export const sppoHard: PairLoss = definePairLoss({
  name: "sppo_hard",
  head: "sppo_hard",
  options: z.strictObject({ beta: beta(0.001) }),
  initialLoss: ({ beta }) => 1 / (2 * beta ** 2),
});

/** APO zero: 1 - sigmoid(beta c) + sigmoid(beta r). Eq. 7, arXiv 2408.06266. */
export const apoZero: PairLoss = definePairLoss({
  name: "apo_zero",
  head: "apo_zero",
  options: z.strictObject({ beta: beta(0.1) }),
  initialLoss: () => 1,
});

/** APO down: sigmoid(beta c) + 1 - sigmoid(beta (c - r)). Eq. 8, arXiv 2408.06266. */
export const apoDown: PairLoss = definePairLoss({
  name: "apo_down",
  head: "apo_down",
  options: z.strictObject({ beta: beta(0.1) }),
  initialLoss: () => 1,
});

/** Cal-DPO: -log sigmoid(D) + [(c - 1/(2 beta))^2 + (r + 1/(2 beta))^2] / 2. arXiv 2412.14516. */
export const calDpo: PairLoss = definePairLoss({
  name: "cal_dpo",
  head: "cal_dpo",
  options: z.strictObject({ beta: beta(0.1) }),
  initialLoss: ({ beta }) => Math.LN2 + 1 / (4 * beta ** 2),
});
