import assert from "node:assert/strict";
import { gatherRows } from "../../engine/ops/gather_rows.ts";
import { ShapeError } from "../../engine/shape.ts";
import { upload } from "../../engine/tensor.ts";
import { gpuTest } from "../gpu.ts";
import { seededRandom } from "../reference/random.ts";
import { checkOp } from "./check_op.ts";

// [N, C, R]: all rows, one row, about half of them; widths that divide by four and not.
for (const [N, C, R] of [[1, 1, 1], [17, 63, 9], [64, 64, 64], [65, 17, 1], [257, 64, 130], [63, 257, 40]]) {
  for (const capacity of [undefined, 300]) {
    gpuTest(`gather_rows ${R} of [${N}, ${C}]${capacity ? ", room for more" : ""}`, (gpu) => {
      const rows = distinctRows(N, R);
      return checkOp(gpu, {
        op: `gather_rows ${R} of [${N}, ${C}]`,
        inputs: { x: { shape: [N, C], capacity } },
        run: ({ x }) => gatherRows(x, rows, { capacity }),
        reference: ({ x }) => ({
          output: Float64Array.from({ length: R * C }, (_, i) => x[rows[Math.floor(i / C)] * C + i % C]),
          backward: (dY) => {
            const dX = new Float64Array(N * C);
            dY.forEach((value, i) => dX[rows[Math.floor(i / C)] * C + i % C] = value);
            return { x: dX };
          },
        }),
        // Copies are exact; with the seed's gradient there is one rounded sum.
        atol: 0,
        rtol: 1e-6,
      });
    });
  }
}

gpuTest("gather_rows refuses rows that are out of range or come twice, and a vector", (gpu) => {
  const x = upload(gpu, new Float32Array(6), { shape: [3, 2] });
  const message = (row: number, at: number) =>
    new RangeError(`Cannot run gather_rows: expected distinct rows below 3, found ${row} at position ${at}`);
  assert.throws(() => gatherRows(x, Uint32Array.of(0, 3)), message(3, 1));
  assert.throws(() => gatherRows(x, Uint32Array.of(2, 1, 2)), message(2, 2));
  assert.throws(() => gatherRows(upload(gpu, new Float32Array(6)), Uint32Array.of(0)), ShapeError);
});

/** R of N rows in a random order. */
function distinctRows(N: number, R: number): Uint32Array {
  const random = seededRandom(N * 1000 + R);
  const rows = Uint32Array.from({ length: N }, (_, n) => n);
  for (let i = 0; i < R; i++) {
    const j = i + Math.floor(random() * (N - i));
    [rows[i], rows[j]] = [rows[j], rows[i]];
  }
  return rows.slice(0, R);
}
