import assert from "node:assert/strict";
import { loraLinear } from "../../engine/ops/lora_linear.ts";
import { ShapeError } from "../../engine/shape.ts";
import { upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/lora_linear.ts";
import { checkOp, type OpCheck } from "./check_op.ts";

type Dims = reference.LoraLinearDims;

/** The op on its own: the second factors are separate inputs there. */
function loraCheck(dims: Dims, form: "joined" | "separate", type: "f32" | "f16" = "f32"): OpCheck {
  const { N, C, O, R, modules, scale, isInOut = false } = dims;
  const factors = modules.map(([first, end], g) => [`b${g}`, { shape: [end - first, R] }] as const);
  const shape = isInOut ? [C, O] : [O, C];
  const joined = (inputs: Record<string, Float64Array>): reference.LoraLinearInputs => ({
    ...(inputs as unknown as reference.LoraLinearInputs),
    b: Float64Array.from(factors.flatMap(([name]) => [...inputs[name]])),
  });
  return {
    op: `loraLinear ${N}x${C}x${O}`,
    inputs: {
      x: { shape: [N, C], type },
      weight: { shape, scale: C ** -0.5, type },
      a: { shape: [modules.length * R, C], scale: C ** -0.5 },
      ...Object.fromEntries(factors),
      bias: { shape: [O] },
      residual: { shape: [N, O], type },
    },
    outputType: type,
    run: ({ x, weight, a, bias, residual, ...b }) =>
      loraLinear(x, weight, {
        kind: isInOut ? "NN" : "NT",
        parts: modules.map(([first], g) => ({ first, b: b[`b${g}`] })),
        ...{ a, bias, residual, scale, form },
      }),
    reference: (inputs) => ({
      output: reference.forward(joined(inputs), dims).y,
      backward: (dY) => {
        const { dB, ...gradients } = reference.backward(joined(inputs), dims, { dY });
        let row = 0;
        const second = modules.map(([first, end], g) => {
          const part = dB.slice(row * R, (row + end - first) * R);
          row += end - first;
          return [`b${g}`, part];
        });
        return {
          ...{ x: gradients.dX, weight: gradients.dWeight, a: gradients.dA },
          ...{ bias: gradients.dBias, residual: gradients.dResidual },
          ...Object.fromEntries(second),
        };
      },
    }),
    // Sums of up to 257 products, of factors that are sums themselves.
    atol: 1e-4,
    // Roundings of the result, of its two parts, and of gradients where they meet.
    ...(type === "f16" ? { atol: 3e-2, rtol: 2 ** -8 } : {}),
  };
}

const WHOLE: Dims = { N: 17, C: 63, O: 65, R: 3, modules: [[0, 65]], scale: 0.7 };

for (
  const [name, dims] of Object.entries<Dims>({
    "one module": WHOLE,
    "one element": { N: 1, C: 1, O: 1, R: 1, modules: [[0, 1]], scale: 2 },
    "one module, Conv1D": { ...WHOLE, isInOut: true },
    "rows that divide by four": { N: 64, C: 64, O: 64, R: 8, modules: [[0, 64]], scale: 2 },
    "three modules": { N: 63, C: 20, O: 36, R: 8, modules: [[0, 20], [20, 28], [28, 36]], scale: 2 },
    "two of three modules": { N: 5, C: 17, O: 257, R: 5, modules: [[0, 63], [128, 257]], scale: 0.5 },
    "one of three modules": { N: 65, C: 8, O: 24, R: 4, modules: [[8, 16]], scale: 1 },
  })
) {
  for (const form of ["joined", "separate"] as const) {
    gpuTest(`loraLinear, ${form}: ${name}`, (gpu) => checkOp(gpu, loraCheck(dims, form)), {
      layouts: LAYOUTS,
    });
  }
}

gpuTest("loraLinear in f16, factors in f32", async (gpu) => {
  await checkOp(
    gpu,
    loraCheck({ N: 12, C: 20, O: 36, R: 4, modules: [[0, 20], [28, 36]], scale: 2 }, "joined", "f16"),
  );
}, { layouts: LAYOUTS });

gpuTest("loraLinear refuses factors that do not fit", (gpu) => {
  const matrix = (...shape: number[]) => upload(gpu, new Float32Array(shape[0] * shape[1]), { shape });
  const [x, weight] = [matrix(2, 8), matrix(12, 8)];
  const refuses = (
    options: Partial<Parameters<typeof loraLinear>[2]>,
    message: string,
    input = x,
  ) =>
    assert.throws(
      () =>
        loraLinear(input, weight, {
          ...{ kind: "NT", a: matrix(4, 8), parts: [{ first: 0, b: matrix(12, 4) }], scale: 1, ...options },
        }),
      new ShapeError(`Cannot run lora_linear: expected ${message}`),
    );
  refuses({ a: matrix(4, 6) }, "a of shape [any, 8], found [4, 6]");
  refuses({ parts: [{ first: 0, b: matrix(12, 2) }] }, "b of shape [any, 4], found [12, 2]");
  refuses({ parts: [] }, "a to hold the rows of 0 modules of one rank, found 4");
  refuses(
    { a: matrix(3, 8), parts: [{ first: 0, b: matrix(6, 2) }, { first: 6, b: matrix(6, 2) }] },
    "a to hold the rows of 2 modules of one rank, found 3",
  );
  refuses(
    { parts: [{ first: 0, b: matrix(6, 2) }, { first: 4, b: matrix(6, 2) }] },
    "modules in order within 12 columns, found one from 4 to 10 after 6",
  );
  refuses(
    { parts: [{ first: 4, b: matrix(12, 4) }] },
    "modules in order within 12 columns, found one from 4 to 16 after 0",
  );
  refuses(
    { a: matrix(2, 8), parts: [{ first: 0, b: matrix(12, 2) }] },
    "ranks that add up to a multiple of four, as 16-bit elements need, found 2",
    { ...x, type: "f16" },
  );
  refuses({ a: { ...matrix(4, 8), type: "f16" } }, "a of type f32, found f16");
});
