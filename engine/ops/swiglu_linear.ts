/**
 * The first half of Llama's MLP: two products and the gated activation, as one op.
 * @module
 */
import { vectorWidth } from "../../shaders/lib.ts";
import { swigluLinearForward } from "../../shaders/swiglu_linear.ts";
import { tileCols, tileRows } from "../../shaders/tile.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { record } from "../tape.ts";
import { emptyLike, scope, storageOf, type Tensor } from "../tensor.ts";
import { productTile, ROWS_KERNEL_LIMIT } from "./dispatch.ts";
import { matmul, multiply } from "./matmul.ts";
import { gateUpGradient, swiglu } from "./swiglu.ts";

/**
 * y = silu(x Wg^T) (x Wu^T) (arXiv 2002.05202). Sums are f32, whatever the storage.
 *
 * @param x `[N, C]`
 * @param weight `[2 F, C]`: the gate's rows, then those of up
 * @returns `[N, F]`, stored as x is
 * @throws {ShapeError} when the weight has another width or an odd number of rows, or an operand of sixteen bits has rows
 * that do not divide by four
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(1, 2), { shape: [1, 2] });
 * const weight = fromHost(gpu, Float32Array.of(1, 0, 0, 1), { shape: [2, 2] }); // gate = x[0], up = x[1]
 * const [y] = await toHost(swigluLinear(x, weight));
 * assert(Math.abs(y - 2 / (1 + Math.exp(-1))) < 1e-6);
 * ```
 */
export function swigluLinear(x: Tensor, weight: Tensor): Tensor {
  expectShape("swiglu_linear", "x", x.shape, [-1, -1]);
  const { gpu, shape: [rows, width] } = x;
  expectShape("swiglu_linear", "weight", weight.shape, [-1, width]);
  if (weight.shape[0] % 2 !== 0) {
    throw new ShapeError(
      `Cannot run swiglu_linear: expected as many rows for the gate as for up, found [${
        weight.shape.join(", ")
      }]`,
    );
  }
  const columns = weight.shape[0] / 2;
  const vector = vectorWidth(width, columns) === 4;
  if (!vector && (x.type !== "f32" || weight.type !== "f32")) {
    throw new ShapeError(
      `Cannot run swiglu_linear: expected rows that divide by four, as 16-bit elements need, found ` +
        `[${x.shape.join(", ")}] and [${weight.shape.join(", ")}]`,
    );
  }
  const isRecorded = gpu.tape !== null && (x.requiresGrad || weight.requiresGrad);
  // A tile would be mostly empty: the product for few rows reads the weight once, and the activation costs little.
  if (!isRecorded && rows <= ROWS_KERNEL_LIMIT) {
    return scope(gpu, () => swiglu(matmul(x, weight, { kind: "NT" })));
  }
  const y = emptyLike(x, [rows, columns], { type: x.type });
  const gateUp = isRecorded ? emptyLike(x, [rows, 2 * columns], { type: x.type }) : null;
  const tile = productTile(gpu);
  gpu.dispatch(swigluLinearForward, {
    constants: {
      tile,
      vector,
      storage: { a: storageOf(x), b: storageOf(weight), c: storageOf(y) },
      saved: gateUp !== null,
    },
    bindings: {
      x: x.range,
      weight: weight.range,
      ...(gateUp ? { gate_up: gateUp.range } : {}),
      y: y.range,
    },
    params: { m: rows, f: columns, k: width },
    workgroups: [Math.ceil(2 * columns / tileCols(tile)), Math.ceil(rows / tileRows(tile))],
  });
  return record(gpu, {
    name: "swiglu_linear",
    inputs: [x, weight],
    output: y,
    // G = [g u] = X W^T, y = silu(g) u: dX = dG W, dW = dG^T X
    backward: (dY, sink) => {
      const dX = sink.into(x);
      const dWeight = sink.into(weight);
      scope(gpu, () => {
        const dGateUp = emptyLike(gateUp!, gateUp!.shape, { type: gateUp!.type });
        gateUpGradient(gateUp!, dY, { tensor: dGateUp, accumulate: false });
        if (dX) multiply("NN", dGateUp, weight, dX);
        if (dWeight) multiply("TN", dGateUp, x, dWeight);
      });
    },
  });
}
