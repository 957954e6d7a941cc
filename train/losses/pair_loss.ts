/**
 * What a pairwise loss is: a name, options with defaults, and the head of the kernel that computes it.
 * @module
 */
import { z } from "zod";
import type { PairLossOptions, PairLossTerm } from "../../engine/ops/pair_loss.ts";
import {
  headOf,
  HEADS,
  type PairHead,
  type PairHeadChoice,
  type PairLossName,
} from "../../shaders/pair_heads.ts";

/** What a loss needs of its options' schema: the part of zod's objects that it uses. */
export interface PairLossOptionsSchema<Options> {
  /** Option names, as keys. */
  readonly shape: Readonly<Record<string, unknown>>;
  /** Fills in defaults; throws on what it does not accept. */
  parse(given: unknown): Options;
}

/** A pairwise loss as its file defines it. */
export interface PairLossDefinition<Options> {
  /** As `--loss` has it. */
  readonly name: string;
  /** Which head of the kernel: a built-in one by its name, or one of your own, which gets the loss's name. */
  readonly head: PairLossName | PairHead;
  /**
   * Its own options; any other option given with it is refused. Losses on log-ratios also take {@link LogRatioOptions},
   * those that compare sums of log-ratios {@link TailOptions}.
   */
  readonly options: PairLossOptionsSchema<Options>;
  /** Options to the head's numbers; by default each under its name in snake case, booleans as 1 and 0. */
  readonly numbers?: (options: Options) => Readonly<Record<string, number>>;
  /** The loss where policy and reference are equal; left out when it depends on the data. */
  readonly initialLoss?: (options: Options) => number;
}

/** Options of every loss that is built on the log-ratios alone. */
export interface LogRatioOptions {
  /** f of the f-divergence that the reward belongs to, by TRL's names. */
  readonly fDivergenceType: "reverse_kl" | "forward_kl" | "js_divergence" | "alpha_divergence";
  /** Of the alpha-divergence: 1 would be reverse KL, 0 is forward KL. */
  readonly fAlphaDivergenceCoef?: number;
  /** The reference's log-probs are taken to be 0. */
  readonly referenceFree: boolean;
}

/** Options of every loss that compares log-ratios of whole answers. */
export interface TailOptions {
  /** LD-DPO: what tokens past the length of the pair's shorter answer count; 1 each where it is not given. */
  readonly ldAlpha?: number;
}

/** A loss with its options filled in. */
export interface ResolvedPairLoss {
  /** As `--loss` has it; `a+b` for a weighted sum. */
  readonly name: string;
  /** Effective options, defaults included. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Whether the loss itself reads the reference's log-probs (the displacement panel always does). */
  readonly needsReference: boolean;
  /** Whether its negative log-likelihood is of prompts too: their own tokens are labels then. */
  readonly needsPromptLogps: boolean;
  /** Whether pairs may have margins, which it then takes into account. */
  readonly takesMargin: boolean;
  /** What tokens past the length of the pair's shorter answer count (LD-DPO); 1 each where it is not given. */
  readonly ldAlpha?: number;
  /** Whether pairs may have weights: one that sorts the batch has no pairs to weigh. */
  readonly takesWeights: boolean;
  /** Whether a step must be one micro-batch: pairs of a batch depend on each other. */
  readonly needsWholeBatch: boolean;
  /** Scale of the rewards in the metrics; 1 for a loss that has none. */
  readonly beta: number;
  /** The kernel's terms. */
  readonly head: PairLossOptions;
  /** The loss where policy and reference are equal; undefined when it depends on the data. */
  readonly initialLoss?: number;
}

/** A loss that takes options from outside. */
export interface PairLoss {
  /** As `--loss` has it. */
  readonly name: string;
  /** Option names it knows. */
  readonly optionNames: readonly string[];
  /**
   * Fills in the options.
   *
   * @param given options as the user set them, without defaults
   * @throws {z.ZodError} on a value out of range or an option that this loss does not have
   */
  resolve(given: Readonly<Record<string, unknown>>): ResolvedPairLoss;
}

/** The options of {@link LogRatioOptions} as zod has them. */
const logRatioSchema = z.strictObject({
  fDivergenceType: z.enum(["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"])
    .default("reverse_kl"),
  fAlphaDivergenceCoef: z.number().refine((coef) => coef !== 1, "a number other than 1, which is reverse_kl")
    .optional(),
  referenceFree: z.boolean().default(false),
}).superRefine((options, context) => {
  if (options.fAlphaDivergenceCoef === undefined || options.fDivergenceType === "alpha_divergence") return;
  context.addIssue({
    code: "custom",
    path: ["fAlphaDivergenceCoef"],
    message: "fDivergenceType alpha_divergence with it",
  });
});

/** The options of {@link TailOptions} as zod has them. */
const tailSchema = z.strictObject({ ldAlpha: z.number().min(0).max(1).optional() });

/** TRL's default. */
const DEFAULT_ALPHA_COEF = 0.5;

/**
 * Turns a definition into a loss of the registry.
 *
 * @param definition name, options and kernel head
 * @returns the loss, its options still open
 * @throws {TypeError} when a head of one's own has the name of a built-in one
 * @example A built-in head with options of its own
 * ```ts
 * import assert from "node:assert/strict";
 * import { z } from "zod";
 *
 * const slic = definePairLoss({
 *   name: "slic",
 *   head: "hinge",
 *   options: z.strictObject({ delta: z.number().positive().default(1) }),
 *   numbers: ({ delta }) => ({ beta: 1 / delta }),
 * });
 * assert.equal(slic.resolve({ delta: 4 }).head.terms[0].options.beta, 0.25);
 * assert.throws(() => slic.resolve({ beta: 0.1 })); // not one of its options
 * ```
 *
 * @example A head of one's own: its value, and its slopes by the two log-ratios c and r
 * ```ts
 * import assert from "node:assert/strict";
 * import { z } from "zod";
 *
 * const exponential = definePairLoss({
 *   name: "exponential",
 *   options: z.strictObject({ beta: z.number().positive().default(0.1) }),
 *   head: {
 *     options: ["beta"],
 *     readsReference: true,
 *     wgsl: "value = exp(-beta * (c - r)); d_w = -beta * value; d_l = -d_w;",
 *   },
 *   initialLoss: () => 1,
 * });
 * assert.equal(exponential.resolve({ beta: 0.5 }).beta, 0.5);
 * ```
 */
export function definePairLoss<Options extends Readonly<Record<string, unknown>>>(
  definition: PairLossDefinition<Options>,
): PairLoss {
  const { name, numbers = snakeNumbers } = definition;
  const head = choice(definition);
  const { takesDivergence, takesMargin = false, readsReference, detachesReference, batch, nll } = headOf(
    head,
  );
  const logRatioNames = takesDivergence ? Object.keys(logRatioSchema.shape) : [];
  const tailNames = readsReference && !detachesReference ? Object.keys(tailSchema.shape) : [];
  const sharedNames = [...logRatioNames, ...tailNames];
  return {
    name,
    optionNames: [...Object.keys(definition.options.shape), ...sharedNames],
    resolve(given) {
      const pick = (isPicked: (key: string) => boolean) =>
        Object.fromEntries(Object.entries(given).filter(([key]) => isPicked(key)));
      const own = definition.options.parse(pick((key) => !sharedNames.includes(key)));
      const tail = tailSchema.parse(pick((key) => tailNames.includes(key)));
      const ratio = takesDivergence
        ? logRatio(logRatioSchema.parse(pick((key) => logRatioNames.includes(key))))
        : undefined;
      const term: PairLossTerm = {
        loss: head,
        weight: 1,
        options: { ...numbers(own), ...ratio?.numbers },
        ...ratio?.term,
      };
      const isReferenceFree = ratio?.term.referenceFree ?? false;
      const initialLoss = isReferenceFree ? undefined : definition.initialLoss?.(own);
      return {
        name,
        options: { ...own, ...ratio?.options, ...tail },
        needsReference: readsReference && !isReferenceFree,
        needsPromptLogps: nll === "sequence",
        takesMargin,
        takesWeights: !batch?.sorted,
        needsWholeBatch: batch !== undefined,
        beta: term.options.beta ?? 1,
        head: { terms: [term] },
        ...tail,
        ...(initialLoss === undefined ? {} : { initialLoss }),
      };
    },
  };
}

function choice({ name, head }: Pick<PairLossDefinition<unknown>, "name" | "head">): PairHeadChoice {
  if (typeof head === "string") return head;
  if (!Object.hasOwn(HEADS, name)) return { ...head, name };
  throw new TypeError(
    `Cannot define the loss ${name}: expected a name that no loss has, found a built-in one's`,
  );
}

/** What the options of a loss on log-ratios make of its term. */
function logRatio(options: LogRatioOptions): {
  options: LogRatioOptions;
  numbers: Record<string, number>;
  term: Pick<PairLossTerm, "divergence" | "referenceFree">;
} {
  const { fDivergenceType: divergence, referenceFree } = options;
  const isAlpha = divergence === "alpha_divergence";
  const alpha = options.fAlphaDivergenceCoef ?? DEFAULT_ALPHA_COEF;
  return {
    options: isAlpha ? { ...options, fAlphaDivergenceCoef: alpha } : options,
    numbers: isAlpha ? { divergence_alpha: alpha } : {},
    term: {
      ...(divergence === "reverse_kl" ? {} : { divergence }),
      ...(referenceFree ? { referenceFree } : {}),
    },
  };
}

/** Numbers and booleans under their names in snake case. */
function snakeNumbers(options: Readonly<Record<string, unknown>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => [
      name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      Number(value),
    ]),
  );
}
