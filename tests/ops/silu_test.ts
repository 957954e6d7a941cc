import { silu } from "../../engine/ops/silu.ts";
import { gpuTest } from "../gpu.ts";
import * as reference from "../reference/silu.ts";
import { checkOp } from "./check_op.ts";

// 65537 elements: more workgroups than one.
for (const [length, scale] of [[1, 1], [17, 3], [63, 3], [64, 3], [65, 3], [257, 30], [65537, 1]]) {
  gpuTest(`silu of ${length} at scale ${scale}`, (gpu) =>
    checkOp(gpu, {
      op: `silu ${length}`,
      inputs: { x: { shape: [length], scale } },
      run: ({ x }) => silu(x),
      reference: ({ x }) => ({
        output: reference.forward({ x }, { length }).y,
        backward: (dY) => ({ x: reference.backward({ x }, { length }, { dY }).dX }),
      }),
    }));
}

gpuTest("silu far out: 0 and x, slopes 0 and 1, nothing overflows", (gpu) => {
  const values = [-1e30, -1e4, -100, -0, 0, 100, 1e4, 1e30];
  return checkOp(gpu, {
    op: "silu far out",
    inputs: { x: { shape: [values.length], values } },
    run: ({ x }) => silu(x),
    reference: () => ({
      output: Float64Array.of(0, 0, 0, 0, 0, 100, 1e4, 1e30),
      backward: (dY) => ({ x: dY.map((value, i) => value * [0, 0, 0, 0.5, 0.5, 1, 1, 1][i]) }),
    }),
  });
});
