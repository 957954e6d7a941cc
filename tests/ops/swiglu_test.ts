import assert from "node:assert/strict";
import { swiglu } from "../../engine/ops/swiglu.ts";
import { ShapeError } from "../../engine/shape.ts";
import { upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/swiglu.ts";
import { checkOp, type OpCheck } from "./check_op.ts";

function swigluCheck([N, F]: readonly number[], type: "f32" | "f16" = "f32"): OpCheck {
  return {
    op: `swiglu ${N}x${F} ${type}`,
    inputs: { gateUp: { shape: [N, 2 * F], scale: 3, type } },
    outputType: type,
    run: ({ gateUp }) => swiglu(gateUp),
    reference: ({ gateUp }) => ({
      output: reference.packedForward({ gateUp }, { N, F }).y,
      backward: (dY) => ({ gateUp: reference.packedBackward({ gateUp }, { N, F }, { dY }).dGateUp }),
    }),
    // Half a step of f16 is 2^-11 of the value; where gradients meet there are two.
    ...(type === "f16" ? { atol: 4e-3, rtol: 2 ** -10 } : {}),
  };
}

for (const size of [[1, 1], [17, 63], [63, 17], [64, 64], [5, 65], [3, 257], [257, 4], [1, 132]]) {
  gpuTest(`swiglu ${size.join("x")}`, (gpu) => checkOp(gpu, swigluCheck(size)), { layouts: LAYOUTS });
}

gpuTest("swiglu 5x20 in f16", (gpu) => checkOp(gpu, swigluCheck([5, 20], "f16")), { layouts: LAYOUTS });

gpuTest("swiglu refuses rows without two halves, and 16-bit halves that do not divide by four", (gpu) => {
  const of = (shape: number[]) =>
    upload(gpu, new Float32Array(shape.reduce((product, extent) => product * extent)), { shape });
  assert.throws(
    () => swiglu(of([2, 3])),
    new ShapeError("Cannot run swiglu: expected as many columns for the gate as for up, found [2, 3]"),
  );
  assert.throws(
    () => swiglu(of([6])),
    new ShapeError("Cannot run swiglu: expected gateUp of shape [any, any], found [6]"),
  );
  assert.throws(
    () => swiglu({ ...of([2, 12]), type: "f16" }),
    new ShapeError("Cannot run swiglu: expected rows that divide by four for f16, found rows of 6"),
  );
});
