/**
 * From what a user wrote to a loss: one name, a preset, or several names with weights.
 * @module
 */
import { z } from "zod";
import { ConfigError, showFound } from "../errors.ts";
import { describeIssue } from "../issue.ts";
import { nearestName } from "../suggest.ts";
import type { PairLoss, ResolvedPairLoss } from "./pair_loss.ts";
import { LOSS_ALIASES, PAIR_LOSSES, PAIR_TERMS, type PairLossKey } from "./registry.ts";

type TermName = PairLossKey | "sft";

/** Sums that have a name of their own: arXiv 2411.10442 (MPO), 2405.16436 (RPO), 2404.19733 (IRPO). */
const PRESETS: Readonly<Record<string, readonly (readonly [TermName, number])[]>> = {
  mpo: [["dpo", 0.8], ["bco_pair", 0.2], ["sft", 1]],
  rpo: [["dpo", 1], ["sft", 0.005]],
  irpo: [["dpo", 1], ["sft", 1]],
};

/** Everything that `--loss` knows besides sums of its names. */
export const PAIR_LOSS_NAMES: readonly string[] = [
  ...Object.keys(PAIR_LOSSES),
  ...Object.keys(LOSS_ALIASES),
  ...Object.keys(PRESETS),
];

/** How to resolve a loss. */
export interface LossChoice {
  /** One weight a term, joined by commas; 1 each by default. */
  readonly weights?: string;
  /** Options of the terms: each goes to those that have it. */
  readonly options?: Readonly<Record<string, unknown>>;
  /** How errors name a setting; by default its name. */
  readonly describe?: (setting: string) => string;
}

/**
 * The loss of a name, a preset, or a weighted sum of several. `sft` may be a term but not stand alone: a run on
 * completions has no pairs.
 *
 * @param names as `--loss` has them: names joined by commas
 * @param choice weights and options
 * @returns the loss, whose terms are in the order given
 * @throws {ConfigError} on an unknown name, a term given twice, weights that do not fit, or an option that no term has
 * or whose value one refuses
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const mpo = resolvePairLoss("dpo,bco_pair,sft", { weights: "0.8,0.2,1", options: { beta: 0.3 } });
 * assert.deepEqual(mpo.head.terms.map(({ loss, weight }) => [loss, weight]), [["dpo", 0.8], ["bco_pair", 0.2], ["sft", 1]]);
 * assert.equal(mpo.head.terms[1].options.beta, 0.3); // both have it
 * assert.throws(() => resolvePairLoss("hinge", { options: { labelSmoothing: 0.1 } }), /labelSmoothing/);
 * ```
 */
export function resolvePairLoss(names: string, choice: LossChoice = {}): ResolvedPairLoss {
  const { options = {}, describe = (setting: string) => setting } = choice;
  const terms = weighted(names, { weights: choice.weights, describe });
  const losses = terms.map(([name]) => PAIR_TERMS[name]);
  refuseUnread(options, { losses, describe });
  refusePlainTerms(options, { losses, describe });
  const parts = losses.map((loss) => resolveTerm(loss, { options, describe }));
  const [first] = parts;
  if (parts.length === 1 && terms[0][1] === 1) return first;
  const initial = parts.map(({ initialLoss }, index) => (initialLoss ?? NaN) * terms[index][1]);
  const initialLoss = initial.reduce((total, value) => total + value, 0);
  const ldAlpha = parts.find((part) => part.ldAlpha !== undefined)?.ldAlpha;
  return {
    name: parts.map(({ name }) => name).join("+"),
    options: commonOptions(parts),
    needsReference: parts.some(({ needsReference }) => needsReference),
    needsPromptLogps: parts.some(({ needsPromptLogps }) => needsPromptLogps),
    takesMargin: parts.every(({ name, takesMargin }) => name === "sft" || takesMargin),
    takesWeights: parts.every(({ takesWeights }) => takesWeights),
    needsWholeBatch: parts.some(({ needsWholeBatch }) => needsWholeBatch),
    beta: (parts.find(({ name }) => name !== "sft") ?? first).beta,
    head: {
      terms: parts.flatMap(({ head }, index) =>
        head.terms.map((term) => ({ ...term, weight: term.weight * terms[index][1] }))
      ),
    },
    ...(ldAlpha === undefined ? {} : { ldAlpha }),
    ...(Number.isNaN(initialLoss) ? {} : { initialLoss }),
  };
}

/** Terms and weights of what was written. */
function weighted(
  names: string,
  { weights, describe }: { weights?: string; describe: (setting: string) => string },
): (readonly [TermName, number])[] {
  if (Object.hasOwn(PRESETS, names)) {
    if (weights === undefined) return [...PRESETS[names]];
    throw new ConfigError(
      `Cannot use ${
        describe("lossWeights")
      }: expected a list of losses with it, found ${names}, which has its weights`,
    );
  }
  const terms = names.split(",").map((name) => termName(name.trim(), describe("loss")));
  const twice = terms.find((name, index) => terms.indexOf(name) < index);
  if (twice) throw new ConfigError(`Cannot use ${describe("loss")}: expected ${twice} once, found it twice`);
  if (terms.length === 1 && terms[0] === "sft") {
    throw new ConfigError(`Cannot use ${describe("loss")}: expected a pairwise loss, found sft alone`);
  }
  const numbers = weights?.split(",").map((text) => (text.trim() === "" ? NaN : Number(text))) ??
    terms.map(() => 1);
  const isUsable = numbers.every((weight) => Number.isFinite(weight) && weight > 0);
  if (!isUsable || numbers.length !== terms.length) {
    throw new ConfigError(
      `Cannot use ${describe("lossWeights")}: expected ${terms.length} numbers above 0, joined by commas, ` +
        `found ${showFound(weights)}`,
    );
  }
  return terms.map((name, index) => [name, numbers[index]] as const);
}

function termName(name: string, setting: string): TermName {
  const resolved = Object.hasOwn(LOSS_ALIASES, name) ? LOSS_ALIASES[name] : name;
  if (Object.hasOwn(PAIR_TERMS, resolved)) return resolved as TermName;
  const nearest = nearestName(name, PAIR_LOSS_NAMES);
  const hint = nearest ? ` (did you mean ${nearest}?)` : "";
  const known = PAIR_LOSS_NAMES.join(", ");
  throw new ConfigError(
    `Cannot use ${setting}: expected one of sft, ${known}, or several joined by commas, ` +
      `found ${showFound(name)}${hint}`,
  );
}

/** An option that no term reads would silently change nothing. */
function refuseUnread(
  options: Readonly<Record<string, unknown>>,
  { losses, describe }: { losses: readonly PairLoss[]; describe: (setting: string) => string },
): void {
  const unread = Object.keys(options).find((name) =>
    losses.every(({ optionNames }) => !optionNames.includes(name))
  );
  if (unread === undefined) return;
  const users = Object.values(PAIR_LOSSES).filter(({ optionNames }) => optionNames.includes(unread));
  throw new ConfigError(
    `Cannot use ${describe(unread)}: expected a loss that reads it (${
      users.map(({ name }) => name).join(", ")
    }), found ${losses.map(({ name }) => name).join(", ")}`,
  );
}

/** All terms of a sum see the same log-probs, so that `ldAlpha` must be of each; likelihoods are of whole answers. */
function refusePlainTerms(
  { ldAlpha }: Readonly<Record<string, unknown>>,
  { losses, describe }: { losses: readonly PairLoss[]; describe: (setting: string) => string },
): void {
  const other = losses.find(({ name, optionNames }) => name !== "sft" && !optionNames.includes("ldAlpha"));
  if (ldAlpha === undefined || other === undefined) return;
  throw new ConfigError(
    `Cannot use ${
      describe("ldAlpha")
    }: expected losses that compare log-ratios of whole answers, found ${other.name}, which compares ` +
      "log-probs of the policy alone",
  );
}

function resolveTerm(
  loss: PairLoss,
  { options, describe }: {
    options: Readonly<Record<string, unknown>>;
    describe: (setting: string) => string;
  },
): ResolvedPairLoss {
  const known = Object.entries(options).filter(([name]) => loss.optionNames.includes(name));
  try {
    return loss.resolve(Object.fromEntries(known));
  } catch (cause) {
    if (!(cause instanceof z.ZodError)) throw cause;
    const { path: [name] } = cause.issues[0];
    throw new ConfigError(
      `Cannot use ${describe(String(name))} with ${loss.name}: expected ${
        describeIssue(cause.issues[0])
      }, found ${showFound(options[String(name)])}`,
      { cause },
    );
  }
}

/** Options whose value is the same in every term that has them: given back, they make the same loss. */
function commonOptions(parts: readonly ResolvedPairLoss[]): Record<string, unknown> {
  const entries = parts.flatMap(({ options }) => Object.entries(options));
  return Object.fromEntries(
    entries.filter(([name, value]) => entries.every(([other, its]) => other !== name || its === value)),
  );
}
