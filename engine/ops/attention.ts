/**
 * Causal grouped-query attention over packed sequences.
 * @module
 */
import type { AttentionKernels } from "../../shaders/attention.ts";
import { ATTENTION_ROWS, ROW_LANES, rowsPerWorkgroup } from "../../shaders/attention_rows.ts";
import { ATTENTION_TILES, TILE_ROWS, tileBytes, tileIterations } from "../../shaders/attention_tiles.ts";
import type { Gpu } from "../gpu.ts";
import { expectShape, ShapeError } from "../shape.ts";
import { type GradientTarget, record } from "../tape.ts";
import { emptyLike, scope, storageOf, type Tensor } from "../tensor.ts";
import { CPU_LOOP_LIMIT } from "./dispatch.ts";
import type { SequenceBounds } from "./sequence_bounds.ts";

/** Wider heads would leave no registers for the results of a row. */
const MAX_HEAD_DIM = 256;

/** How the columns of qkv are cut into heads, and which tokens see each other. */
export interface AttentionOptions {
  /** D, a multiple of four up to 256. */
  readonly headDim: number;
  /** H, query heads. */
  readonly heads: number;
  /** K, key and value heads, a divisor of H. */
  readonly kvHeads: number;
  /** Of the packed sequences. */
  readonly bounds: SequenceBounds;
}

/**
 * out[i, h] = sum over j of softmax_j(q[i, h] . k[j, g] / sqrt(D)) v[j, g], over the tokens j that i sees: those before
 * it in its sequence, and itself; g = floor(h K / H). No [T, T] matrix exists (arXiv 2205.14135).
 *
 * @param qkv `[N, (H + 2 K) D]`, f32 or f16: a token's query heads, key heads, value heads, rotated already
 * @param options heads and sequences
 * @returns `[N, H * D]`, stored as qkv
 * @throws {ShapeError} when the shapes do not fit, or H is no multiple of K
 * @throws {RangeError} when a sequence is longer than this adapter's loops can be
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, sequenceBounds, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * // Queries and keys are zero, so every token weighs the same; the values are 1 and 3.
 * const qkv = fromHost(gpu, Float32Array.from({ length: 24 }, (_, i) => [0, 0, 1, 0, 0, 3][i >> 2]), { shape: [2, 12] });
 * const bounds = sequenceBounds(gpu, { segmentOffsets: Uint32Array.of(0, 2) });
 * const [first, , , , second] = await toHost(attention(qkv, { headDim: 4, heads: 1, kvHeads: 1, bounds }));
 * assert(Math.abs(first - 1) < 1e-6); // sees itself alone
 * assert(Math.abs(second - 2) < 1e-6); // the mean of both
 * ```
 */
export function attention(qkv: Tensor, options: AttentionOptions): Tensor {
  const plan = planAttention(qkv, options);
  const { gpu } = qkv;
  const { kernels, constants, params, rowTiles } = plan;
  const out = emptyLike(qkv, [params.tokens, params.heads * options.headDim], { type: qkv.type });
  const lse = emptyLike(qkv, [params.tokens, params.heads]);
  gpu.dispatch(kernels.forward, {
    constants,
    bindings: { qkv: qkv.range, bounds: options.bounds.rows.range, lse: lse.range, out: out.range },
    params,
    workgroups: [rowTiles, params.heads],
  });
  return record(gpu, {
    name: "attention",
    inputs: [qkv],
    output: out,
    backward: (dOut, sink) => {
      const dQkv = sink.into(qkv);
      if (dQkv) scope(gpu, () => attentionBackward({ qkv, lse, out, dOut, dQkv, ...options }, plan));
    },
  });
}

/** How the op is run: which kernels, and what both directions tell them. */
interface AttentionPlan<Constants = unknown> {
  readonly kernels: AttentionKernels<Constants>;
  readonly constants: Constants;
  readonly params: { tokens: number; heads: number; kv_heads: number; scale: number };
  readonly rowTiles: number;
}

/** out = softmax(s) v, s = q . k scale: dS = prob (dOut . v - delta), dQ = dS k scale, dK = dS q scale, dV = prob dOut. */
function attentionBackward(
  saved: Record<"qkv" | "lse" | "out" | "dOut", Tensor> & { bounds: SequenceBounds; dQkv: GradientTarget },
  { kernels, constants, params, rowTiles }: AttentionPlan,
): void {
  const { qkv, lse, out, dOut, bounds, dQkv } = saved;
  const { gpu } = qkv;
  const delta = emptyLike(lse);
  const shared = {
    qkv: qkv.range,
    bounds: bounds.rows.range,
    lse: lse.range,
    delta: delta.range,
    d_out: dOut.range,
    d_qkv: dQkv.tensor.range,
  };
  const backwardParams = { ...params, accumulate: dQkv.accumulate ? 1 : 0 };
  gpu.dispatch(kernels.backwardQ, {
    constants,
    bindings: { ...shared, out: out.range },
    params: backwardParams,
    workgroups: [rowTiles, params.heads],
  });
  gpu.dispatch(kernels.backwardKv, {
    constants,
    bindings: shared,
    params: backwardParams,
    workgroups: [rowTiles, params.kv_heads],
  });
}

function planAttention(qkv: Tensor, options: AttentionOptions): AttentionPlan {
  const { headDim, heads, kvHeads, bounds } = options;
  const positive = [headDim, heads, kvHeads].every((extent) => Number.isInteger(extent) && extent > 0);
  if (!positive || headDim % 4 !== 0 || headDim > MAX_HEAD_DIM || heads % kvHeads !== 0) {
    throw new ShapeError(
      `Cannot run attention: expected head_dim a multiple of 4 up to ${MAX_HEAD_DIM}, H a multiple of K, found ` +
        `head_dim ${headDim}, ` +
        `H ${heads}, K ${kvHeads}`,
    );
  }
  expectShape("attention", "qkv", qkv.shape, [-1, (heads + 2 * kvHeads) * headDim]);
  const [tokens] = qkv.shape;
  expectShape("attention", "the sequence bounds", bounds.rows.shape, [tokens, 4]);
  const params = { tokens, heads, kv_heads: kvHeads, scale: 1 / Math.sqrt(headDim) };
  const { gpu } = qkv;
  refuseLongLoops(gpu, options);
  const shape = { headDim, storage: storageOf(qkv) };
  if (fitsRows(gpu, headDim)) {
    const constants = { ...shape, rows: 1 };
    return erase({
      kernels: ATTENTION_ROWS,
      constants,
      params,
      rowTiles: Math.ceil(tokens / rowsPerWorkgroup(constants)),
    });
  }
  const constants = { ...shape, lanesX: tileLanes(gpu, headDim) };
  return erase({ kernels: ATTENTION_TILES, constants, params, rowTiles: Math.ceil(tokens / TILE_ROWS) });
}

/** On a CPU adapter whose subgroup is a workgroup of the row kernels; wider heads would compile for minutes there. */
function fitsRows({ adapter }: Gpu, headDim: number): boolean {
  return adapter.isCpu && adapter.subgroupSize === ROW_LANES && headDim <= 64;
}

/**
 * Lanes that share a head's columns: sixteen for the widest, where the registers of eight would not hold them, if the
 * adapter has the workgroup memory.
 *
 * @throws {RangeError} when it has not even that of eight
 */
function tileLanes({ device }: Gpu, headDim: number): 8 | 16 {
  const available = device.limits.maxComputeWorkgroupStorageSize;
  const bytes = (lanesX: 8 | 16) => tileBytes({ headDim, lanesX });
  if (headDim > 128 && bytes(16) <= available) return 16;
  if (bytes(8) <= available) return 8;
  throw new RangeError(
    `Cannot run attention: expected at most ${available} bytes of workgroup memory on this adapter, found ` +
      `${bytes(8)} for head_dim ${headDim}`,
  );
}

/** Sound because a plan's constants are those of its kernels: the pair is made here and nowhere else. */
function erase<Constants>(plan: AttentionPlan<Constants>): AttentionPlan {
  return plan as unknown as AttentionPlan;
}

/**
 * Checks what a replayed graph does not: an invocation walks all tiles of keys that its queries see, or all tiles of
 * queries of all heads that see its keys.
 *
 * @throws {RangeError} when that is more than this adapter's loops can do
 */
export function refuseLongLoops(
  gpu: Gpu,
  { headDim, heads, kvHeads, bounds }: {
    headDim: number;
    heads: number;
    kvHeads: number;
    bounds: Pick<SequenceBounds, "longest" | "readers">;
  },
): void {
  const tile = fitsRows(gpu, headDim)
    ? { rows: ROW_LANES, iterations: 1 }
    : { rows: TILE_ROWS, iterations: tileIterations({ headDim, lanesX: tileLanes(gpu, headDim) }) };
  const group = heads / kvHeads;
  const tokens = Math.max(bounds.longest, bounds.readers);
  // Tiles at both ends may overhang, and there are two ranges.
  const iterations = (Math.ceil(tokens / tile.rows) + 3) * tile.iterations * group;
  if (gpu.adapter.isCpu && iterations > CPU_LOOP_LIMIT) {
    throw new RangeError(
      `Cannot run attention: expected at most ${CPU_LOOP_LIMIT} loop iterations on this software adapter, found ` +
        `${iterations} (${tokens} tokens x ${group} heads a group)`,
    );
  }
}
