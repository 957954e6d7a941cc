/**
 * Linear combinations of flat buffers: inner steps of a bilevel problem, and differences of gradients.
 * @module
 */
import { input, type Kernel, output, type ParameterType, type StorageBinding } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { CLIP_STATE } from "./reduce.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup. */
export const AXPBY_WORKGROUP = 64;

/** What the combination's pipeline is specialised on. */
export interface AxpbyConstants {
  /** What `a` is multiplied by: nothing, the norm that the GPU knows, or its inverse. */
  readonly times: "one" | "norm" | "inverse norm";
}

const FACTOR: Record<AxpbyConstants["times"], string> = {
  one: "1.0",
  norm: `state[${CLIP_STATE.norm}]`,
  // A direction of no length goes nowhere.
  "inverse norm": `select(0.0, 1.0 / state[${CLIP_STATE.norm}], state[${CLIP_STATE.norm}] > 0.0)`,
};

/** y = a x + b y. */
export const axpby: Kernel<AxpbyConstants> = {
  name: "axpby",
  doc:
    `y = a f x + b y; f = 1, the norm in state, or its inverse (0 where it is 0). b = 0 does not read y's values.
    x, y [4 quads]. An invocation owns four elements.`,
  build({ times }) {
    const state: Record<string, StorageBinding> = times === "one" ? {} : { state: input("f32") };
    const params: Record<string, ParameterType> = { quads: "u32", a: "f32", b: "f32" };
    return {
      bindings: { x: input("vec4f"), ...state, y: output("vec4f") },
      params,
      workgroupSize: [AXPBY_WORKGROUP, 1],
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${AXPBY_WORKGROUP}u + local_id.x;
if (i >= p.quads) { return; }
let added = p.a * (${FACTOR[times]}) * x[i];
if (p.b == 0.0) { y[i] = added; } else { y[i] = added + p.b * y[i]; }`,
    };
  },
};
