import assert from "node:assert/strict";
import { sequenceLogps } from "../../engine/ops/sequence_logps.ts";
import { ShapeError } from "../../engine/shape.ts";
import { upload } from "../../engine/tensor.ts";
import { gpuTest } from "../gpu.ts";
import * as reference from "../reference/sequence_logps.ts";
import { checkOp } from "./check_op.ts";

// 65 sequences: more than one workgroup. An empty sequence sums to 0.
const CASES = [[1], [17], [63, 64, 65], [257, 1, 17], [5, 0, 3], Array.from({ length: 65 }, (_, s) => s % 7)];

for (const lengths of CASES) {
  const shown = lengths.length > 6 ? `${lengths.length} lengths` : `lengths ${lengths}`;
  gpuTest(`sequence_logps of ${shown}`, (gpu) => {
    const offsets = new Uint32Array(lengths.length + 1);
    lengths.forEach((length, s) => offsets[s + 1] = offsets[s] + length);
    const M = offsets[lengths.length];
    const dims = { M, S: lengths.length };
    return checkOp(gpu, {
      op: `sequence_logps ${shown}`,
      inputs: { logps: { shape: [M] } },
      run: ({ logps }) => sequenceLogps(logps, offsets),
      reference: ({ logps: tokenLogps }) => ({
        output: reference.forward({ tokenLogps, sequenceOffsets: offsets }, dims).s,
        backward: (dS) => ({
          logps: reference.backward({ tokenLogps, sequenceOffsets: offsets }, dims, { dS }).dTokenLogps,
        }),
      }),
    });
  });
}

gpuTest("sequence_logps refuses offsets that end elsewhere", (gpu) => {
  assert.throws(
    () => sequenceLogps(upload(gpu, new Float32Array(3)), Uint32Array.of(0, 2)),
    new ShapeError("Cannot run sequence_logps: expected logps of shape [2], found [3]"),
  );
});
