/**
 * f-divergences between policy and reference, whose derivative takes the place of the log-ratio in a preference loss.
 * @module
 */

/** f of the f-divergence that the reward belongs to; reverse KL is plain DPO. */
export type DivergenceName = "reverse_kl" | "forward_kl" | "js_divergence" | "alpha_divergence";

/** Exponents of f-divergences, AlphaPO and DiscoPOP are cut off here: squares of e^40 are still finite in f32. */
export const LARGEST_EXPONENT = 40;

/**
 * u of the log-ratio x and its slope: f' of the divergence at the ratio e^x, 0 where policy and reference agree. arXiv
 * 2309.16240. Exponents are cut off, their slope with them.
 */
export const DIVERGENCES: Record<DivergenceName, string> = {
  reverse_kl: "fn u(x: f32, alpha: f32) -> vec2f { return vec2f(x, 1.0); }",
  forward_kl: `
fn u(x: f32, alpha: f32) -> vec2f {
  let t = min(-x, ${LARGEST_EXPONENT}.0);
  return vec2f(-expm1_f32(t), select(exp(t), 0.0, -x > ${LARGEST_EXPONENT}.0));
}`,
  js_divergence:
    "fn u(x: f32, alpha: f32) -> vec2f { return vec2f(0.693147181 + log_sigmoid(x), sigmoid(-x)); }",
  alpha_divergence: `
fn u(x: f32, alpha: f32) -> vec2f {
  let t = min((alpha - 1.0) * x, ${LARGEST_EXPONENT}.0);
  return vec2f(expm1_f32(t) / (alpha - 1.0), select(exp(t), 0.0, (alpha - 1.0) * x > ${LARGEST_EXPONENT}.0));
}`,
};
