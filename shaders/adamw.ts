/**
 * AdamW (arXiv 1711.05101), over a flat buffer of parameters.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { CLIP_STATE } from "./reduce.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup. */
export const ADAMW_WORKGROUP = 64;

/** One update. Bias corrections come from the host in f64: WGSL's pow is too poor for beta^t. */
export const adamw: Kernel<Record<string, never>> = {
  name: "adamw",
  doc: `g' = coefficient g; m = beta1 m + (1 - beta1) g'; v = beta2 v + (1 - beta2) g'^2;
    w = w (1 - lr decay) - step_size m / (sqrt(v) inverse_root_bias2 + eps), step_size = lr / (1 - beta1^t),
    inverse_root_bias2 = 1 / sqrt(1 - beta2^t); decay only for the first decay_quads quads.
    Nothing changes when state says that the gradient is not finite. An invocation owns four parameters.`,
  build: () => ({
    bindings: {
      gradient: input("vec4f"),
      state: input("f32"),
      weight: output("vec4f"),
      moment1: output("vec4f"),
      moment2: output("vec4f"),
    },
    params: {
      quads: "u32",
      decay_quads: "u32",
      decay_factor: "f32",
      step_size: "f32",
      beta1: "f32",
      beta2: "f32",
      one_minus_beta1: "f32",
      one_minus_beta2: "f32",
      inverse_root_bias2: "f32",
      eps: "f32",
    },
    workgroupSize: [ADAMW_WORKGROUP, 1],
    body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${ADAMW_WORKGROUP}u + local_id.x;
if (i >= p.quads || state[${CLIP_STATE.isFinite}] == 0.0) { return; }
let g = gradient[i] * state[${CLIP_STATE.coefficient}];
let m = moment1[i] * p.beta1 + g * p.one_minus_beta1;
let v = moment2[i] * p.beta2 + g * g * p.one_minus_beta2;
moment1[i] = m;
moment2[i] = v;
let kept = weight[i] * select(1.0, p.decay_factor, i < p.decay_quads);
weight[i] = kept - p.step_size * m / (sqrt(v) * p.inverse_root_bias2 + p.eps);`,
  }),
};
