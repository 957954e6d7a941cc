import assert from "node:assert/strict";
import { gatherRows, hostRowIndex, rowIndex } from "../../engine/ops/gather_rows.ts";
import { ShapeError } from "../../engine/shape.ts";
import { fromHost, release, upload } from "../../engine/tensor.ts";
import { gpuTest } from "../gpu.ts";
import { integers, seededRandom } from "../reference/random.ts";
import { checkHalf } from "./check_half.ts";
import { checkOp } from "./check_op.ts";

// [N, C, R]: more rows than there are, one row, about half of them; widths that divide by four and not.
const SHAPES = [[1, 1, 3], [17, 63, 9], [64, 64, 64], [65, 17, 1], [257, 64, 130], [63, 257, 40]];

const gathered = (x: Float64Array, rows: Uint32Array, C: number) => ({
  output: Float64Array.from({ length: rows.length * C }, (_, i) => x[rows[Math.floor(i / C)] * C + i % C]),
  backward: (dY: Float64Array) => {
    const dX = new Float64Array(x.length);
    dY.forEach((value, i) => dX[rows[Math.floor(i / C)] * C + i % C] += value);
    return { x: dX };
  },
});

for (const [N, C, R] of SHAPES) {
  for (const capacity of [undefined, 300]) {
    gpuTest(`gather_rows ${R} of [${N}, ${C}]${capacity ? ", room for more" : ""}`, (gpu) => {
      const rows = Uint32Array.from(integers(seededRandom(N * 1000 + R), { length: R, high: N }));
      const room = capacity ? { tokens: capacity, rows: capacity } : undefined;
      return checkOp(gpu, {
        op: `gather_rows ${R} of [${N}, ${C}]`,
        inputs: { x: { shape: [N, C], capacity } },
        run: ({ x }) => gatherRows(x, rowIndex(gpu, rows, { tokens: N, capacity: room })),
        reference: ({ x }) => gathered(x, rows, C),
        // Copies are exact; a gradient is a sum of a few.
        atol: 1e-6,
        rtol: 1e-6,
      });
    });
  }
}

gpuTest("gather_rows in f16 copies exactly and sums in f32", (gpu) => {
  const rows = Uint32Array.of(2, 0, 2, 2, 16);
  return checkHalf(gpu, {
    op: "gather_rows in f16",
    shape: [17, 8],
    outputShape: [5, 8],
    run: (x) => gatherRows(x, rowIndex(gpu, rows, { tokens: 17 })),
    reference: (x) => {
      const { output, backward } = gathered(x, rows, 8);
      return { output, backward: (dY) => backward(dY).x };
    },
    // A sum of three is rounded once to eleven bits.
    ...{ atol: 1e-6, rtol: 2 ** -11 },
  });
});

Deno.test("hostRowIndex lists the places of each row, and pads to the capacity", () => {
  const capacity = { tokens: 5, rows: 6 };
  assert.deepEqual(hostRowIndex(Uint32Array.of(2, 0, 2, 2), { tokens: 3, capacity }), {
    rows: Uint32Array.of(2, 0, 2, 2, 0, 0),
    offsets: Uint32Array.of(0, 1, 1, 4, 4, 4),
    places: Uint32Array.of(1, 0, 2, 3, 0, 0),
    ...{ tokens: 3, count: 4, most: 3 },
  });
});

gpuTest(
  "gather_rows refuses rows out of range, another tensor's index, a vector and odd f16 widths",
  (gpu) => {
    const x = upload(gpu, new Float32Array(6), { shape: [3, 2] });
    const index = rowIndex(gpu, Uint32Array.of(0), { tokens: 3 });
    assert.throws(
      () => rowIndex(gpu, Uint32Array.of(0, 3), { tokens: 3 }),
      new RangeError("Cannot pick rows: expected rows below 3, found 3 at position 1"),
    );
    assert.throws(
      () => gatherRows(x, rowIndex(gpu, Uint32Array.of(0), { tokens: 4 })),
      new ShapeError(
        "Cannot run gather_rows: expected the row index's offsets of shape [4], found [5]",
      ),
    );
    assert.throws(() => gatherRows(upload(gpu, new Float32Array(6)), index), ShapeError);
    const half = fromHost(gpu, new Float32Array(6), { shape: [3, 2], type: "f16" });
    assert.throws(
      () => gatherRows(half, index),
      /expected rows that divide by four for f16, found rows of 2/,
    );
    release(half);
  },
);
