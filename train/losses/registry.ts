/**
 * Every pairwise loss, by name.
 * @module
 */
import { discopop, dpo, exoPair, robust, sigmoidNorm } from "./dpo.ts";
import { hinge } from "./hinge.ts";
import { ipo } from "./ipo.ts";
import { cpo, orpo, sft } from "./likelihood.ts";
import { aot, aotUnpaired, betaDpo, dpop, rdpo } from "./margins.ts";
import type { PairLoss } from "./pair_loss.ts";
import { apoDown, apoZero, bcoPair, calDpo, ncaPair, sppoHard } from "./pointwise.ts";
import { alphadpo, alphapo, simpo } from "./simpo.ts";

/**
 * Losses that `--loss` knows; one line each. Names are TRL's where TRL has the loss.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const { options, initialLoss } = PAIR_LOSSES.hinge.resolve({ beta: 0.5 });
 * assert.equal(options.beta, 0.5);
 * assert.equal(initialLoss, 1); // policy = reference
 * ```
 */
export const PAIR_LOSSES = {
  dpo,
  robust,
  hinge,
  ipo,
  exo_pair: exoPair,
  nca_pair: ncaPair,
  bco_pair: bcoPair,
  sppo_hard: sppoHard,
  apo_zero: apoZero,
  apo_down: apoDown,
  discopop,
  sigmoid_norm: sigmoidNorm,
  aot,
  aot_unpaired: aotUnpaired,
  cpo,
  simpo,
  alphapo,
  alphadpo,
  dpop,
  rdpo,
  beta_dpo: betaDpo,
  cal_dpo: calDpo,
  orpo,
} as const satisfies Record<string, PairLoss>;

/** A name in {@link PAIR_LOSSES}. */
export type PairLossKey = keyof typeof PAIR_LOSSES;

/** What a weighted sum may be made of: the pairwise losses, and the likelihood of the chosen answers. */
export const PAIR_TERMS: Readonly<Record<PairLossKey | "sft", PairLoss>> = { ...PAIR_LOSSES, sft };

/** Other names of losses. */
export const LOSS_ALIASES: Readonly<Record<string, PairLossKey>> = { sigmoid: "dpo", aot_pair: "aot" };
