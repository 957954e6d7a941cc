import assert from "node:assert/strict";
import { layerNorm } from "../../engine/ops/layer_norm.ts";
import { ShapeError } from "../../engine/shape.ts";
import { type Tensor, upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/layer_norm.ts";
import { checkOp, type OpCheck } from "./check_op.ts";

const EPS = 1e-5;

// Rows 65 and 129: two and three blocks of the gains' two-stage sum. 600: more column tiles than one.
const SHAPES = [[1, 2], [3, 17], [65, 63], [9, 64], [129, 65], [17, 257], [1, 256], [64, 600]];
for (const [N, C] of SHAPES) {
  gpuTest(`layer_norm of [${N}, ${C}]`, (gpu) => checkOp(gpu, layerNormCheck(N, C)), { layouts: LAYOUTS });
}

// A single column is its own mean: the result is the bias, whatever x is.
gpuTest("layer_norm of [5, 1]", (gpu) => checkOp(gpu, layerNormCheck(5, 1)), { layouts: LAYOUTS });

for (const scale of [1e-3, 1e3]) {
  gpuTest(`layer_norm at scale ${scale}`, (gpu) => checkOp(gpu, layerNormCheck(5, 64, { scale })), {
    layouts: LAYOUTS,
  });
}

gpuTest("layer_norm of rows far from zero does not cancel", (gpu) => {
  const check = layerNormCheck(9, 64);
  const x = Array.from({ length: 9 * 64 }, (_, i) => 1000 + Math.sin(i * i));
  const inputs = { ...check.inputs, x: { shape: [9, 64], values: x } };
  // Sums of 64 values near 1000 round by some 2^-10: the means are off by up to 1e-4, and a gain's gradient sums over
  // nine rows. The mean of squares less the square of the mean would be off by tens of percents.
  return checkOp(gpu, { ...check, inputs, atol: 1e-3 });
}, { layouts: LAYOUTS });

gpuTest("layer_norm of [65, 260] in f16", (gpu) => checkOp(gpu, layerNormCheck(65, 260, { type: "f16" })), {
  layouts: LAYOUTS,
});

gpuTest(
  "layer_norm refuses a weight or bias of another width, and f16 rows that do not divide by four",
  (gpu) => {
    const x = upload(gpu, new Float32Array(6), { shape: [2, 3] });
    const [two, three] = [upload(gpu, new Float32Array(2)), upload(gpu, new Float32Array(3))];
    assert.throws(
      () => layerNorm(x, { weight: two, bias: three, eps: EPS }),
      new ShapeError("Cannot run layer_norm: expected weight of shape [3], found [2]"),
    );
    assert.throws(
      () => layerNorm(x, { weight: three, bias: two, eps: EPS }),
      new ShapeError("Cannot run layer_norm: expected bias of shape [3], found [2]"),
    );
    assert.throws(
      () => layerNorm({ ...x, type: "f16" }, { weight: three, bias: three, eps: EPS }),
      new ShapeError("Cannot run layer_norm: expected rows that divide by four for f16, found rows of 3"),
    );
  },
);

function layerNormCheck(
  N: number,
  C: number,
  { scale = 1, type = "f32" }: { scale?: number; type?: "f32" | "f16" } = {},
): OpCheck {
  const dims = { N, C, eps: EPS };
  return {
    op: `layer_norm [${N}, ${C}]`,
    inputs: { x: { shape: [N, C], scale, type }, weight: { shape: [C] }, bias: { shape: [C] } },
    outputType: type,
    run: ({ x, weight, bias }: Record<string, Tensor>) => layerNorm(x, { weight, bias, eps: EPS }),
    reference: ({ x, weight: w, bias: b }: Record<string, Float64Array>) => ({
      output: reference.forward({ x, w, b }, dims).y,
      backward: (dY: Float64Array) => {
        const { dX, dW, dB } = reference.backward({ x, w, b }, dims, { dY });
        return { x: dX, weight: dW, bias: dB };
      },
    }),
    // dX is divided by the rows' size: at scale 1e-3 it has magnitude 1 / 3e-3, and a row of one column 1 / sqrt(eps).
    atol: type === "f16" ? 4e-3 : scale < 1 || C < 4 ? 1e-3 : 2e-5,
    // Half a step of f16 is 2^-11 of the value; where gradients meet there are two.
    ...(type === "f16" ? { rtol: 2 ** -10 } : {}),
  };
}
