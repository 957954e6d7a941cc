import assert from "node:assert/strict";
import { swiglu } from "../../engine/ops/swiglu.ts";
import { upload } from "../../engine/tensor.ts";
import { ShapeError } from "../../engine/shape.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/swiglu.ts";
import { checkOp } from "./check_op.ts";

for (const shape of [[1], [17], [63], [64], [65], [257], [17, 65], [3, 5, 7]]) {
  const length = shape.reduce((product, extent) => product * extent, 1);
  gpuTest(`swiglu of [${shape}]`, (gpu) =>
    checkOp(gpu, {
      op: `swiglu [${shape}]`,
      inputs: { gate: { shape, scale: 3 }, up: { shape } },
      run: ({ gate, up }) => swiglu(gate, up),
      reference: ({ gate, up }) => ({
        output: reference.forward({ gate, up }, { length }).y,
        backward: (dY) => {
          const { dGate, dUp } = reference.backward({ gate, up }, { length }, { dY });
          return { gate: dGate, up: dUp };
        },
      }),
    }));
}

gpuTest("swiglu of [5, 20] in f16", (gpu) =>
  checkOp(gpu, {
    op: "swiglu f16",
    inputs: { gate: { shape: [5, 20], type: "f16" }, up: { shape: [5, 20], type: "f16" } },
    outputType: "f16",
    run: ({ gate, up }) => swiglu(gate, up),
    reference: ({ gate, up }) => ({
      output: reference.forward({ gate, up }, { length: 100 }).y,
      backward: (dY) => {
        const { dGate, dUp } = reference.backward({ gate, up }, { length: 100 }, { dY });
        return { gate: dGate, up: dUp };
      },
    }),
    // Half a step of f16 is 2^-11 of the value; where gradients meet there are two.
    atol: 4e-3,
    rtol: 2 ** -10,
  }), { layouts: LAYOUTS });

gpuTest("swiglu(x, x): both parts of the gradient reach the one tensor", (gpu) =>
  checkOp(gpu, {
    op: "swiglu(x, x)",
    inputs: { x: { shape: [65] } },
    run: ({ x }) => swiglu(x, x),
    reference: ({ x }) => ({
      output: reference.forward({ gate: x, up: x }, { length: 65 }).y,
      backward: (dY) => {
        const { dGate, dUp } = reference.backward({ gate: x, up: x }, { length: 65 }, { dY });
        return { x: dGate.map((value, i) => value + dUp[i]) };
      },
    }),
  }));

gpuTest("swiglu refuses operands of different shapes", (gpu) => {
  const gate = upload(gpu, new Float32Array(6), { shape: [2, 3] });
  const up = upload(gpu, new Float32Array(6), { shape: [3, 2] });
  assert.throws(
    () => swiglu(gate, up),
    new ShapeError("Cannot run swiglu: expected up of shape [2, 3], found [3, 2]"),
  );
});
