/**
 * The gated activation of an MLP whose gate and up projections lie side by side, as one product leaves them.
 * @module
 */
import { SIGMOID4 } from "./elementwise.ts";
import type { Kernel, KernelSource } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { type OperandConstants, operands } from "./operand.ts";
import { storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup of both kernels. */
export const SWIGLU_WORKGROUP = 64;

/** Finds element (or quad) `i` of y, and where its gate and its up are: `at` and `at + count`. */
function swiglu(
  constants: OperandConstants,
  source: Pick<KernelSource, "bindings"> & { params?: KernelSource["params"]; statements: string },
): KernelSource {
  return {
    bindings: source.bindings,
    params: { rows: "u32", columns: "u32", ...source.params },
    workgroupSize: [SWIGLU_WORKGROUP, 1],
    declarations: storageFunctions(constants.storage) + SIGMOID4,
    body: wgsl`
let count = p.columns / ${constants.width}u;
let i = (${LINEAR_WORKGROUP}) * ${SWIGLU_WORKGROUP}u + local_id.x;
if (i >= p.rows * count) { return; }
let at = i + i / count * count;
${source.statements}`,
  };
}

/** y = silu(gate) up. */
export const swigluForward: Kernel<OperandConstants> = {
  name: "swiglu_forward",
  doc:
    `y[m, f] = g sigmoid(g) u, g = gate_up[m, f], u = gate_up[m, F + f] (arXiv 2002.05202). gate_up [M, 2 F]; y [M, F].
    An invocation owns an element (or four) of y. Saves nothing: the backward reads gate_up.`,
  build(constants) {
    const { input, output, load, store } = widened(constants);
    return swiglu(constants, {
      bindings: { gate_up: input, y: output },
      statements: `
let g = ${load("gate_up", "at")};
let u = ${load("gate_up", "at + count")};
${store("y", "i", "g * sigmoid4(g) * u")}`,
    });
  },
};

/** dGateUp (+)= its parts of dY. */
export const swigluBackward: Kernel<OperandConstants> = {
  name: "swiglu_backward",
  doc:
    `y = g s u, s = sigmoid(g): d_gate_up[m, f] (+)= dy u s (1 + g (1 - s)), d_gate_up[m, F + f] (+)= dy g s.
    gate_up, d_gate_up [M, 2 F]; d_y [M, F]. An invocation owns an element (or four) of d_y.`,
  build(constants) {
    const { input, output, load, stored, store } = widened(constants);
    return swiglu(constants, {
      bindings: { gate_up: input, d_y: input, d_gate_up: output },
      params: { accumulate: "u32" },
      statements: `
let g = ${load("gate_up", "at")};
let u = ${load("gate_up", "at + count")};
let d = ${load("d_y", "i")};
let s = sigmoid4(g);
var d_gate = d * u * s * (1.0 + g * (1.0 - s));
var d_up = d * g * s;
if (p.accumulate != 0u) {
  d_gate += ${stored("d_gate_up", "at")};
  d_up += ${stored("d_gate_up", "at + count")};
}
${store("d_gate_up", "at", "d_gate")}
${store("d_gate_up", "at + count", "d_up")}`,
    });
  },
};

/** Operands whose loads are quads at any width: single elements fill one. */
function widened(constants: OperandConstants) {
  const plain = operands(constants);
  if (constants.width === 4) return plain;
  return {
    ...plain,
    load: (name: string, index: string) => `vec4f(${plain.load(name, index)})`,
    stored: (name: string, index: string) => `vec4f(${plain.stored(name, index)})`,
    store: (name: string, index: string, value: string) => plain.store(name, index, `(${value}).x`),
  };
}
