import assert from "node:assert/strict";
import { hostSequenceIndex, sequenceLogps } from "../../engine/ops/sequence_logps.ts";
import { uploadAll } from "../../engine/inputs.ts";
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
    // Rows after the last sequence count for nothing.
    const padding = M % 5;
    const index = hostSequenceIndex(lengths, { length: M + padding });
    return checkOp(gpu, {
      op: `sequence_logps ${shown}`,
      inputs: { logps: { shape: [M + padding] } },
      run: ({ logps }) => sequenceLogps(logps, uploadAll(gpu, index)),
      reference: ({ logps }) => {
        const inputs = { tokenLogps: logps.subarray(0, M), sequenceOffsets: offsets };
        return {
          output: reference.forward(inputs, dims).s,
          backward: (dS) => ({
            logps: Float64Array.of(
              ...reference.backward(inputs, dims, { dS }).dTokenLogps,
              ...new Float64Array(padding),
            ),
          }),
        };
      },
    });
  });
}

gpuTest("sequence_logps refuses an index of another number of rows", (gpu) => {
  assert.throws(
    () => sequenceLogps(upload(gpu, new Float32Array(3)), uploadAll(gpu, hostSequenceIndex([2]))),
    new ShapeError("Cannot run sequence_logps: expected logps of shape [2], found [3]"),
  );
  assert.throws(
    () => hostSequenceIndex([2, 1], { length: 2 }),
    new RangeError("Cannot index sequences: expected at most 2 rows, found 3"),
  );
});
