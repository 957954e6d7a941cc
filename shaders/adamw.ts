/**
 * AdamW (arXiv 1711.05101), over a flat buffer of parameters.
 * @module
 */
import { input, type Kernel, output, type StorageBinding } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { CLIP_STATE } from "./reduce.ts";
import { packQuad, quadType, storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup. */
export const ADAMW_WORKGROUP = 64;

/** What the update's pipeline is specialised on. */
export interface AdamwConstants {
  /** Also writes the new weights as f16, for the kernels of the next step. */
  readonly copy: boolean;
}

/** `one_minus_power(log_beta, t)` = 1 - beta^t; WGSL's pow is too poor for it. */
const ONE_MINUS_POWER = `
fn one_minus_power(log_beta: f32, t: f32) -> f32 {
  let x = -t * log_beta;
  // 1 - e^-x by its series where the difference would cancel.
  let series = x * (1.0 - x / 2.0 * (1.0 - x / 3.0 * (1.0 - x / 4.0 * (1.0 - x / 5.0 * (1.0 - x / 6.0 * (1.0 - x / 7.0 * (1.0 - x / 8.0)))))));
  return select(1.0 - exp(-x), series, x < 0.5);
}`;

/** One update. */
export const adamw: Kernel<AdamwConstants> = {
  name: "adamw",
  doc: `g' = coefficient g; m = beta1 m + (1 - beta1) g'; v = beta2 v + (1 - beta2) g'^2;
    w = w (1 - lr decay) - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps), t = step less the skipped ones;
    decay only for the first decay_quads quads. copy receives w as f16, where there is one.
    Nothing changes when state says that the gradient is not finite. An invocation owns four parameters.`,
  build({ copy }) {
    const copied: Record<string, StorageBinding> = copy ? { copy: output(quadType("f16")) } : {};
    return {
      bindings: {
        gradient: input("vec4f"),
        state: input("f32"),
        weight: output("vec4f"),
        moment1: output("vec4f"),
        moment2: output("vec4f"),
        ...copied,
      },
      params: {
        quads: "u32",
        decay_quads: "u32",
        decay_factor: "f32",
        learning_rate: "f32",
        step: "f32",
        beta1: "f32",
        beta2: "f32",
        one_minus_beta1: "f32",
        one_minus_beta2: "f32",
        log_beta1: "f32",
        log_beta2: "f32",
        eps: "f32",
      },
      workgroupSize: [ADAMW_WORKGROUP, 1],
      declarations: ONE_MINUS_POWER + (copy ? storageFunctions("f16") : ""),
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${ADAMW_WORKGROUP}u + local_id.x;
if (i >= p.quads || state[${CLIP_STATE.isFinite}] == 0.0) { return; }
let t = p.step - state[${CLIP_STATE.skipped}];
let step_size = p.learning_rate / one_minus_power(p.log_beta1, t);
let inverse_root_bias2 = 1.0 / sqrt(one_minus_power(p.log_beta2, t));
let g = gradient[i] * state[${CLIP_STATE.coefficient}];
let m = moment1[i] * p.beta1 + g * p.one_minus_beta1;
let v = moment2[i] * p.beta2 + g * g * p.one_minus_beta2;
moment1[i] = m;
moment2[i] = v;
let kept = weight[i] * select(1.0, p.decay_factor, i < p.decay_quads);
let w = kept - step_size * m / (sqrt(v) * inverse_root_bias2 + p.eps);
weight[i] = w;
#if ${copy}
copy[i] = ${packQuad("f16", "w")};
#endif`,
    };
  },
};
