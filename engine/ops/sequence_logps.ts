/**
 * Summed log-probability of each sequence.
 * @module
 */
import { SEGMENT_WORKGROUP, segmentSum, segmentSumBackward } from "../../shaders/reduce.ts";
import type { DeviceTensors } from "../inputs.ts";
import type { BufferRange } from "../queue.ts";
import { expectShape } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, type Tensor } from "../tensor.ts";

/** Which rows belong to which sequence, on the GPU: see {@link hostSequenceIndex}. */
export type SequenceIndex = DeviceTensors<HostSequenceIndex>;

/** What {@link hostSequenceIndex} makes: arrays whose lengths depend on the number of sequences and `length` alone. */
export interface HostSequenceIndex {
  /** `[S + 1]`: sequence s holds rows offsets[s] to offsets[s + 1]. */
  readonly offsets: Uint32Array;
  /** `[R]`: the sequence of each row; 0xffffffff in rows that belong to none. */
  readonly segments: Uint32Array;
}

/** In place of a sequence. */
const NO_SEQUENCE = 0xffffffff;

/**
 * Which rows belong to which sequence, for {@link sequenceLogps} and its backward.
 *
 * @param lengths `[S]`: rows of each sequence, which follow each other
 * @param options.length R, at least their sum: the rows after that count for nothing
 * @param options.first rows before the first sequence, which count for nothing; 0 by default
 * @returns the arrays, to upload
 * @throws {RangeError} when there are more rows than `length`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { offsets, segments } = hostSequenceIndex([2, 1], { length: 4 });
 * assert.deepEqual([...offsets], [0, 2, 3]);
 * assert.deepEqual([...segments], [0, 0, 1, 0xffffffff]);
 * ```
 */
export function hostSequenceIndex(
  lengths: ArrayLike<number>,
  options: { length?: number; first?: number } = {},
): HostSequenceIndex {
  const offsets = new Uint32Array(lengths.length + 1);
  offsets[0] = options.first ?? 0;
  for (let s = 0; s < lengths.length; s++) offsets[s + 1] = offsets[s] + lengths[s];
  const rows = offsets[lengths.length];
  const length = options.length ?? rows;
  if (rows > length) {
    throw new RangeError(`Cannot index sequences: expected at most ${length} rows, found ${rows}`);
  }
  const segments = new Uint32Array(length).fill(NO_SEQUENCE);
  for (let s = 0; s < lengths.length; s++) segments.fill(s, offsets[s], offsets[s + 1]);
  return { offsets, segments };
}

/** Sequences whose tokens after a head count less: LD-DPO's, arXiv 2409.06411. */
export interface SequenceTails {
  /** `[S]`: see {@link hostHeadEnds}. */
  readonly headEnds: Tensor;
  /** What each row of a sequence from its head's end on counts. */
  readonly weight: number;
}

/**
 * Where the head of each sequence ends, for {@link sequenceLogps} with tails.
 *
 * @param lengths `[S]`: rows of each sequence, as for {@link hostSequenceIndex}
 * @param heads `[S]`: how many first rows of each are its head; what is more than there are is all
 * @returns `[S]`, to upload
 * @throws {RangeError} when there are not as many heads as sequences
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual([...hostHeadEnds([2, 5], [2, 2])], [2, 4]); // rows 4, 5 and 6 are the second one's tail
 * ```
 */
export function hostHeadEnds(
  lengths: ArrayLike<number>,
  heads: ArrayLike<number>,
): Uint32Array<ArrayBuffer> {
  if (heads.length !== lengths.length) {
    throw new RangeError(
      `Cannot end heads: expected one of each of ${lengths.length} sequences, found ${heads.length}`,
    );
  }
  const ends = new Uint32Array(lengths.length);
  let start = 0;
  for (let s = 0; s < lengths.length; s++) {
    ends[s] = start + Math.min(heads[s], lengths[s]);
    start += lengths[s];
  }
  return ends;
}

/**
 * sums[s] = sum of logps over sequence s's labelled tokens; with tails those after its head times their weight.
 *
 * @param logps `[R]` from `tokenLogps`
 * @param sequences of {@link hostSequenceIndex}, on the GPU: S sequences of R rows
 * @param options.tails the rows that count less; none by default
 * @returns `[S]`, in nats
 * @throws {ShapeError} when the index is not one of R rows, or the tails are not those of S sequences
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, uploadAll } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const logps = fromHost(gpu, Float32Array.of(-1, -2, -4), { shape: [3] });
 * const sums = sequenceLogps(logps, uploadAll(gpu, hostSequenceIndex([2, 1])));
 * assert.deepEqual([...await toHost(sums)], [-3, -4]);
 * ```
 */
export function sequenceLogps(
  logps: Tensor,
  { offsets, segments }: SequenceIndex,
  options: { tails?: SequenceTails } = {},
): Tensor {
  expectShape("sequence_logps", "logps", logps.shape, segments.shape);
  const { gpu, shape: [rows] } = logps;
  const count = offsets.shape[0] - 1;
  const { tails } = options;
  if (tails) expectShape("sequence_logps", "head ends", tails.headEnds.shape, [count]);
  const constants = { tails: tails !== undefined };
  const tailed = tailInputs(tails);
  const sums = empty(gpu, [count]);
  gpu.dispatch(segmentSum, {
    constants,
    bindings: { values: logps.range, offsets: offsets.range, ...tailed.bindings, sums: sums.range },
    params: { segments: count, ...tailed.params },
    workgroups: Math.ceil(count / SEGMENT_WORKGROUP),
  });
  return record(gpu, {
    name: "sequence_logps",
    inputs: [logps],
    output: sums,
    // sums[s] = sum of its rows times their weights: dLogps[r] = weight dSums[s]
    backward: (dSums, sink) => {
      const dLogps = sink.into(logps);
      if (!dLogps) return;
      gpu.dispatch(segmentSumBackward, {
        constants,
        bindings: {
          d_sums: dSums.range,
          segments: segments.range,
          ...tailed.bindings,
          d_values: dLogps.tensor.range,
        },
        params: { rows, count, accumulate: dLogps.accumulate ? 1 : 0, ...tailed.params },
        workgroups: Math.ceil(rows / SEGMENT_WORKGROUP),
      });
    },
  });
}

/** What both kernels read of the tails. */
function tailInputs(tails?: SequenceTails): {
  bindings: Record<string, BufferRange>;
  params: Record<string, number>;
} {
  return tails
    ? { bindings: { head_ends: tails.headEnds.range }, params: { tail_weight: tails.weight } }
    : { bindings: {}, params: {} };
}
