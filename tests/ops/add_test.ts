import assert from "node:assert/strict";
import { add } from "../../engine/ops/add.ts";
import { activation } from "../../engine/ops/activation.ts";
import { ShapeError } from "../../engine/shape.ts";
import { type Tensor, upload } from "../../engine/tensor.ts";
import { gpuTest } from "../gpu.ts";
import * as reference from "../reference/add.ts";
import * as siluReference from "../reference/silu.ts";
import { checkOp } from "./check_op.ts";

const silu = (x: Tensor) => activation(x, { kind: "silu" });

for (const shape of [[1], [17], [63], [64], [65], [257], [17, 65]]) {
  const length = shape.reduce((product, extent) => product * extent, 1);
  gpuTest(`add of [${shape}]`, (gpu) =>
    checkOp(gpu, {
      op: `add [${shape}]`,
      inputs: { a: { shape }, b: { shape } },
      run: ({ a, b }) => add(a, b),
      reference: ({ a, b }) => ({
        output: reference.forward({ a, b }, { length }).y,
        backward: (dY) => {
          const { dA, dB } = reference.backward({ a, b }, { length }, { dY });
          return { a: dA, b: dB };
        },
      }),
    }));
}

gpuTest("add(x, x): the gradient arrives twice", (gpu) =>
  checkOp(gpu, {
    op: "add(x, x)",
    inputs: { x: { shape: [65] } },
    run: ({ x }) => add(x, x),
    reference: ({ x }) => ({ output: x.map((v) => 2 * v), backward: (dY) => ({ x: dY.map((v) => 2 * v) }) }),
  }));

gpuTest(
  "add(x, silu(x)): a residual, where silu's gradient meets one that was handed on",
  (gpu) =>
    checkOp(gpu, {
      op: "add(x, silu(x))",
      inputs: { x: { shape: [65] } },
      run: ({ x }) => add(x, silu(x)),
      reference: ({ x }) => ({
        output: siluReference.forward({ x }, { length: 65 }).y.map((value, i) => value + x[i]),
        backward: (dY) => {
          const { dX } = siluReference.backward({ x }, { length: 65 }, { dY });
          return { x: dX.map((value, i) => value + dY[i]) };
        },
      }),
    }),
);

gpuTest(
  "add of tensors with different capacities: a gradient handed on by a larger one is copied in part",
  (gpu) =>
    checkOp(gpu, {
      op: "add of capacities 4096 and 17",
      inputs: { a: { shape: [17], capacity: 4096 }, b: { shape: [17] } },
      run: ({ a, b }) => {
        const activated = silu(b);
        return add(silu(add(a, b)), activated);
      },
      reference: ({ a, b }) => {
        const dims = { length: 17 };
        const sum = a.map((value, i) => value + b[i]);
        const activated = siluReference.forward({ x: b }, dims).y;
        return {
          output: siluReference.forward({ x: sum }, dims).y.map((value, i) => value + activated[i]),
          backward: (dY) => {
            const { dX: dSum } = siluReference.backward({ x: sum }, dims, { dY });
            const { dX: dB } = siluReference.backward({ x: b }, dims, { dY });
            return { a: dSum, b: dSum.map((value, i) => value + dB[i]) };
          },
        };
      },
    }),
);

gpuTest("add refuses operands of different shapes", (gpu) => {
  const a = upload(gpu, new Float32Array(6), { shape: [2, 3] });
  const b = upload(gpu, new Float32Array(6));
  assert.throws(() => add(a, b), new ShapeError("Cannot run add: expected b of shape [2, 3], found [6]"));
});
