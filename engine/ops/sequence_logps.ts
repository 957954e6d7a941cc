/**
 * Summed log-probability of each sequence.
 * @module
 */
import { SEGMENT_WORKGROUP, segmentSum, segmentSumBackward } from "../../shaders/reduce.ts";
import { expectShape } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, type Tensor, upload } from "../tensor.ts";

/**
 * sums[s] = sum of logps over sequence s's labelled tokens.
 *
 * @param logps `[R]` from `tokenLogps`
 * @param offsets `[S + 1]` on the host: sequence s holds rows offsets[s] to offsets[s + 1]
 * @returns `[S]`, in nats
 * @throws {ShapeError} when the last offset is not R
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const logps = fromHost(gpu, Float32Array.of(-1, -2, -4), { shape: [3] });
 * assert.deepEqual([...await toHost(sequenceLogps(logps, Uint32Array.of(0, 2, 3)))], [-3, -4]);
 * ```
 */
export function sequenceLogps(logps: Tensor, offsets: Uint32Array): Tensor {
  expectShape("sequence_logps", "logps", logps.shape, [offsets[offsets.length - 1]]);
  const { gpu } = logps;
  const segments = offsets.length - 1;
  const offsetTensor = upload(gpu, offsets);
  const sums = empty(gpu, [segments]);
  const workgroups = Math.ceil(segments / SEGMENT_WORKGROUP);
  gpu.dispatch(segmentSum, {
    constants: {},
    bindings: { values: logps.range, offsets: offsetTensor.range, sums: sums.range },
    params: { segments },
    workgroups,
  });
  return record(gpu, {
    name: "sequence_logps",
    inputs: [logps],
    output: sums,
    // sums[s] = sum of its rows: dLogps[r] = dSums[s]
    backward: (dSums, sink) => {
      const dLogps = sink.into(logps);
      if (!dLogps) return;
      gpu.dispatch(segmentSumBackward, {
        constants: {},
        bindings: { d_sums: dSums.range, offsets: offsetTensor.range, d_values: dLogps.tensor.range },
        params: { segments, accumulate: dLogps.accumulate ? 1 : 0 },
        workgroups,
      });
    },
  });
}
