import assert from "node:assert/strict";
import { swigluLinear } from "../../engine/ops/swiglu_linear.ts";
import { ShapeError } from "../../engine/shape.ts";
import { fromHost, release, toHost, upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
import * as reference from "../reference/swiglu_linear.ts";
import { assertClose, checkOp } from "./check_op.ts";

for (const [N, F, C] of [[1, 1, 1], [17, 63, 5], [65, 257, 17], [64, 64, 64], [63, 36, 20], [3, 132, 8]]) {
  gpuTest(`swigluLinear ${N}x${F}x${C}`, (gpu) =>
    checkOp(gpu, {
      op: `swigluLinear ${N}x${F}x${C}`,
      inputs: { x: { shape: [N, C] }, weight: { shape: [2 * F, C], scale: C ** -0.5 } },
      run: ({ x, weight }) => swigluLinear(x, weight),
      reference: (inputs) => ({
        output: reference.forward(inputs as unknown as reference.SwigluLinearInputs, { N, F, C }).y,
        backward: (dY) => {
          const { dX, dWeight } = reference.backward(
            inputs as unknown as reference.SwigluLinearInputs,
            { N, F, C },
            { dY },
          );
          return { x: dX, weight: dWeight };
        },
      }),
      // Sums of up to 514 products.
      atol: 5e-5,
    }), { layouts: LAYOUTS });
}

gpuTest("swigluLinear of 16-bit operands", async (gpu) => {
  const [N, F, C] = [20, 36, 12];
  const random = seededRandom(2);
  const draw = (length: number, scale = 1) => Float32Array.from(normals(random, { length, scale }));
  const x = fromHost(gpu, draw(N * C), { shape: [N, C], type: "f16" });
  const weight = fromHost(gpu, draw(2 * F * C, 0.3), { shape: [2 * F, C], type: "bf16" });
  const y = swigluLinear(x, weight);
  assert.equal(y.type, "f16");
  const stored = { x: Float64Array.from(await toHost(x)), weight: Float64Array.from(await toHost(weight)) };
  // The result's own rounding.
  assertClose(await toHost(y), reference.forward(stored, { N, F, C }).y, { what: "y", rtol: 2 ** -10 });
  [x, weight, y].forEach(release);
}, { layouts: LAYOUTS });

gpuTest(
  "swigluLinear refuses weights of another width, with an odd row, or of 16 bits in odd sizes",
  (gpu) => {
    const x = upload(gpu, new Float32Array(6), { shape: [2, 3] });
    const matrix = (shape: number[]) => upload(gpu, new Float32Array(shape[0] * shape[1]), { shape });
    assert.throws(
      () => swigluLinear(x, matrix([4, 2])),
      new ShapeError("Cannot run swiglu_linear: expected weight of shape [any, 3], found [4, 2]"),
    );
    assert.throws(
      () => swigluLinear(x, matrix([5, 3])),
      new ShapeError("Cannot run swiglu_linear: expected as many rows for the gate as for up, found [5, 3]"),
    );
    assert.throws(
      () => swigluLinear({ ...x, type: "f16" }, matrix([4, 3])),
      new ShapeError(
        "Cannot run swiglu_linear: expected rows that divide by four, as 16-bit elements need, found [2, 3] and [4, 3]",
      ),
    );
  },
);
