/**
 * Kernels that treat every element alike: four at a time, in any shape. Buffers are padded to 16 bytes, so the last
 * quad may overhang.
 * @module
 */
import { input, type Kernel, output, type StorageBinding } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup of every elementwise kernel. */
export const ELEMENTWISE_WORKGROUP = 64;

/** No constants: one pipeline for all shapes. */
export type NoConstants = Record<string, never>;

/** Describes an elementwise kernel; `statements` see the quad's index `i`. */
function elementwise(
  name: string,
  options: {
    doc: string;
    bindings: Record<string, StorageBinding>;
    params?: Record<string, "u32" | "f32">;
    declarations?: string;
    statements: string;
  },
): Kernel<NoConstants> {
  return {
    name,
    doc: options.doc,
    build: () => ({
      bindings: options.bindings,
      params: { elements: "u32", ...options.params },
      workgroupSize: [ELEMENTWISE_WORKGROUP, 1],
      declarations: INSIDE + (options.declarations ?? ""),
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${ELEMENTWISE_WORKGROUP}u + local_id.x;
if (i * 4u >= p.elements) { return; }
${options.statements}`,
    }),
  };
}

/** What is added past the last element is zero: a parameter's gradient lies beside others, with zeros between. */
const INSIDE = `
fn inside(value: vec4f, i: u32) -> vec4f {
  return select(vec4f(0.0), value, i * 4u + vec4u(0u, 1u, 2u, 3u) < vec4u(p.elements));
}`;

/** Four values in, four out. */
const quadIn = input("vec4f");
const quadOut = output("vec4f");

/** total += part. */
export const accumulate = elementwise("accumulate", {
  doc: "total += part, same shape.",
  bindings: { part: quadIn, total: quadOut },
  statements: "total[i] += inside(part[i], i);",
});

/** y = a + b. */
export const addForward = elementwise("add_forward", {
  doc: "y = a + b, same shape. The gradient is handed on as it is.",
  bindings: { a: quadIn, b: quadIn, y: quadOut },
  statements: "y[i] = a[i] + b[i];",
});

/** The logistic function without overflow: e^-|x| only. */
export const SIGMOID4 = `
fn sigmoid4(x: vec4f) -> vec4f {
  let e = exp(-abs(x));
  return select(e, vec4f(1.0), x >= vec4f(0.0)) / (1.0 + e);
}`;

/** y = x sigmoid(x). */
export const siluForward = elementwise("silu_forward", {
  doc: "y = x sigmoid(x). Saves nothing: the backward reads x.",
  bindings: { x: quadIn, y: quadOut },
  declarations: SIGMOID4,
  statements: "y[i] = x[i] * sigmoid4(x[i]);",
});

/** dX (+)= dY d silu(x)/dx. */
export const siluBackward = elementwise("silu_backward", {
  doc: "y = x s, s = sigmoid(x): dx (+)= dy s (1 + x (1 - s)).",
  bindings: { x: quadIn, d_y: quadIn, d_x: quadOut },
  params: { accumulate: "u32" },
  declarations: SIGMOID4,
  statements: `
let s = sigmoid4(x[i]);
var value = d_y[i] * s * (1.0 + x[i] * (1.0 - s));
if (p.accumulate != 0u) { value = d_x[i] + inside(value, i); }
d_x[i] = value;`,
});

/** y = silu(gate) up. */
export const swigluForward = elementwise("swiglu_forward", {
  doc: "y = gate sigmoid(gate) up (arXiv 2002.05202). Saves nothing: the backward reads gate and up.",
  bindings: { gate: quadIn, up: quadIn, y: quadOut },
  declarations: SIGMOID4,
  statements: "y[i] = gate[i] * sigmoid4(gate[i]) * up[i];",
});

/** dGate, dUp (+)= their parts of dY. */
export const swigluBackward = elementwise("swiglu_backward", {
  doc: `y = g s u, g = gate, u = up, s = sigmoid(g):
    d_gate (+)= dy u s (1 + g (1 - s)); d_up (+)= dy g s.`,
  bindings: { gate: quadIn, up: quadIn, d_y: quadIn, d_gate: quadOut, d_up: quadOut },
  params: { accumulate_gate: "u32", accumulate_up: "u32" },
  declarations: SIGMOID4,
  statements: `
let g = gate[i];
let s = sigmoid4(g);
var for_gate = d_y[i] * up[i] * s * (1.0 + g * (1.0 - s));
var for_up = d_y[i] * g * s;
if (p.accumulate_gate != 0u) { for_gate = d_gate[i] + inside(for_gate, i); }
if (p.accumulate_up != 0u) { for_up = d_up[i] + inside(for_up, i); }
d_gate[i] = for_gate;
d_up[i] = for_up;`,
});
