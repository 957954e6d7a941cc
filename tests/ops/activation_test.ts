import assert from "node:assert/strict";
import { activation } from "../../engine/ops/activation.ts";
import { ShapeError } from "../../engine/shape.ts";
import { upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/activation.ts";
import { checkOp } from "./check_op.ts";

const KINDS = ["silu", "gelu_tanh"] as const;

// A bias whose length divides by four and ones that do not; 257 rows: several blocks of the bias's two-stage sum; a
// scale at which both tails are met.
const CASES = [
  { N: 1, C: 1, scale: 1 },
  { N: 65, C: 17, scale: 3 },
  { N: 63, C: 64, scale: 3 },
  { N: 257, C: 260, scale: 10 },
  { N: 17, C: 64, scale: 3, type: "f16" as const },
];

for (const kind of KINDS) {
  for (const { N, C, scale, type } of CASES) {
    gpuTest(`${kind} of [${N}, ${C}] ${type ?? "f32"} at scale ${scale}, with a bias`, (gpu) => {
      const dims = { N, C, kind };
      return checkOp(gpu, {
        op: `${kind} [${N}, ${C}] + bias`,
        inputs: { x: { shape: [N, C], scale, type }, bias: { shape: [C] } },
        outputType: type,
        run: ({ x, bias }) => activation(x, { kind, bias }),
        reference: (inputs) => {
          const { x, bias } = inputs;
          return {
            output: reference.forward({ x, bias }, dims).y,
            backward: (dY) => {
              const { dX, dBias } = reference.backward({ x, bias }, dims, { dY });
              return { x: dX, bias: dBias };
            },
          };
        },
        // f16: half a step of the result, and, where gradients meet, of both.
        ...(type === "f16" ? { atol: 4e-3, rtol: 2 ** -10 } : { atol: 2e-5 }),
      });
    }, { layouts: LAYOUTS });
  }

  gpuTest(`${kind} without a bias, near 0 and far out: slopes 0, 1/2 and 1, nothing overflows`, (gpu) => {
    const far = [-1e30, -1e4, -100, -0, 0, 100, 1e4, 1e30];
    const values = [...far, ...[-3, -1, -0.1, -1e-3, -1e-6, 1e-6, 1e-3, 0.1, 1].map(Math.fround)];
    const C = values.length;
    const dims = { N: 1, C, kind };
    const bias = new Float64Array(C);
    const put = (all: Float64Array, first: number[]) => all.map((value, i) => first[i] ?? value);
    return checkOp(gpu, {
      op: `${kind} far out`,
      inputs: { x: { shape: [C], values } },
      run: ({ x }) => activation(x, { kind }),
      reference: ({ x }) => ({
        output: put(reference.forward({ x, bias }, dims).y, [0, 0, 0, 0, 0, 100, 1e4, 1e30]),
        backward: (dY) => {
          const one = dY.map(() => 1);
          const slopes = put(reference.backward({ x, bias }, dims, { dY: one }).dX, [
            0,
            0,
            0,
            0.5,
            0.5,
            1,
            1,
            1,
          ]);
          return { x: dY.map((value, i) => value * slopes[i]) };
        },
      }),
      atol: 1e-7,
    });
  });
}

gpuTest("activation refuses a bias of another width or type", (gpu) => {
  const x = upload(gpu, new Float32Array(8), { shape: [2, 4] });
  const bias = upload(gpu, new Float32Array(8));
  assert.throws(
    () => activation(x, { kind: "silu", bias }),
    new ShapeError("Cannot run activation: expected the bias of shape [4], found [8]"),
  );
  assert.throws(
    () => activation(x, { kind: "silu", bias: { ...bias, shape: [4], type: "f16" } }),
    new ShapeError("Cannot run activation: expected the bias of type f32, found f16"),
  );
});
