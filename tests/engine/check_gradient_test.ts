import assert from "node:assert/strict";
import {
  activation,
  add,
  checkGradient,
  emptyLike,
  type Gpu,
  GradientError,
  type GradientTarget,
  type Kernel,
  noGrad,
  record,
  ShapeError,
  sizeOf,
  type Tensor,
} from "../../mod.ts";
import { gpuTest } from "../gpu.ts";

/** target = x dY, with whatever fault a test gives it. */
const productBackward: Kernel<{ start: string; slope: string; condition: string }> = {
  name: "product_backward_of_test",
  doc: "The gradient of an elementwise product.",
  build: ({ start, slope, condition }) => ({
    bindings: {
      x: { type: "f32", access: "read" },
      d_y: { type: "f32", access: "read" },
      d_x: { type: "f32", access: "read_write" },
    },
    params: { elements: "u32", accumulate: "u32" },
    workgroupSize: [64, 1],
    body: `
let i = local_id.x;
if (i >= p.elements || !(${condition})) { return; }
d_x[i] = ${start} + ${slope} * d_y[i];`,
  }),
};

const productForward: Kernel<Record<string, never>> = {
  name: "product_forward_of_test",
  doc: "y = a b.",
  build: () => ({
    bindings: {
      a: { type: "f32", access: "read" },
      b: { type: "f32", access: "read" },
      y: { type: "f32", access: "read_write" },
    },
    params: { elements: "u32" },
    workgroupSize: [64, 1],
    body: "if (local_id.x < p.elements) { y[local_id.x] = a[local_id.x] * b[local_id.x]; }",
  }),
};

interface Fault {
  readonly start?: string;
  readonly slope?: string;
  readonly condition?: string;
  /** What stands for a gradient that nobody wants. */
  readonly ignoresNull?: boolean;
}

function product(a: Tensor, b: Tensor, fault: Fault): Tensor {
  const { gpu, shape } = a;
  const elements = sizeOf(shape);
  const { start = "select(0.0, d_x[i], p.accumulate != 0u)", slope = "x[i]", condition = "true" } = fault;
  const y = emptyLike(a);
  const bindings = { a: a.range, b: b.range, y: y.range };
  gpu.dispatch(productForward, { constants: {}, bindings, params: { elements }, workgroups: 1 });
  const backward = (other: Tensor, dY: Tensor, target: GradientTarget | null) => {
    if (!target && !fault.ignoresNull) return;
    gpu.dispatch(productBackward, {
      constants: { start, slope, condition },
      bindings: { x: other.range, d_y: dY.range, d_x: target!.tensor.range },
      params: { elements, accumulate: target!.accumulate ? 1 : 0 },
      workgroups: 1,
    });
  };
  return record(gpu, {
    name: "product",
    inputs: [a, b],
    output: y,
    backward: (dY, sink) => {
      backward(b, dY, sink.into(a));
      backward(a, dY, sink.into(b));
    },
  });
}

function checkProduct(gpu: Gpu, fault: Fault = {}) {
  const values = (frequency: number) =>
    Float32Array.from({ length: 15 }, (_, i) => Math.sin(frequency * i + 1));
  return checkGradient(gpu, {
    inputs: { a: { shape: [3, 5], values: values(1.1) }, b: { shape: [3, 5], values: values(0.7) } },
    run: ({ a, b }) => product(a, b, fault),
    reference: ({ a, b }) => a.map((value, i) => value * b[i]),
  });
}

gpuTest("checkGradient: a right op passes, with errors of rounding", async (gpu) => {
  const { output, gradients } = await checkProduct(gpu);
  for (const error of [output, gradients.a, gradients.b]) assert.ok(error > 0 && error < 1e-6, `${error}`);
});

for (
  const [what, fault, message] of [
    ["a slope off by a thousandth", { slope: "1.001 * x[i]" }, /gradient of a, written/],
    [
      "an element that is not written",
      { condition: "i != 14u" },
      /gradient of a, written.* \[14\], found NaN/,
    ],
    ["a gradient that is overwritten", { start: "0.0" }, /gradient of a, added to one that is there/],
    ["a gradient that is always added to", { start: "d_x[i]" }, /gradient of a, written.*found NaN/],
  ] as const
) {
  gpuTest(`checkGradient finds ${what}`, async (gpu) => {
    await assert.rejects(checkProduct(gpu, fault), (error) => {
      assert.ok(error instanceof GradientError);
      assert.match(error.message, message);
      return true;
    });
  });
}

gpuTest("checkGradient finds an op that cannot do without an input's gradient", async (gpu) => {
  await assert.rejects(checkProduct(gpu, { ignoresNull: true }), TypeError);
});

const one = { x: { shape: [2], values: Float32Array.of(1, 2) } };

gpuTest("checkGradient finds wrong values, and a gradient that is not sent at all", async (gpu) => {
  const twice = { inputs: one, reference: ({ x }: { x: Float64Array }) => x.map((value) => 2 * value) };
  await checkGradient(gpu, { ...twice, run: ({ x }) => add(x, x) });
  await assert.rejects(
    checkGradient(gpu, { ...twice, run: ({ x }) => activation(x, { kind: "silu" }) }),
    /output/,
  );
  const lost = ({ x }: { x: Tensor }) =>
    record(gpu, { name: "lost", inputs: [x], output: noGrad(gpu, () => add(x, x)), backward: () => {} });
  await assert.rejects(
    checkGradient(gpu, { ...twice, run: lost }),
    /gradient of x, written: expected 2.* found 0/,
  );
});

gpuTest("checkGradient refuses a reference of another length", async (gpu) => {
  const check = { inputs: one, run: ({ x }: { x: Tensor }) => add(x, x), reference: () => [1, 2, 3] };
  await assert.rejects(checkGradient(gpu, check), ShapeError);
});
