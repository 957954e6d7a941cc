/**
 * What every kernel with an SPO penalty shares: the state on the GPU, phi, and how v* moves.
 * @module
 */
import { f32 } from "./wgsl.ts";

/** How the lower level's gap enters the upper level. */
export type PenaltyName = "none" | "linear" | "hinge" | "quadratic";

/** Weight of the past in v* "initial", the exponential mean of G over the first steps. */
export const V_STAR_DECAY = 0.9;

/** phi and phi' of the gap z. */
export const PENALTIES: Record<PenaltyName, string> = {
  none: "phi = 0.0; d_phi = 0.0;",
  linear: "phi = gap; d_phi = 1.0;",
  hinge: "phi = max(0.0, gap - p.epsilon); d_phi = select(0.0, 1.0, gap > p.epsilon);",
  quadratic: "let over = max(0.0, gap - p.epsilon); phi = 0.5 * over * over; d_phi = over;",
};

/**
 * Sets `gap` from `lower_level` once a step: v* is given, or an exponential mean of G over the first steps, which starts
 * with the first G.
 *
 * @param state indices of v* and of the steps so far
 */
export function vStarUpdate(state: { readonly vStar: number; readonly steps: number }): string {
  const { vStar, steps } = state;
  return `if (p.v_star_steps == 0.0) { state[${vStar}] = p.v_star; }
    else if (state[${steps}] == 0.0) { state[${vStar}] = lower_level; }
    else if (state[${steps}] < p.v_star_steps) {
      state[${vStar}] = ${f32(V_STAR_DECAY)} * state[${vStar}] + ${f32(1 - V_STAR_DECAY)} * lower_level;
    }
    state[${steps}] += 1.0;
    gap = lower_level - state[${vStar}];`;
}
