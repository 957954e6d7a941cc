/**
 * Gradients summed over ranks, between backward and the optimizer.
 * @module
 */
import type { BufferRange } from "../../engine/commands.ts";
import type { Parameters } from "../../engine/parameters.ts";
import type { CommandQueue } from "../../engine/queue.ts";
import type { Communicator } from "./communicator.ts";

/**
 * Bytes that are read back, reduced and written at a time: large enough that the 12 ms of an await do not count, small
 * enough for the host, which holds two at once.
 */
const BUCKET_BYTES = 2 ** 26;

/** What an exchange took. */
export interface GradientExchange {
  /** Bytes of gradients, padding included: what each rank reads, reduces and writes. */
  readonly sizeBytes: number;
  /** Readbacks, one await each. */
  readonly buckets: number;
}

/**
 * Sums the gradients of all ranks, in place: every rank then has the same bits. Losses are normalised by the counts of
 * the step over all ranks (see {@link shardStep}), so the sum is the gradient of one large batch. While a bucket is
 * reduced, the next one is read back.
 *
 * @param parameters trained ones, laid out in the same way on every rank
 * @param communicator the ranks
 * @param options.bucketBytes bytes at a time, a multiple of four; 64 MiB by default
 * @returns what was exchanged; nothing where there is one rank
 * @throws {TypeError} when the parameters are not trained
 * @throws {MpiError} when the ranks cannot be reached
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { createParameters } from "../../engine/parameters.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 * import { singleRank } from "./communicator.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * using parameters = createParameters(gpu, new Map([["bias", [2]]]), { trainable: true });
 * assert.deepEqual(await allReduceGradients(parameters, singleRank()), { sizeBytes: 0, buckets: 0 });
 * ```
 */
export async function allReduceGradients(
  parameters: Parameters,
  communicator: Communicator,
  options: { bucketBytes?: number } = {},
): Promise<GradientExchange> {
  const ranges = parameters.blocks.map(({ gradient }) => {
    if (!gradient) {
      throw new TypeError("Cannot all-reduce gradients: expected trained parameters, found frozen ones");
    }
    return { ...gradient.range, sizeBytes: gradient.shape[0] * Float32Array.BYTES_PER_ELEMENT };
  });
  if (communicator.size === 1) return { sizeBytes: 0, buckets: 0 };
  const { queue } = parameters.gpu;
  const buckets = ranges.flatMap((range) => split(range, options.bucketBytes ?? BUCKET_BYTES));
  let previous: Bucket | undefined;
  for (const range of buckets) {
    const bucket = await startBucket(range, { queue, communicator });
    if (previous) await finishBucket(previous, queue);
    previous = bucket;
  }
  if (previous) await finishBucket(previous, queue);
  return { sizeBytes: ranges.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0), buckets: buckets.length };
}

/** Gradients on their way. */
interface Bucket {
  readonly range: BufferRange;
  readonly values: Float32Array<ArrayBuffer>;
  readonly reduced: Promise<void>;
}

async function startBucket(
  range: BufferRange,
  { queue, communicator }: { queue: CommandQueue; communicator: Communicator },
): Promise<Bucket> {
  const values = new Float32Array(await queue.read(range));
  const reduced = communicator.allReduce(values);
  // It is awaited after the next readback; until then a failure is not unhandled.
  reduced.catch(() => {});
  return { range, values, reduced };
}

async function finishBucket({ range, values, reduced }: Bucket, queue: CommandQueue): Promise<void> {
  await reduced;
  queue.write(range, new Uint8Array(values.buffer));
}

function split(range: BufferRange, bucketBytes: number): BufferRange[] {
  return Array.from({ length: Math.ceil(range.sizeBytes / bucketBytes) }, (_, index) => ({
    ...range,
    offsetBytes: range.offsetBytes + index * bucketBytes,
    sizeBytes: Math.min(bucketBytes, range.sizeBytes - index * bucketBytes),
  }));
}
