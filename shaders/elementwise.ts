/**
 * Kernels that treat every element alike: four at a time, in any shape. Buffers are padded to 16 bytes, so the last
 * quad may overhang.
 * @module
 */
import { input, type Kernel, type KernelSource } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { type OperandConstants, operands } from "./operand.ts";
import { storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup of every elementwise kernel. */
export const ELEMENTWISE_WORKGROUP = 64;

/** No constants: one pipeline for all shapes. */
export type NoConstants = Record<string, never>;

/** How an elementwise kernel sees its tensors, four elements at a time. */
export type ElementwiseConstants = Omit<OperandConstants, "width">;

/** What is added past the last element is zero: a parameter's gradient lies beside others, with zeros between. */
const INSIDE = `
fn inside(value: vec4f, i: u32) -> vec4f {
  return select(vec4f(0.0), value, i * 4u + vec4u(0u, 1u, 2u, 3u) < vec4u(p.elements));
}`;

const QUAD_INDEX = wgsl`
let i = (${LINEAR_WORKGROUP}) * ${ELEMENTWISE_WORKGROUP}u + local_id.x;
if (i * 4u >= p.elements) { return; }`;

/** The parts of an elementwise kernel that differ. */
interface ElementwiseParts {
  /** `statements` find quad `i` of each as `<name>_i`. */
  readonly inputs: readonly string[];
  /** `statements` declare what quad `i` of each becomes, as `<name>_i`. */
  readonly outputs: readonly string[];
  /** Outputs are gradients: `accumulate_<name>` says whether to add to what is there. */
  readonly areGradients?: boolean;
  readonly declarations?: string;
  readonly statements: string;
}

function elementwise(constants: ElementwiseConstants, parts: ElementwiseParts): KernelSource {
  const { inputs, outputs, areGradients = false } = parts;
  const quads = operands({ ...constants, width: 4 });
  const accumulates = areGradients ? outputs.map((name) => [`accumulate_${name}`, "u32"] as const) : [];
  const add = (name: string) =>
    `if (p.accumulate_${name} != 0u) { ${name}_i = ${quads.stored(name, "i")} + inside(${name}_i, i); }`;
  return {
    bindings: {
      ...Object.fromEntries(inputs.map((name) => [name, quads.input])),
      ...Object.fromEntries(outputs.map((name) => [name, quads.output])),
    },
    params: { elements: "u32", ...Object.fromEntries(accumulates) },
    workgroupSize: [ELEMENTWISE_WORKGROUP, 1],
    declarations: storageFunctions(constants.storage) + (areGradients ? INSIDE : "") +
      (parts.declarations ?? ""),
    body: [
      QUAD_INDEX,
      ...inputs.map((name) => `let ${name}_i = ${quads.load(name, "i")};`),
      parts.statements.trim(),
      ...(areGradients ? outputs.map(add) : []),
      ...outputs.map((name) => quads.store(name, "i", `${name}_i`)),
    ].join("\n"),
  };
}

/** A gradient may be stored otherwise than what it is added to: a parameter's is f32. */
export interface AccumulateConstants extends ElementwiseConstants {
  /** Of the total; `storage` is the part's. */
  readonly total: ElementwiseConstants["storage"];
}

/** total += part. */
export const accumulate: Kernel<AccumulateConstants> = {
  name: "accumulate",
  doc: "total += part, same shape.",
  build(constants) {
    const part = operands({ ...constants, width: 4 });
    const total = operands({ storage: constants.total, memory: "buffer", width: 4 });
    return {
      bindings: { part: part.input, total: total.output },
      params: { elements: "u32" },
      workgroupSize: [ELEMENTWISE_WORKGROUP, 1],
      declarations: storageFunctions(constants.storage, constants.total) + INSIDE,
      body: `${QUAD_INDEX}
${total.store("total", "i", `${total.stored("total", "i")} + inside(${part.load("part", "i")}, i)`)}`,
    };
  },
};

/** y = a + b. */
export const addForward: Kernel<ElementwiseConstants> = {
  name: "add_forward",
  doc: "y = a + b, same shape. The gradient is handed on as it is.",
  build: (constants) =>
    elementwise(constants, { inputs: ["a", "b"], outputs: ["y"], statements: "let y_i = a_i + b_i;" }),
};

/** The logistic function without overflow: e^-|x| only. */
export const SIGMOID4 = `
fn sigmoid4(x: vec4f) -> vec4f {
  let e = exp(-abs(x));
  return select(e, vec4f(1.0), x >= vec4f(0.0)) / (1.0 + e);
}`;

/** An activation function: x sigmoid(z(x)). */
export type ActivationKind = "silu" | "gelu_tanh";

// gelu_tanh: x (1 + tanh u) / 2 = x sigmoid(2 u), so the built-in tanh, off by 8e-4 near 0 on one adapter, is not needed.
// Past 20 the sigmoid is 0 or 1 and its cube would overflow.
const ACTIVATION_ARGUMENT: Record<ActivationKind, string> = {
  silu: `
fn argument(x: vec4f) -> vec4f { return x; }
fn argument_slope(x: vec4f) -> vec4f { return vec4f(1.0); }`,
  gelu_tanh: `
fn argument(x: vec4f) -> vec4f {
  let c = clamp(x, vec4f(-20.0), vec4f(20.0));
  return 1.5957691216 * c * (1.0 + 0.044715 * c * c);
}
fn argument_slope(x: vec4f) -> vec4f {
  let c = clamp(x, vec4f(-20.0), vec4f(20.0));
  return 1.5957691216 * (1.0 + 0.134145 * c * c);
}`,
};

/** What the activation kernels are specialised on. */
export interface ActivationConstants extends ElementwiseConstants {
  /** Which function. */
  readonly kind: ActivationKind;
  /** Whether a bias is added, and whether its length divides by four. */
  readonly bias: "none" | "elements" | "quads";
}

function activation(constants: ActivationConstants, parts: ElementwiseParts): KernelSource {
  const { kind, bias } = constants;
  const source = elementwise(constants, {
    ...parts,
    declarations: SIGMOID4 + ACTIVATION_ARGUMENT[kind] + BIAS_AT[bias],
  });
  if (bias === "none") return source;
  return {
    ...source,
    bindings: { bias: input(bias === "quads" ? "vec4f" : "f32"), ...source.bindings },
    params: { columns: "u32", ...source.params },
  };
}

/** `biased(x, i)`: the quad `i` of the rows x with the bias added. */
const BIAS_AT: Record<ActivationConstants["bias"], string> = {
  none: `
fn biased(x: vec4f, i: u32) -> vec4f { return x; }`,
  quads: `
fn biased(x: vec4f, i: u32) -> vec4f { return x + bias[i % (p.columns / 4u)]; }`,
  elements: `
fn biased(x: vec4f, i: u32) -> vec4f {
  let c = (i * 4u + vec4u(0u, 1u, 2u, 3u)) % vec4u(p.columns);
  return x + vec4f(bias[c.x], bias[c.y], bias[c.z], bias[c.w]);
}`,
};

/** y = act(x + bias). */
export const activationForward: Kernel<ActivationConstants> = {
  name: "activation_forward",
  doc:
    `y = v sigmoid(z(v)), v = x + bias. silu: z = v (arXiv 1702.03118); gelu_tanh: z = 2 sqrt(2 / pi) (v + 0.044715 v^3)
    (arXiv 1606.08415). x, y [N, C] or any shape; bias [C]. Saves nothing: the backward reads x and the bias.`,
  build: (constants) =>
    activation(constants, {
      inputs: ["x"],
      outputs: ["y"],
      statements: `
let v = biased(x_i, i);
let y_i = v * sigmoid4(argument(v));`,
    }),
};

/** dX (+)= dY act'(x + bias). */
export const activationBackward: Kernel<ActivationConstants> = {
  name: "activation_backward",
  doc: `y = v s, v = x + bias, s = sigmoid(z(v)): dx (+)= dy s (1 + v (1 - s) z'(v)).`,
  build: (constants) =>
    activation(constants, {
      inputs: ["x", "d_y"],
      outputs: ["d_x"],
      areGradients: true,
      statements: `
let v = biased(x_i, i);
let s = sigmoid4(argument(v));
var d_x_i = d_y_i * s * (1.0 + v * (1.0 - s) * argument_slope(v));`,
    }),
};
