/**
 * Stable Preference Optimization around a pairwise loss, solver `penalty`: F + lambda phi(G - v*), where G is the mean
 * length-normalised negative log-likelihood of the chosen answers. The idea is that of arXiv 2507.07723; its printed
 * equations are not at hand, so this formulation is Keel's own, and every choice in it is an option.
 *
 * With the linear phi and a constant lambda the gradient equals that of DPO + lambda NLL(chosen), whatever v* is.
 * @module
 */
import { z } from "zod";
import { NO_PENALTY, type SpoPenaltyOptions } from "../../engine/ops/pair_loss.ts";
import { LAMBDA_SCHEDULES, lambdaAt } from "../schedule.ts";

/** SPO's options; `solver: "none"` is the plain pairwise loss. */
export const spoSchema = z.strictObject({
  solver: z.enum(["none", "penalty"]).default("none"),
  penalty: z.enum(["linear", "hinge", "quadratic"]).default("linear"),
  lambda: z.number().min(0).default(1),
  lambdaSchedule: z.enum(LAMBDA_SCHEDULES).default("constant"),
  lambdaEnd: z.number().min(0).optional(),
  lambdaSteps: z.int().positive().optional(),
  dualRate: z.number().positive().optional(),
  epsilon: z.number().min(0).default(0),
  vStar: z.union([z.literal("initial"), z.number()]).default("initial"),
  vStarSteps: z.int().positive().default(10),
  rho: z.number().min(0).default(0),
  margin: z.number().min(0).default(0),
});

/** SPO's effective options. */
export type SpoOptions = z.output<typeof spoSchema>;

/** Options that only some other choice uses: [option, the choice it needs, whether that choice was made]. */
function conditions(spo: SpoOptions): [keyof SpoOptions, string, boolean][] {
  const grows = spo.lambdaSchedule === "linear" || spo.lambdaSchedule === "geometric";
  return [
    ["lambdaEnd", "lambdaSchedule linear or geometric", grows],
    ["lambdaSteps", "lambdaSchedule linear or geometric", grows],
    ["dualRate", "lambdaSchedule dual", spo.lambdaSchedule === "dual"],
    [
      "epsilon",
      "penalty hinge or quadratic, or lambdaSchedule dual",
      spo.penalty !== "linear" || spo.lambdaSchedule === "dual",
    ],
    ["vStarSteps", 'vStar "initial"', spo.vStar === "initial"],
    ["margin", "rho above 0", spo.rho > 0],
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
    return unread ? [unread, "solver penalty"] : undefined;
  }
  const unread = conditions(spo).find(([name, , isRead]) => given.has(name) && !isRead);
  if (unread) return [unread[0], unread[1]];
  const grows = spo.lambdaSchedule === "linear" || spo.lambdaSchedule === "geometric";
  if (grows && spo.lambdaEnd === undefined) return ["lambdaSchedule", "lambdaEnd, where lambda grows to"];
  if (spo.lambdaSchedule === "geometric" && !(spo.lambda > 0 && (spo.lambdaEnd ?? 1) > 0)) {
    return ["lambdaSchedule", "lambda and lambdaEnd above 0 for geometric growth"];
  }
  return undefined;
}

/**
 * The kernel's numbers for one step.
 *
 * @param spo effective options
 * @param step from 1
 * @param maxSteps of the run; growth ends there unless lambdaSteps says otherwise
 */
export function spoPenaltyAt(spo: SpoOptions, step: number, maxSteps: number): SpoPenaltyOptions {
  if (spo.solver === "none") return NO_PENALTY;
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
    vStar: spo.vStar === "initial" ? { initialSteps: spo.vStarSteps } : spo.vStar,
    rho: spo.rho,
    margin: spo.margin,
  };
}

/** eta of the dual update where none is given. */
const DEFAULT_DUAL_RATE = 0.1;
