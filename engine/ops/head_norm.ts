/**
 * RMSNorm of query and key heads.
 * @module
 */
import {
  headNormBackward,
  headNormForward,
  headNormGainPartial,
  HEADS_PER_PARTIAL,
} from "../../shaders/head_norm.ts";
import { rowWorkgroups } from "../../shaders/lib.ts";
import { expectShape } from "../shape.ts";
import { type GradientTarget, record } from "../tape.ts";
import { empty, emptyLike, expectType, scope, type Tensor } from "../tensor.ts";
import { sumPartials } from "./column_sum.ts";
import { rowLanes, rowOperands } from "./dispatch.ts";

/** How the columns of qkv are cut into heads, and what they are multiplied by. */
export interface HeadNormOptions {
  /** `[D]`, f32: gain of every query head. */
  readonly q: Tensor;
  /** `[D]`, f32: gain of every key head. */
  readonly k: Tensor;
  /** H, query heads. */
  readonly heads: number;
  /** K, key heads, and as many value heads. */
  readonly kvHeads: number;
  /** Added to the mean square. */
  readonly eps: number;
}

/**
 * RMSNorm over each query head and each key head of packed queries, keys and values; values stay as they are. Qwen3's
 * q_norm and k_norm (arXiv 2505.09388), before the rotation.
 *
 * @param qkv `[N, (H + 2 K) D]`, f32 or f16 (D divides by four then)
 * @param options heads, gains and eps
 * @returns `[N, (H + 2 K) D]`, stored as qkv
 * @throws {ShapeError} when the gains are not `[D]` in f32, or qkv has other columns
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const qkv = fromHost(gpu, Float32Array.of(3, 3, 5, 5, 7, 7), { shape: [1, 6] });
 * const q = fromHost(gpu, Float32Array.of(1, 2), { shape: [2] });
 * const k = fromHost(gpu, Float32Array.of(4, 4), { shape: [2] });
 * const y = await toHost(headNorm(qkv, { q, k, heads: 1, kvHeads: 1, eps: 1e-6 }));
 * assert.deepEqual([...y].map(Math.round), [1, 2, 4, 4, 7, 7]);
 * ```
 */
export function headNorm(qkv: Tensor, options: HeadNormOptions): Tensor {
  const { q, k, heads, kvHeads, eps } = options;
  const [headDim] = q.shape;
  const total = heads + 2 * kvHeads;
  for (const [what, tensor] of [["the gain of queries", q], ["the gain of keys", k]] as const) {
    expectShape("head_norm", what, tensor.shape, [headDim]);
    expectType("head_norm", what, tensor, "f32");
  }
  expectShape("head_norm", "qkv", qkv.shape, [-1, total * headDim]);
  const { gpu, shape: [tokens] } = qkv;
  const constants = { ...rowOperands("head_norm", qkv, headDim), ...rowLanes(gpu) };
  const workgroups = rowWorkgroups(constants.lanes, tokens * total);
  const params = { rows: tokens * total, heads, kv_heads: kvHeads, head_dim: headDim };
  const y = emptyLike(qkv, qkv.shape, { type: qkv.type });
  const rstd = emptyLike(qkv, [tokens, total]);
  const saved = { x: qkv.range, q: q.range, k: k.range, rstd: rstd.range };
  gpu.dispatch(headNormForward, {
    constants,
    bindings: { ...saved, y: y.range },
    params: { ...params, eps },
    workgroups,
  });
  return record(gpu, {
    name: "head_norm",
    inputs: [qkv, q, k],
    output: y,
    // The rotation follows in place.
    isOutputFree: true,
    backward: (dY, sink) => {
      const dX = sink.into(qkv);
      // y = x r w, r = rstd: with g = dY w, dX = r (g - x r^2 mean(g x)); of values dX = dY
      if (dX) {
        gpu.dispatch(headNormBackward, {
          constants,
          bindings: { ...saved, d_y: dY.range, d_x: dX.tensor.range },
          params: { ...params, accumulate: dX.accumulate ? 1 : 0 },
          workgroups,
        });
      }
      const gradient = (gain: Tensor, place: { first: number; heads: number }) => {
        const target = sink.into(gain);
        if (target) gainGradient({ qkv, rstd, dY }, { ...place, headDim, target });
      };
      gradient(q, { first: 0, heads });
      gradient(k, { first: heads, heads: kvHeads });
    },
  });
}

/** y = x r w: dW = sum over the heads that share it of dY x r, in two stages with a fixed order. */
function gainGradient(
  { qkv, rstd, dY }: Record<"qkv" | "rstd" | "dY", Tensor>,
  options: { first: number; heads: number; headDim: number; target: GradientTarget },
): void {
  const { first, heads, headDim, target } = options;
  const { gpu, capacity, shape: [rows, columns] } = qkv;
  const constants = rowOperands("head_norm", qkv, headDim);
  const blocks = Math.ceil(rows * heads / HEADS_PER_PARTIAL);
  scope(gpu, () => {
    const partial = empty(gpu, [blocks, headDim], {
      capacity: Math.ceil(capacity * heads / HEADS_PER_PARTIAL),
    });
    gpu.dispatch(headNormGainPartial, {
      constants,
      bindings: { x: qkv.range, rstd: rstd.range, d_y: dY.range, partial: partial.range },
      params: { rows, first, heads, total: columns / headDim, head_dim: headDim },
      workgroups: [Math.ceil(headDim / constants.width / 32), blocks],
    });
    sumPartials(partial, target);
  });
}
