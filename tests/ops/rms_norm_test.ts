import assert from "node:assert/strict";
import { rmsNorm } from "../../engine/ops/rms_norm.ts";
import { ShapeError } from "../../engine/shape.ts";
import { upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/rms_norm.ts";
import { checkOp } from "./check_op.ts";

const EPS = 1e-5;

// Rows 65 and 129: two and three blocks of the weight's two-stage sum. 600: more column tiles than one.
const SHAPES = [[1, 1], [3, 17], [65, 63], [9, 64], [129, 65], [17, 257], [1, 256], [64, 600]];
for (const [N, C] of SHAPES) {
  gpuTest(`rms_norm of [${N}, ${C}]`, (gpu) => checkOp(gpu, rmsNormCheck(N, C, 1)), { layouts: LAYOUTS });
}

// Where x is small against eps, and large.
for (const scale of [1e-3, 1e3]) {
  gpuTest(`rms_norm at scale ${scale}`, (gpu) => checkOp(gpu, rmsNormCheck(5, 64, scale)), {
    layouts: LAYOUTS,
  });
}

gpuTest("rms_norm of [65, 260] in f16", (gpu) => checkOp(gpu, rmsNormCheck(65, 260, 1, "f16")), {
  layouts: LAYOUTS,
});

gpuTest("rms_norm refuses f16 rows that do not divide by four", (gpu) => {
  const x = { ...upload(gpu, new Float32Array(6), { shape: [2, 6] }), type: "f16" as const };
  const weight = upload(gpu, new Float32Array(6));
  assert.throws(
    () => rmsNorm(x, weight, { eps: EPS }),
    new ShapeError(
      "Cannot run rms_norm: expected rows that divide by four for f16, found rows of 6",
    ),
  );
});

gpuTest("rms_norm refuses a weight of another width", (gpu) => {
  const x = upload(gpu, new Float32Array(6), { shape: [2, 3] });
  const weight = upload(gpu, new Float32Array(2));
  assert.throws(
    () => rmsNorm(x, weight, { eps: EPS }),
    new ShapeError("Cannot run rms_norm: expected weight of shape [3], found [2]"),
  );
});

function rmsNormCheck(N: number, C: number, scale: number, type: "f32" | "f16" = "f32") {
  const dims = { N, C, eps: EPS };
  return {
    op: `rms_norm [${N}, ${C}]`,
    inputs: { x: { shape: [N, C], scale, type }, weight: { shape: [C] } },
    outputType: type,
    run: ({ x, weight }: Record<string, Parameters<typeof rmsNorm>[0]>) => rmsNorm(x, weight, { eps: EPS }),
    reference: ({ x, weight: w }: Record<string, Float64Array>) => ({
      output: reference.forward({ x, w }, dims).y,
      backward: (dY: Float64Array) => {
        const { dX, dW } = reference.backward({ x, w }, dims, { dY });
        return { x: dX, weight: dW };
      },
    }),
    // dX is divided by the rows' size: at scale 1e-3 it has magnitude 1 / 3e-3.
    atol: type === "f16" ? 4e-3 : scale < 1 ? 1e-3 : 1e-5,
    // Half a step of f16 is 2^-11 of the value; where gradients meet there are two.
    ...(type === "f16" ? { rtol: 2 ** -10 } : {}),
  };
}
