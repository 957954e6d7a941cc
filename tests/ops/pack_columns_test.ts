import { packColumns } from "../../engine/ops/pack_columns.ts";
import { gpuTest } from "../gpu.ts";
import { checkOp } from "./check_op.ts";

for (const [N, left, right] of [[1, 1, 1], [17, 63, 64], [65, 4, 257]]) {
  gpuTest(`pack_columns [${N}, ${left}] beside [${N}, ${right}]`, (gpu) =>
    checkOp(gpu, {
      op: "pack_columns",
      inputs: { a: { shape: [N, left] }, b: { shape: [N, right], capacity: 300 } },
      run: ({ a, b }) => packColumns([a, b]),
      reference: ({ a, b }) => {
        const rows = Array.from({ length: N }, (_, n) => n);
        const columns = left + right;
        return {
          output: Float64Array.from(rows.flatMap((n) => [
            ...a.subarray(n * left, (n + 1) * left),
            ...b.subarray(n * right, (n + 1) * right),
          ])),
          backward: (dY) => ({
            a: Float64Array.from(rows.flatMap((n) => [...dY.subarray(n * columns, n * columns + left)])),
            b: Float64Array.from(
              rows.flatMap((n) => [...dY.subarray(n * columns + left, (n + 1) * columns)]),
            ),
          }),
        };
      },
      // Copies are exact; with the seed's gradient there is one rounded sum.
      ...{ atol: 0, rtol: 1e-6 },
    }));
}
