/**
 * Causal grouped-query attention over packed sequences.
 * @module
 */
import { attentionBackwardKv, attentionBackwardQ, attentionForward } from "../../shaders/attention.ts";
import type { Gpu } from "../gpu.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { type GradientTarget, record } from "../tape.ts";
import { emptyLike, scope, type Tensor, upload } from "../tensor.ts";
import { CPU_LOOP_LIMIT } from "./dispatch.ts";

/** Which tokens belong together, on the GPU for one submit: made once a batch, used by every layer. */
export interface SequenceBounds {
  /** `[N]`: first token of each token's sequence. */
  readonly starts: Tensor;
  /** `[N]`: one past the last token of each token's sequence. */
  readonly ends: Tensor;
  /** Tokens of the longest sequence. */
  readonly longest: number;
}

/**
 * Uploads the bounds of packed sequences.
 *
 * @param gpu the device
 * @param sequenceOffsets `[S + 1]`, ascending, from 0 to N
 * @param options.capacity tokens to reserve for
 * @returns `[N]` starts and ends, for the next submit only
 * @throws {RangeError} when the offsets do not ascend from 0
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const bounds = sequenceBounds(gpu, Uint32Array.of(0, 2, 5)); // tokens 0 and 1, then 2 to 4
 * assert.equal(bounds.longest, 3);
 * assert.deepEqual([...await toHost(bounds.starts)], [0, 0, 2, 2, 2]);
 * ```
 */
export function sequenceBounds(
  gpu: Gpu,
  sequenceOffsets: Uint32Array,
  options: { capacity?: number } = {},
): SequenceBounds {
  const tokens = sequenceOffsets.at(-1) ?? 0;
  const starts = new Uint32Array(tokens);
  const ends = new Uint32Array(tokens);
  let longest = 0;
  for (let s = 0; s + 1 < sequenceOffsets.length; s++) {
    const [start, end] = [sequenceOffsets[s], sequenceOffsets[s + 1]];
    if (end < start || (s === 0 && start !== 0)) {
      throw new RangeError(
        `Cannot pack sequences: expected offsets ascending from 0, found ${start} before ${end}`,
      );
    }
    starts.fill(start, start, end);
    ends.fill(end, start, end);
    longest = Math.max(longest, end - start);
  }
  return { starts: upload(gpu, starts, options), ends: upload(gpu, ends, options), longest };
}

/**
 * out[i, h] = sum over j of softmax_j(q[i, h] . k[j, g] / sqrt(D)) v[j, g], over the tokens j up to i of i's sequence;
 * g = floor(h K / H). No [T, T] matrix exists (arXiv 2205.14135).
 *
 * @param q `[N, H * D]`
 * @param k `[N, K * D]`
 * @param v `[N, K * D]`
 * @param options.headDim D, a multiple of four
 * @param options.bounds of the packed sequences
 * @returns `[N, H * D]`
 * @throws {ShapeError} when the shapes do not fit D, or H is no multiple of K
 * @throws {RangeError} when a sequence is longer than this adapter's loops can be
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const q = fromHost(gpu, new Float32Array(8), { shape: [2, 4] }); // zero: every token weighs the same
 * const v = fromHost(gpu, Float32Array.of(1, 1, 1, 1, 3, 3, 3, 3), { shape: [2, 4] });
 * const out = attention(q, q, v, { headDim: 4, bounds: sequenceBounds(gpu, Uint32Array.of(0, 2)) });
 * const [first, , , , second] = await toHost(out);
 * assert(Math.abs(first - 1) < 1e-6); // sees itself alone
 * assert(Math.abs(second - 2) < 1e-6); // the mean of both
 * ```
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: { headDim: number; bounds: SequenceBounds },
): Tensor {
  const shape = attentionShape(q, k, v, options);
  const { gpu } = q;
  const { bounds } = options;
  const { constants, params, rowTiles } = shape;
  const out = emptyLike(q);
  const lse = emptyLike(q, [params.tokens, params.heads]);
  gpu.dispatch(attentionForward, {
    constants,
    bindings: {
      q: q.range,
      k: k.range,
      v: v.range,
      starts: bounds.starts.range,
      lse: lse.range,
      out: out.range,
    },
    params,
    workgroups: [rowTiles, params.heads],
  });
  return record(gpu, {
    name: "attention",
    inputs: [q, k, v],
    output: out,
    backward: (dOut, sink) => {
      const unwanted = (like: Tensor): GradientTarget => ({ tensor: emptyLike(like), accumulate: false });
      scope(gpu, () => {
        const targets = {
          dQ: sink.into(q) ?? unwanted(q),
          dK: sink.into(k) ?? unwanted(k),
          dV: sink.into(v) ?? unwanted(v),
        };
        attentionBackward({ q, k, v, lse, out, dOut, bounds, ...targets }, shape);
      });
    },
  });
}

interface AttentionShape {
  readonly constants: { headDim: number; lanes: number };
  readonly params: { tokens: number; heads: number; kv_heads: number; scale: number };
  readonly rowTiles: number;
}

/** out = softmax(s) v, s = q . k scale: dS = prob (dOut . v - delta), dQ = dS k scale, dK = dS q scale, dV = prob dOut. */
function attentionBackward(
  saved:
    & Record<"q" | "k" | "v" | "lse" | "out" | "dOut", Tensor>
    & { bounds: SequenceBounds }
    & Record<"dQ" | "dK" | "dV", GradientTarget>,
  { constants, params, rowTiles }: AttentionShape,
): void {
  const { q, k, v, lse, out, dOut, bounds, dQ, dK, dV } = saved;
  const { gpu } = q;
  const delta = emptyLike(lse);
  gpu.dispatch(attentionBackwardQ, {
    constants,
    bindings: {
      q: q.range,
      k: k.range,
      v: v.range,
      starts: bounds.starts.range,
      lse: lse.range,
      out: out.range,
      d_out: dOut.range,
      delta: delta.range,
      d_q: dQ.tensor.range,
    },
    params: { ...params, accumulate: dQ.accumulate ? 1 : 0 },
    workgroups: [rowTiles, params.heads],
  });
  gpu.dispatch(attentionBackwardKv, {
    constants,
    bindings: {
      q: q.range,
      k: k.range,
      v: v.range,
      ends: bounds.ends.range,
      lse: lse.range,
      delta: delta.range,
      d_out: dOut.range,
      d_k: dK.tensor.range,
      d_v: dV.tensor.range,
    },
    params: { ...params, accumulate_k: dK.accumulate ? 1 : 0, accumulate_v: dV.accumulate ? 1 : 0 },
    workgroups: [rowTiles, params.kv_heads],
  });
}

function attentionShape(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { headDim, bounds }: { headDim: number; bounds: SequenceBounds },
): AttentionShape {
  const tokens = q.shape[0];
  const [heads, kvHeads] = [q.shape[1] / headDim, k.shape[1] / headDim];
  if (headDim % 4 !== 0 || !Number.isInteger(heads) || !Number.isInteger(kvHeads) || heads % kvHeads !== 0) {
    throw new ShapeError(
      `Cannot run attention: expected head_dim a multiple of 4, H a multiple of K, found head_dim ${headDim}, ` +
        `q [${q.shape.join(", ")}], k [${k.shape.join(", ")}]`,
    );
  }
  expectShape("attention", "k", k.shape, [tokens, kvHeads * headDim]);
  expectShape("attention", "v", v.shape, k.shape);
  if (k === v) {
    throw new ShapeError(
      "Cannot run attention: expected k and v in two tensors, found one: their gradients would meet",
    );
  }
  expectShape("attention", "the sequence bounds", bounds.starts.shape, [tokens]);
  const lanes = q.gpu.adapter.isCpu ? 8 : 64;
  const iterations = (bounds.longest + lanes) * (heads / kvHeads);
  if (q.gpu.adapter.isCpu && iterations > CPU_LOOP_LIMIT) {
    throw new RangeError(
      `Cannot run attention: expected at most ${CPU_LOOP_LIMIT} loop iterations on this software adapter, found ` +
        `${iterations} (sequence ${bounds.longest} x ${heads / kvHeads} heads a group)`,
    );
  }
  return {
    constants: { headDim, lanes },
    params: { tokens, heads, kv_heads: kvHeads, scale: 1 / Math.sqrt(headDim) },
    rowTiles: Math.ceil(tokens / lanes),
  };
}
