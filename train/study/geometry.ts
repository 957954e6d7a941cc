/**
 * Displacement by geometry (arXiv 2410.08847) without a language model: a hidden state h is trained, the output embeddings
 * W are frozen, and those of the chosen and the rejected token are nearly parallel. DPO moves h along W+ - W-; a third token
 * that lies along that difference gains more than the chosen one.
 * @module
 */
import { softmax } from "./squeezing.ts";

/** Probabilities along a training. */
export interface GeometryPoint {
  readonly step: number;
  readonly chosen: number;
  readonly rejected: number;
  /** Of the token that lies along W+ - W-. */
  readonly third: number;
}

/** Losses that are shown. */
export type GeometryLoss = "dpo" | "simpo";

/** Cosine of the angle between W+ and W-. */
const COSINE = 0.95;
/** Length of the third token's embedding, along W+ - W-. */
const THIRD = 2;
const RATE = 0.5;

/** Rows of W: the chosen, the rejected and the third token, then three that have nothing to do with them. */
function embeddings(): number[][] {
  const sine = Math.sqrt(1 - COSINE ** 2);
  const [chosen, rejected] = [[1, 0, 0, 0], [COSINE, sine, 0, 0]];
  const difference = chosen.map((value, at) => value - rejected[at]);
  const length = Math.hypot(...difference);
  const third = difference.map((value) => THIRD * value / length);
  return [chosen, rejected, third, [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, -1, 0]];
}

/**
 * Gradient descent on h, which starts where chosen and rejected are the most likely tokens.
 *
 * @param loss beta 0.1 against the start for DPO; beta 2 and margin 1 for SimPO
 * @param options.lambda weight of -log p(chosen), SPO's linear penalty
 * @param options.steps how many
 * @returns a point per step, the start included
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const last = trainHidden("dpo", { lambda: 0, steps: 400 }).at(-1)!;
 * assert(last.chosen > last.rejected); // margin accuracy 1
 * assert(last.third > last.chosen); // and another token in its place
 * ```
 */
export function trainHidden(loss: GeometryLoss, options: { lambda: number; steps: number }): GeometryPoint[] {
  const w = embeddings();
  const dot = (a: readonly number[], b: readonly number[]) =>
    a.reduce((total, value, at) => total + value * b[at], 0);
  // Both are likely there, and equally so.
  const h = [0, 1, 2, 3].map((at) => 2 * (w[0][at] + w[1][at]));
  const probabilities = () => softmax(w.map((row) => dot(row, h)));
  const margin = () => dot(w[0], h) - dot(w[1], h); // log p(chosen) - log p(rejected)
  const start = margin();
  const { beta, target } = loss === "dpo" ? { beta: 0.1, target: start } : { beta: 2, target: 0.5 };
  const point = (step: number): GeometryPoint => {
    const [chosen, rejected, third] = probabilities();
    return { step, chosen, rejected, third };
  };
  const points = [point(0)];
  for (let step = 1; step <= options.steps; step++) {
    const p = probabilities();
    const pull = beta / (1 + Math.exp(beta * (margin() - target)));
    for (let at = 0; at < h.length; at++) {
      const mean = w.reduce((total, row, token) => total + p[token] * row[at], 0);
      const [up, difference] = [w[0][at] - mean, w[0][at] - w[1][at]];
      h[at] += RATE * (pull * difference + options.lambda * up);
    }
    points.push(point(step));
  }
  return points;
}
