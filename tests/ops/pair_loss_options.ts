/**
 * A loss of the reference as the op takes it.
 *
 * @module
 */
import type { PairLossOptions, PairLossTerm } from "../../engine/ops/pair_loss.ts";
import { type PairLossKind, type TermKind, termsOf } from "../reference/pair_loss.ts";

/** Settings that the reference leaves out where they are 0, or true. */
const DEFAULTS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  dpo: { label_smoothing: 0 },
  aot: { label_smoothing: 0 },
  aot_unpaired: { label_smoothing: 0 },
  cpo: { label_smoothing: 0 },
  ipo: { length_normalize: 1 },
};

/**
 * The options of the op for a loss of the reference.
 *
 * @param kind one loss or a weighted sum
 */
export function pairLossOptions(kind: PairLossKind): PairLossOptions {
  return { terms: termsOf(kind).map(termOf) };
}

function termOf(term: TermKind & { weight: number }): PairLossTerm {
  const { loss, weight, referenceFree, divergence, ...settings } = term as TermKind & { weight: number } & {
    gammaBetaRatio?: number;
    beta?: number;
    detached?: unknown;
  };
  const { gammaBetaRatio, detached: _, ...numbers } = settings;
  return {
    ...{ loss, weight, referenceFree, divergence },
    options: {
      ...DEFAULTS[loss],
      ...Object.fromEntries(
        Object.entries(numbers).map(([name, value]) => [
          name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
          Number(value),
        ]),
      ),
      ...(gammaBetaRatio === undefined ? {} : { gamma: gammaBetaRatio * settings.beta! }),
    },
  };
}
