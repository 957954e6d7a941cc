/**
 * Every pairwise loss, by name.
 * @module
 */
import { dpo } from "./dpo.ts";
import { hinge } from "./hinge.ts";
import { ipo } from "./ipo.ts";
import type { PairLoss } from "./pair_loss.ts";
import { simpo } from "./simpo.ts";

/** Losses that `--loss` knows; one line each. */
export const PAIR_LOSSES = { dpo, hinge, ipo, simpo } as const satisfies Record<string, PairLoss>;

/** A name in {@link PAIR_LOSSES}. */
export type PairLossKey = keyof typeof PAIR_LOSSES;
