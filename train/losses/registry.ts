/**
 * Every pairwise loss, by name.
 * @module
 */
import { dpo } from "./dpo.ts";
import { hinge } from "./hinge.ts";
import { ipo } from "./ipo.ts";
import type { PairLoss } from "./pair_loss.ts";
import { simpo } from "./simpo.ts";

/**
 * Losses that `--loss` knows; one line each.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const { options, initialLoss } = PAIR_LOSSES.ipo.resolve({ beta: 0.5 });
 * assert.deepEqual(options, { beta: 0.5, lengthNormalize: true });
 * assert.equal(initialLoss, 1); // 1 / (4 beta^2)
 * ```
 */
export const PAIR_LOSSES = { dpo, hinge, ipo, simpo } as const satisfies Record<string, PairLoss>;

/** A name in {@link PAIR_LOSSES}. */
export type PairLossKey = keyof typeof PAIR_LOSSES;
