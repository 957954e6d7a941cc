import assert from "node:assert/strict";
import { hostHeadEnds, hostSequenceIndex, sequenceLogps } from "../../engine/ops/sequence_logps.ts";
import { uploadAll } from "../../engine/inputs.ts";
import { ShapeError } from "../../engine/shape.ts";
import { fromHost, release, upload } from "../../engine/tensor.ts";
import { gpuTest, readAll } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
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

for (const lengths of CASES) {
  const shown = lengths.length > 6 ? `${lengths.length} lengths` : `lengths ${lengths}`;
  gpuTest(`sequence_logps of ${shown}: tokens after the head count less, also none of it`, async (gpu) => {
    const S = lengths.length;
    const rows = lengths.reduce((total, length) => total + length, 0);
    const offsets = new Uint32Array(S + 1);
    lengths.forEach((length, s) => offsets[s + 1] = offsets[s] + length);
    const padding = rows % 5;
    const index = hostSequenceIndex(lengths, { length: rows + padding });
    // Of pairs: the shorter side is all head. Some heads are empty, some the whole.
    const heads = lengths.map((length, s) => Math.min(length, lengths[(s + 1) % S], (s + 1) * 40));
    const headEnds = hostHeadEnds(lengths, heads);
    for (const tailWeight of [0, 0.3, 1]) {
      const dims = { M: rows, S, tailWeight };
      await checkOp(gpu, {
        op: `sequence_logps ${shown}, tails ${tailWeight}`,
        inputs: { logps: { shape: [rows + padding] } },
        run: ({ logps }) =>
          sequenceLogps(logps, uploadAll(gpu, index), {
            tails: { headEnds: upload(gpu, headEnds), weight: tailWeight },
          }),
        reference: ({ logps }) => {
          const inputs = { tokenLogps: logps.subarray(0, rows), sequenceOffsets: offsets, heads };
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
    }
  });
}

gpuTest("sequence_logps with tails of weight 1 is the plain sum, bit for bit", async (gpu) => {
  const logps = fromHost(gpu, Float32Array.from(normals(seededRandom(4), { length: 90 })), { shape: [90] });
  const lengths = [40, 50];
  const index = uploadAll(gpu, hostSequenceIndex(lengths));
  const tails = { headEnds: upload(gpu, hostHeadEnds(lengths, [7, 7])), weight: 1 };
  const sums = [sequenceLogps(logps, index), sequenceLogps(logps, index, { tails })];
  const [plain, weighted] = await readAll(gpu, sums);
  assert.deepEqual(weighted, plain);
  [logps, ...sums].forEach(release);
});

gpuTest("sequence_logps refuses an index of another number of rows", (gpu) => {
  assert.throws(
    () => sequenceLogps(upload(gpu, new Float32Array(3)), uploadAll(gpu, hostSequenceIndex([2]))),
    new ShapeError("Cannot run sequence_logps: expected logps of shape [2], found [3]"),
  );
  assert.throws(
    () => hostSequenceIndex([2, 1], { length: 2 }),
    new RangeError("Cannot index sequences: expected at most 2 rows, found 3"),
  );
  const tails = { headEnds: upload(gpu, new Uint32Array(2)), weight: 0.5 };
  assert.throws(
    () => sequenceLogps(upload(gpu, new Float32Array(3)), uploadAll(gpu, hostSequenceIndex([3])), { tails }),
    new ShapeError("Cannot run sequence_logps: expected head ends of shape [1], found [2]"),
  );
  assert.throws(
    () => hostHeadEnds([2, 1], [1]),
    new RangeError("Cannot end heads: expected one of each of 2 sequences, found 1"),
  );
});
