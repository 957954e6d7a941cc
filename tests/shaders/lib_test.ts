/** Functions of shaders/lib.ts on the GPU, against f64. */
import assert from "node:assert/strict";
import { input, type Kernel, output } from "../../shaders/kernel.ts";
import { IS_FINITE, LINEAR_WORKGROUP, LOG1M_EXP, LOG_F32, LOG_SIGMOID } from "../../shaders/lib.ts";
import { f32, wgsl } from "../../shaders/wgsl.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { empty, release, toHost, upload } from "../../engine/tensor.ts";
import { gpuTest } from "../gpu.ts";
import { logSigmoid, sigmoid } from "../reference/log_sigmoid.ts";

/** y[i] = f(x[i]) for a WGSL expression of x. */
const apply: Kernel<{ expression: string }> = {
  name: "apply",
  doc: "y[i] = f(x[i]), one element an invocation.",
  build: ({ expression }) => ({
    bindings: { values: input("f32"), y: output("f32") },
    params: { length: "u32" },
    workgroupSize: [64, 1],
    declarations: LOG_F32 + LOG_SIGMOID + LOG1M_EXP + IS_FINITE,
    body: wgsl`
let i = (${LINEAR_WORKGROUP}) * 64u + local_id.x;
if (i >= p.length) { return; }
let x = values[i];
y[i] = ${expression};`,
  }),
};

async function applied(
  gpu: Gpu,
  expression: string,
  values: Float32Array<ArrayBuffer>,
): Promise<Float32Array> {
  const y = empty(gpu, [values.length], { owner: "caller" });
  gpu.dispatch(apply, {
    constants: { expression },
    bindings: { values: upload(gpu, values).range, y: y.range },
    params: { length: values.length },
    workgroups: Math.ceil(values.length / 64),
  });
  const found = await toHost(y);
  release(y);
  return found;
}

/** `count` numbers evenly spread over [low, high]. */
function spread(low: number, high: number, count = 20_000): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, i) => low + (high - low) * i / (count - 1));
}

/** e^x for x evenly spread: numbers of every magnitude. */
function magnitudes(low: number, high: number): Float32Array<ArrayBuffer> {
  return spread(low, high).map(Math.exp);
}

interface Accuracy {
  expression: string;
  f64: (x: number) => number;
  values: Float32Array<ArrayBuffer>;
  range: string;
  /** Largest |found - expected| / |expected| allowed. */
  relative: number;
}

// Measured on llvmpipe: log_f32 1.6e-7, 1.9e-7, 1.2e-7; log1p_exp and log_sigmoid 1.1e-6 and 3.5e-6; sigmoid 1.1e-6 and
// 3.5e-6. All but the first come from exp, to which WGSL allows 3 + 2 |x| steps of 6e-8, 1e-5 at -87.
const CASES: Accuracy[] = [
  {
    expression: "expm1_f32(-x)",
    f64: (x) => Math.expm1(-x),
    values: magnitudes(-40, 4.4),
    range: "[-81, -4e-18]",
    relative: 1e-6,
  },
  {
    // Its larger form near 0, its smaller one far out.
    expression: "log1mexp(-x, 1e-30)",
    f64: (x) => x > Math.LN2 ? Math.log1p(-Math.exp(-x)) : Math.log(-Math.expm1(-x)),
    values: magnitudes(-40, 4.4),
    range: "[-81, -4e-18]",
    relative: 2e-5,
  },
  {
    expression: "log_f32(x)",
    f64: Math.log,
    values: magnitudes(-87, 88),
    range: "all normal numbers",
    relative: 3e-7,
  },
  { expression: "log_f32(x)", f64: Math.log, values: spread(0.5, 2), range: "[0.5, 2]", relative: 3e-7 },
  {
    expression: "log_f32(x)",
    f64: Math.log,
    values: spread(0.9999, 1.0001),
    range: "near 1",
    relative: 3e-7,
  },
  { expression: "log1p_exp(x)", f64: log1pExp, values: spread(-20, 20), range: "[-20, 20]", relative: 3e-6 },
  {
    expression: "log1p_exp(x)",
    f64: log1pExp,
    values: spread(-87, 1e4),
    range: "[-87, 1e4]",
    relative: 2e-5,
  },
  {
    expression: "log_sigmoid(x)",
    f64: logSigmoid,
    values: spread(-20, 20),
    range: "[-20, 20]",
    relative: 3e-6,
  },
  {
    expression: "log_sigmoid(x)",
    f64: logSigmoid,
    values: spread(-1e4, 87),
    range: "[-1e4, 87]",
    relative: 2e-5,
  },
  { expression: "sigmoid(x)", f64: sigmoid, values: spread(-20, 20), range: "[-20, 20]", relative: 3e-6 },
  { expression: "sigmoid(x)", f64: sigmoid, values: spread(-87, 1e4), range: "[-87, 1e4]", relative: 2e-5 },
];

function log1pExp(x: number): number {
  return -logSigmoid(-x);
}

for (const { expression, f64, values, range, relative } of CASES) {
  gpuTest(`${expression} over ${range}: relative error below ${relative}`, async (gpu) => {
    const found = await applied(gpu, expression, values);
    let worst = 0;
    let at = 0;
    found.forEach((y, i) => {
      const expected = f64(values[i]);
      if (y === expected) return;
      const error = Math.abs(y - expected) / Math.abs(expected);
      // Written so that NaN is the worst.
      if (!(error <= worst)) [worst, at] = [error, i];
    });
    assert.ok(worst < relative, `error ${worst} at ${values[at]}: ${found[at]}, expected ${f64(values[at])}`);
  });
}

gpuTest("log_sigmoid and sigmoid far out are their limits", async (gpu) => {
  const values = Float32Array.of(-1e30, -1e6, -200, 200, 1e6, 1e30);
  const logs = await applied(gpu, "log_sigmoid(x)", values);
  assert.deepEqual([...logs.subarray(0, 3)], [...values.subarray(0, 3)]);
  for (const value of logs.subarray(3)) assert.ok(value === 0);
  assert.deepEqual([...await applied(gpu, "sigmoid(x)", values)], [0, 0, 0, 1, 1, 1]);
});

gpuTest("is_finite tells NaN and infinities, whatever their sign, from numbers", async (gpu) => {
  const values = Float32Array.of(NaN, Infinity, -Infinity, 3.4e38, -3.4e38, 0, 1e-40, 1);
  const found = await applied(gpu, "select(0.0, 1.0, is_finite(x))", values);
  assert.deepEqual([...found], [0, 0, 0, 1, 1, 1, 1, 1]);
});

gpuTest("f32 literals arrive as they were", async (gpu) => {
  for (const value of [1, 1e-5, -0.1, 1e20, 3e38, 1e-38, 16777217]) {
    assert.deepEqual([...await applied(gpu, f32(value), Float32Array.of(0))], [Math.fround(value)]);
  }
});
