/**
 * An op of one's own: two WGSL kernels, how its gradient goes back, and the check that both are right.
 *
 *     deno run -R -W -E -S --allow-ffi --allow-run examples/custom_op.ts
 *
 * @module
 */
import {
  checkGradient,
  emptyLike,
  ensureAdapter,
  type Gpu,
  type GradientReport,
  type Kernel,
} from "../mod.ts";
import { openGpu, record, ShapeError, sizeOf, type Tensor } from "../mod.ts";

const WORKGROUP = 64;
/** Grids of more than 65,535 workgroups are folded into y. */
const ELEMENT = `
let i = (workgroup_id.y * num_workgroups.x + workgroup_id.x) * ${WORKGROUP}u + local_id.x;
if (i >= p.elements) { return; }`;

const reluGateForward: Kernel<Record<string, never>> = {
  name: "relu_gate_forward",
  doc:
    "y = max(0, gate)^2 up, element by element; same shapes. Saves nothing: the backward reads the inputs.",
  build: () => ({
    bindings: {
      gate: { type: "f32", access: "read" },
      up: { type: "f32", access: "read" },
      y: { type: "f32", access: "read_write" },
    },
    params: { elements: "u32" },
    workgroupSize: [WORKGROUP, 1],
    body: `${ELEMENT}
let g = max(0.0, gate[i]);
y[i] = g * g * up[i];`,
  }),
};

/** One member of this family for each input that a gradient is asked of. */
const reluGateBackward: Kernel<{ of: "gate" | "up" }> = {
  name: "relu_gate_backward",
  doc: "d_gate (+)= 2 max(0, gate) up d_y; d_up (+)= max(0, gate)^2 d_y.",
  build: ({ of }) => ({
    bindings: {
      gate: { type: "f32", access: "read" },
      up: { type: "f32", access: "read" },
      d_y: { type: "f32", access: "read" },
      d_x: { type: "f32", access: "read_write" },
    },
    params: { elements: "u32", accumulate: "u32" },
    workgroupSize: [WORKGROUP, 1],
    body: `${ELEMENT}
let g = max(0.0, gate[i]);
let slope = ${of === "gate" ? "2.0 * g * up[i]" : "g * g"};
d_x[i] = slope * d_y[i] + select(0.0, d_x[i], p.accumulate != 0u);`,
  }),
};

/**
 * y = max(0, gate)² up: a gated linear unit (arXiv 2002.05202) with a squared ReLU (arXiv 2109.08668) as its gate.
 *
 * @param gate any shape, f32
 * @param up the same shape
 * @returns the same shape
 */
export function reluGate(gate: Tensor, up: Tensor): Tensor {
  const { gpu, shape } = gate;
  if (shape.join() !== up.shape.join()) {
    throw new ShapeError(`Cannot run relu_gate: expected up of shape [${shape}], found [${up.shape}]`);
  }
  const elements = sizeOf(shape);
  const workgroups = Math.ceil(elements / WORKGROUP);
  const y = emptyLike(gate);
  const inputs = { gate: gate.range, up: up.range };
  gpu.dispatch(reluGateForward, {
    constants: {},
    bindings: { ...inputs, y: y.range },
    params: { elements },
    workgroups,
  });
  return record(gpu, {
    name: "relu_gate",
    inputs: [gate, up],
    output: y,
    backward: (dY, sink) => {
      for (const [of, input] of [["gate", gate], ["up", up]] as const) {
        const target = sink.into(input);
        if (!target) continue; // nobody wants this one's gradient
        gpu.dispatch(reluGateBackward, {
          constants: { of },
          bindings: { ...inputs, d_y: dY.range, d_x: target.tensor.range },
          params: { elements, accumulate: target.accumulate ? 1 : 0 },
          workgroups,
        });
      }
    },
  });
}

/** Holds the kernels against the op in f64, and the backward against central differences of that. */
export function checkReluGate(gpu: Gpu): Promise<GradientReport<"gate" | "up">> {
  const wave = (frequency: number) =>
    Float32Array.from({ length: 5 * 33 }, (_, i) => Math.sin(frequency * i + 1));
  return checkGradient(gpu, {
    inputs: { gate: { shape: [5, 33], values: wave(0.7) }, up: { shape: [5, 33], values: wave(1.3) } },
    run: ({ gate, up }) => reluGate(gate, up),
    reference: ({ gate, up }) => gate.map((g, i) => Math.max(0, g) ** 2 * up[i]),
    tolerance: 1e-6,
  });
}

if (import.meta.main) {
  await ensureAdapter();
  using gpu = await openGpu({ poison: true }); // what no kernel wrote shows as NaN
  const { output, gradients } = await checkReluGate(gpu);
  console.log("largest error of any element, as a share of the largest one:");
  console.log(
    `  y ${output.toExponential(1)}, d_gate ${gradients.gate.toExponential(1)}, d_up ${
      gradients.up.toExponential(1)
    }`,
  );
}
