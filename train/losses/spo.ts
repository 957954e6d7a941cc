/**
 * Stable Preference Optimization's options: a pairwise loss as the upper level F, supervised fine-tuning as the lower
 * level G. The idea is that of arXiv 2507.07723; its printed equations are not at hand, so the formulation of docs/spo.md
 * is Keel's own, and every choice in it is an option.
 *
 * With the penalty solver, the linear phi and a constant lambda, the gradient equals that of DPO + lambda NLL(chosen),
 * whatever v* is.
 * @module
 */
import { z } from "zod";
import { NO_PENALTY, type SpoPenaltyOptions } from "../../engine/ops/spo_penalty_options.ts";
import { LAMBDA_SCHEDULES, lambdaAt } from "../schedule.ts";

/** SPO's effective options. Which of them a run reads depends on the others; docs/spo.md states the formulation. */
export interface SpoOptions {
  /** `none` is the plain pairwise loss. */
  solver: "none" | "penalty" | "unrolled" | "alternating";
  /** phi of the gap z = G - v*: z; max(0, z - epsilon); max(0, z - epsilon)^2 / 2. */
  penalty: "linear" | "hinge" | "quadratic";
  /** Weight of the penalty, or where its schedule starts. */
  lambda: number;
  /** How lambda changes over the steps; `dual` follows the constraint's violation. */
  lambdaSchedule: "constant" | "linear" | "geometric" | "dual";
  /** Where linear and geometric growth end. */
  lambdaEnd?: number;
  /** Steps of that growth; the whole run by default. */
  lambdaSteps?: number;
  /** eta of the dual update. */
  dualRate?: number;
  /** How far G may lie above v*. */
  epsilon: number;
  /** v*: a number, the mean of G over the first steps, or the minimum that steps on G from time to time reach. */
  vStar: number | "initial" | "track";
  /** Steps of that mean. */
  vStarSteps: number;
  /** Weight of the absolute-improvement regularizer R. */
  rho: number;
  /** m in R. */
  margin: number;
  /** Of the lower level's steps: alpha of `unrolled`, AdamW's rate of `alternating`, the descent's of vStar "track". */
  innerLearningRate?: number;
  /** Of `unrolled`: grad F after the inner step as it is, or multiplied by (I - alpha H_G). */
  hypergradient: "first-order" | "hvp";
  /** Length of the move to each side by which H_G's product is taken. */
  hvpEpsilon: number;
  /** Steps of the search for v*. */
  trackSteps: number;
  /** Steps of the run between two searches. */
  trackEvery: number;
  /** Whether G is a mean over answers, each by its length, or over tokens. */
  lowerLevelMean: "sequence" | "token";
  /** File of the lower level's data; the chosen answers of the batch by default. */
  sftData?: string;
  /** Its records per step; as many as pairs by default. */
  sftBatchSize?: number;
}

/** The options as zod has them, for the schema of a run. */
export const spoSchema = z.strictObject({
  solver: z.enum(["none", "penalty", "unrolled", "alternating"]).default("none"),
  penalty: z.enum(["linear", "hinge", "quadratic"]).default("linear"),
  lambda: z.number().min(0).default(1),
  lambdaSchedule: z.enum(LAMBDA_SCHEDULES).default("constant"),
  lambdaEnd: z.number().min(0).optional(),
  lambdaSteps: z.int().positive().optional(),
  dualRate: z.number().positive().optional(),
  epsilon: z.number().min(0).default(0),
  vStar: z.union([z.literal("initial"), z.literal("track"), z.number()]).default("initial"),
  vStarSteps: z.int().positive().default(10),
  rho: z.number().min(0).default(0),
  margin: z.number().min(0).default(0),
  innerLearningRate: z.number().min(0).optional(),
  hypergradient: z.enum(["first-order", "hvp"]).default("first-order"),
  hvpEpsilon: z.number().positive().default(0.01),
  trackSteps: z.int().positive().default(5),
  trackEvery: z.int().positive().default(50),
  lowerLevelMean: z.enum(["sequence", "token"]).default("sequence"),
  sftData: z.string().min(1).optional(),
  sftBatchSize: z.int().positive().optional(),
});

/**
 * Checks SPO's options and fills in defaults.
 *
 * @param given options as the user set them
 * @returns effective options
 * @throws {z.ZodError} on an unknown option or a value out of range
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const spo = parseSpoOptions({ solver: "penalty", lambda: 0.5 });
 * assert.equal(spo.penalty, "linear"); // a default
 * assert.throws(() => parseSpoOptions(JSON.parse('{"lamda": 0.5}')), /lamda/);
 * ```
 */
export function parseSpoOptions(given: Partial<SpoOptions>): SpoOptions {
  return spoSchema.parse(given);
}

/** Options that only some other choice uses: [option, the choice it needs, whether that choice was made]. */
function conditions(spo: SpoOptions): [keyof SpoOptions, string, boolean][] {
  const isPenalty = spo.solver === "penalty";
  const grows = spo.lambdaSchedule === "linear" || spo.lambdaSchedule === "geometric";
  const tracks = isPenalty && spo.vStar === "track";
  const ofPenalty = (name: keyof SpoOptions): [keyof SpoOptions, string, boolean] => [
    name,
    "solver penalty",
    isPenalty,
  ];
  return [
    ...(["penalty", "lambda", "lambdaSchedule", "vStar"] as const).map(ofPenalty),
    ["lambdaEnd", "lambdaSchedule linear or geometric", isPenalty && grows],
    ["lambdaSteps", "lambdaSchedule linear or geometric", isPenalty && grows],
    ["dualRate", "lambdaSchedule dual", isPenalty && spo.lambdaSchedule === "dual"],
    [
      "epsilon",
      "penalty hinge or quadratic, or lambdaSchedule dual",
      isPenalty && (spo.penalty !== "linear" || spo.lambdaSchedule === "dual"),
    ],
    ["vStarSteps", 'vStar "initial"', isPenalty && spo.vStar === "initial"],
    ["margin", "rho above 0", spo.rho > 0],
    ["innerLearningRate", 'solver unrolled or alternating, or vStar "track"', !isPenalty || tracks],
    ["hypergradient", "solver unrolled", spo.solver === "unrolled"],
    ["hvpEpsilon", "hypergradient hvp", spo.solver === "unrolled" && spo.hypergradient === "hvp"],
    ["trackSteps", 'vStar "track"', tracks],
    ["trackEvery", 'vStar "track"', tracks],
    ["sftBatchSize", "sftData", spo.sftData !== undefined],
  ];
}

/**
 * What is wrong with a combination of SPO options, if anything: an option that nothing would read, or one that is missing.
 *
 * @param spo effective options
 * @param given names that the user set
 * @returns [option, message], or undefined
 */
export function findSpoConflict(spo: SpoOptions, given: ReadonlySet<string>): [string, string] | undefined {
  if (spo.solver === "none") {
    const unread = [...given].find((name) => name !== "solver");
    return unread ? [unread, "solver penalty, unrolled or alternating"] : undefined;
  }
  const unread = conditions(spo).find(([name, , isRead]) => given.has(name) && !isRead);
  if (unread) return [unread[0], unread[1]];
  if (spo.innerLearningRate === undefined) {
    if (spo.solver !== "penalty") return ["solver", "innerLearningRate with it, the lower level's step"];
    if (spo.vStar === "track") return ["vStar", "innerLearningRate with track, the search's step"];
  }
  const grows = spo.lambdaSchedule === "linear" || spo.lambdaSchedule === "geometric";
  if (grows && spo.lambdaEnd === undefined) return ["lambdaSchedule", "lambdaEnd, where lambda grows to"];
  if (spo.lambdaSchedule === "geometric" && !(spo.lambda > 0 && (spo.lambdaEnd ?? 1) > 0)) {
    return ["lambdaSchedule", "lambda and lambdaEnd above 0 for geometric growth"];
  }
  return undefined;
}

/**
 * The options that are read, for a run's config.json: given back to Keel they make the same run.
 *
 * @param spo effective options
 */
export function readSpoOptions(spo: SpoOptions): Partial<SpoOptions> {
  if (spo.solver === "none") return { solver: "none" };
  const unread = new Set(conditions(spo).flatMap(([name, , isRead]) => (isRead ? [] : [name])));
  return Object.fromEntries(
    Object.entries(spo).filter(([name, value]) =>
      value !== undefined && !unread.has(name as keyof SpoOptions)
    ),
  );
}

/**
 * The kernel's numbers for one step.
 *
 * @param spo effective options
 * @param step from 1
 * @param maxSteps of the run; growth ends there unless lambdaSteps says otherwise
 * @returns for `pairLoss`; {@link NO_PENALTY} with a solver that has no penalty
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 *
 * const spo = parseSpoOptions({ solver: "penalty", lambda: 0, lambdaSchedule: "linear", lambdaEnd: 1 });
 * assert.equal(spoPenaltyAt(spo, 1, 10).lambda, 0);
 * assert.equal(spoPenaltyAt(spo, 6, 10).lambda, 0.5);
 * ```
 */
export function spoPenaltyAt(spo: SpoOptions, step: number, maxSteps: number): SpoPenaltyOptions {
  if (spo.solver !== "penalty") return NO_PENALTY;
  return {
    penalty: spo.penalty,
    lambda: lambdaAt({
      kind: spo.lambdaSchedule,
      lambda: spo.lambda,
      lambdaEnd: spo.lambdaEnd ?? spo.lambda,
      lambdaSteps: spo.lambdaSteps ?? maxSteps,
    }, step),
    dualRate: spo.lambdaSchedule === "dual" ? spo.dualRate ?? DEFAULT_DUAL_RATE : 0,
    epsilon: spo.epsilon,
    vStar: vStarOf(spo),
    rho: spo.rho,
    margin: spo.margin,
  };
}

/** A tracked v* is the strategy's to fill in. */
function vStarOf({ vStar, vStarSteps }: SpoOptions): SpoPenaltyOptions["vStar"] {
  if (vStar === "track") return 0;
  return vStar === "initial" ? { initialSteps: vStarSteps } : vStar;
}

/** eta of the dual update where none is given. */
const DEFAULT_DUAL_RATE = 0.1;
