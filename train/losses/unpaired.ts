/**
 * Losses on answers that are good or bad each by itself, by name.
 * @module
 */
import { z } from "zod";
import { ConfigError, showFound } from "../errors.ts";
import { describeIssue } from "../issue.ts";

/** A loss with its options filled in. */
export interface ResolvedUnpairedLoss {
  /** As `--loss` has it. */
  readonly name: UnpairedLossKey;
  /** Effective options. */
  readonly options: UnpairedLossOptions;
  /** Whether rewards are measured from a KL estimate, which is of the whole batch and of at least two answers. */
  readonly needsKl: boolean;
}

/** Options of every loss on unpaired answers. */
export interface UnpairedLossOptions {
  /** Strength of the preference. */
  readonly beta: number;
  /** Factor of the good answers' losses. */
  readonly desirableWeight: number;
  /** Factor of the bad answers' losses. */
  readonly undesirableWeight: number;
}

/**
 * `kto`: w_D (1 - sigmoid(beta (x - z0))) of a good answer, w_U (1 - sigmoid(beta (z0 - x))) of a bad one, x its log-ratio
 * to the reference, z0 the batch's KL estimate. Eq. 8, arXiv 2402.01306. `apo_zero_unpaired`: the same with z0 = 0. Eq. 7,
 * arXiv 2408.06266.
 */
export const UNPAIRED_LOSSES: Readonly<Record<UnpairedLossKey, { readonly needsKl: boolean }>> = {
  kto: { needsKl: true },
  apo_zero_unpaired: { needsKl: false },
};

/** A name in {@link UNPAIRED_LOSSES}. */
export type UnpairedLossKey = "kto" | "apo_zero_unpaired";

const schema = z.strictObject({
  beta: z.number().positive().default(0.1),
  desirableWeight: z.number().positive().default(1),
  undesirableWeight: z.number().positive().default(1),
});

/** Names of the options of these losses. */
export const UNPAIRED_OPTIONS: readonly string[] = Object.keys(schema.shape);

/** Whether a name is that of a loss on unpaired answers. */
export function isUnpairedLoss(name: string): name is UnpairedLossKey {
  return Object.hasOwn(UNPAIRED_LOSSES, name);
}

/**
 * Fills in a loss's options.
 *
 * @param name the loss
 * @param options as the user set them
 * @param describe how errors name a setting; by default its name
 * @throws {ConfigError} on an option that it does not read or whose value it refuses
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { options } = resolveUnpairedLoss("kto", { undesirableWeight: 1.5 });
 * assert.deepEqual(options, { beta: 0.1, desirableWeight: 1, undesirableWeight: 1.5 });
 * assert.throws(() => resolveUnpairedLoss("kto", { alpha: 1 }), /alpha/);
 * ```
 */
export function resolveUnpairedLoss(
  name: UnpairedLossKey,
  options: Readonly<Record<string, unknown>> = {},
  describe: (setting: string) => string = (setting) => setting,
): ResolvedUnpairedLoss {
  const unread = Object.keys(options).find((option) => !UNPAIRED_OPTIONS.includes(option));
  if (unread !== undefined) {
    throw new ConfigError(`Cannot use ${describe(unread)}: expected a loss that reads it, found ${name}`);
  }
  const result = schema.safeParse(options);
  if (result.success) return { name, options: result.data, ...UNPAIRED_LOSSES[name] };
  const [issue] = result.error.issues;
  const setting = String(issue.path[0]);
  throw new ConfigError(
    `Cannot use ${describe(setting)} with ${name}: expected ${describeIssue(issue)}, found ${
      showFound(options[setting])
    }`,
    { cause: result.error },
  );
}
