/**
 * Which tokens of a packed batch see each other.
 * @module
 */
import type { Gpu } from "../gpu.ts";
import { type Tensor, upload } from "../tensor.ts";

/** Segments of tokens laid end to end; each may continue an earlier one. */
export interface Segments {
  /** `[G + 1]` where each segment starts, ascending from 0; the last entry is N. */
  readonly segmentOffsets: Uint32Array;
  /**
   * `[G]` for each segment the earlier one that it continues, or itself. Without it, segments are whole sequences. Those
   * that continue one follow it with none but each other between.
   */
  readonly prefixSegments?: Uint32Array;
}

/** Sequence bounds on the host. */
export interface HostBounds {
  /**
   * `[capacity, 4]`, for token t: its own sequence's start, start and end of the prefix before that, end of the readers
   * of its key. Token i sees key j in [own start, i] and in [prefix start, prefix end); tokens past N see themselves.
   */
  readonly values: Uint32Array;
  /** N. */
  readonly tokens: number;
  /** Keys that one token sees, at most. */
  readonly longest: number;
  /** Tokens between a key and the end of its readers, at most. */
  readonly readers: number;
}

/** Sequence bounds on the GPU: made once a batch, used by every layer. */
export interface SequenceBounds extends Omit<HostBounds, "values" | "tokens"> {
  /** `[N, 4]`, see {@link HostBounds.values}. */
  readonly rows: Tensor;
}

/**
 * Computes which tokens see each other.
 *
 * @param segments of N tokens together
 * @param options.capacity tokens to reserve for, N by default
 * @returns the bounds, for {@link sequenceBounds} or a buffer that is refilled
 * @throws {RangeError} when offsets do not ascend from 0, or a segment continues one that is not right before it
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * // Token 0 is the prompt of the answers 1 and 2 to 3.
 * const segments = { segmentOffsets: Uint32Array.of(0, 1, 2, 4), prefixSegments: Uint32Array.of(0, 0, 0) };
 * const { values, longest } = hostBounds(segments);
 * assert.deepEqual([...values.subarray(12)], [2, 0, 1, 4]); // token 3 sees 2 and 3, and 0
 * assert.equal(longest, 3);
 * ```
 */
export function hostBounds(segments: Segments, options: { capacity?: number } = {}): HostBounds {
  const { segmentOffsets } = segments;
  const tokens = checkSegments(segments);
  const capacity = Math.max(options.capacity ?? tokens, tokens);
  const values = new Uint32Array(4 * capacity);
  let [longest, readers] = [0, 0];
  for (let g = 0; g + 1 < segmentOffsets.length; g++) {
    const [start, end] = [segmentOffsets[g], segmentOffsets[g + 1]];
    const { ownStart, prefixStart, prefixEnd, readersEnd } = segmentBounds(segments, g);
    for (let t = start; t < end; t++) values.set([ownStart, prefixStart, prefixEnd, readersEnd], 4 * t);
    if (end === start) continue;
    longest = Math.max(longest, end - ownStart + prefixEnd - prefixStart);
    readers = Math.max(readers, readersEnd - start);
  }
  for (let t = tokens; t < capacity; t++) values.set([t, t, t, t + 1], 4 * t);
  return { values, tokens, longest, readers };
}

/**
 * Uploads the bounds of packed sequences.
 *
 * @param gpu the device
 * @param segments of N tokens together
 * @param options.capacity tokens to reserve for, N by default
 * @returns the bounds, for the next submit only
 * @throws {RangeError} as {@link hostBounds}
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const bounds = sequenceBounds(gpu, { segmentOffsets: Uint32Array.of(0, 2, 5) }); // tokens 0 and 1, then 2 to 4
 * assert.equal(bounds.longest, 3);
 * assert.deepEqual([...await toHost(bounds.rows)].slice(8, 12), [2, 2, 2, 5]);
 * ```
 */
export function sequenceBounds(
  gpu: Gpu,
  segments: Segments,
  options: { capacity?: number } = {},
): SequenceBounds {
  const { values, tokens, longest, readers } = hostBounds(segments, options);
  return {
    rows: upload(gpu, values, { shape: [tokens, 4], capacity: values.length / 4 }),
    longest,
    readers,
  };
}

/** A segment right behind its prefix is one range with it: only a later one has two. */
function segmentBounds({ segmentOffsets, prefixSegments }: Segments, g: number) {
  const [start, end] = [segmentOffsets[g], segmentOffsets[g + 1]];
  const prefix = prefixSegments?.[g] ?? g;
  const [prefixStart, prefixEnd] = [segmentOffsets[prefix], segmentOffsets[prefix + 1]];
  if (prefix !== g && prefixEnd < start) return { ownStart: start, prefixStart, prefixEnd, readersEnd: end };
  let last = g;
  while (prefix === g && prefixSegments?.[last + 1] === g) last++;
  return {
    ownStart: prefixStart,
    prefixStart,
    prefixEnd: prefixStart,
    readersEnd: segmentOffsets[last + 1],
  };
}

/** @returns N */
function checkSegments({ segmentOffsets, prefixSegments }: Segments): number {
  segmentOffsets.forEach((start, g) => {
    const before = g === 0 ? 0 : segmentOffsets[g - 1];
    if (start < before || (g === 0 && start !== 0)) {
      throw new RangeError(
        g === 0
          ? `Cannot pack sequences: expected offsets ascending from 0, found ${start} first`
          : `Cannot pack sequences: expected offsets ascending from 0, found ${start} after ${before}`,
      );
    }
  });
  const count = Math.max(0, segmentOffsets.length - 1);
  if (prefixSegments && prefixSegments.length !== count) {
    throw new RangeError(
      `Cannot pack sequences: expected prefixes of ${count} segments, found ${prefixSegments.length}`,
    );
  }
  prefixSegments?.forEach((prefix, g) => {
    const continues = g > 0 && (prefix === g - 1 || prefix === prefixSegments[g - 1]) &&
      prefixSegments[prefix] === prefix;
    if (prefix !== g && !continues) {
      throw new RangeError(
        `Cannot pack sequences: expected segment ${g} to continue itself or the sequence before it, found ${prefix}`,
      );
    }
  });
  return segmentOffsets.at(-1) ?? 0;
}
