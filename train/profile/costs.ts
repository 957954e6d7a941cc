/**
 * What each kernel must do at least: operations, and bytes to and from memory. The one place that knows it; the kernels
 * themselves do not. A multiply-add counts as two operations, an exponential, a root and a division as one each.
 * @module
 */
import type { ObservedDispatch } from "../../engine/queue.ts";

/** The work of a dispatch, however it is done: a kernel that does more is no faster for it. */
export interface Cost {
  /** Floating-point operations; undefined where the kernel is not in the table. */
  readonly flops?: number;
  /** Each operand once: what is read, what is written, and again what is added to. */
  readonly bytes: number;
}

/** What parameters and ranges do not tell. */
export interface CostContext {
  /** Keys that a query sees, as a mean over the batch's tokens: (T + 1) / 2 in causal sequences of T tokens. */
  readonly attendedKeys: number;
}

/**
 * What a kernel is part of. `preference` is everything that a preference run does besides the model, its head's log-probs
 * and the optimizer: sums over sequences, the loss, SPO, CHES, a moving reference, and their backward. All that is not
 * named in the table is the model.
 */
export type StepPart = "model" | "preference" | "optimizer";

interface Work extends CostContext {
  readonly params: Readonly<Record<string, number>>;
  /** Compile-time constants that are numbers or flags. */
  readonly constants: Readonly<Record<string, number>>;
  /** Bytes of a bound range. */
  readonly bytes: (name: string) => number;
}

interface KernelCost {
  readonly flops: (work: Work) => number;
  /** Where it is not each bound range once. */
  readonly bytes?: (work: Work) => number;
  /** The model where absent. */
  readonly part?: StepPart;
}

const product = ({ params: { rows, vocab, columns } }: Work) => 2 * rows * vocab * columns;
const perElement = (flops: number): KernelCost => ({ flops: ({ params }) => flops * params.elements });
const perRowElement = (flops: number): KernelCost => ({
  flops: ({ params: { rows, columns } }) => flops * rows * columns,
});
const perHead = (flops: number): KernelCost => ({
  flops: ({ params: { rows, head_dim } }) => flops * rows * head_dim,
});
/** `products` inner or outer products of D elements for each query and key that meet. */
const attention = (products: number): KernelCost => ({
  flops: ({ params: { tokens, heads }, constants: { headDim }, attendedKeys }) =>
    2 * products * headDim * tokens * heads * attendedKeys,
});

/** Of the losses' small kernels what counts is that they run, not what they compute. */
const lossOf = (...names: string[]): KernelCost => ({
  flops: () => 0,
  bytes: ({ bytes }) => names.reduce((total, name) => total + bytes(name), 0),
  part: "preference",
});
/** Tokens of queries over a cache: each sees its own keys alone, however many slots and positions the cache has. */
const cachedAttention: KernelCost = {
  flops: ({ bytes, params: { heads }, constants: { headDim }, attendedKeys }) =>
    4 * headDim * heads * attendedKeys * bytes("positions") / 4,
  bytes: ({ bytes, params: { heads, kv_heads }, attendedKeys }) => {
    const perKey = bytes("qkv") / (heads + 2 * kv_heads) * 2 * kv_heads;
    const queries = bytes("qkv") * heads / (heads + 2 * kv_heads);
    return 2 * queries + bytes("slots") + bytes("positions") + perKey * attendedKeys;
  },
};

/** By kernel name: every kernel of the registry, which a test asserts. */
export const KERNEL_COSTS: Readonly<Record<string, KernelCost>> = {
  accumulate: { ...perElement(1), bytes: ({ bytes }) => bytes("part") + 2 * bytes("total") },
  adamw: {
    flops: ({ params }) => 14 * 4 * params.quads,
    bytes: ({ bytes }) => bytes("gradient") + 2 * (bytes("weight") + bytes("moment1") + bytes("moment2")),
    part: "optimizer",
  },
  activation_backward: perElement(8),
  activation_forward: perElement(4),
  add_forward: perElement(1),
  argmax_rows: perRowElement(0),
  // y is read where it is added to.
  axpby: {
    flops: ({ params }) => (params.b === 0 ? 1 : 3) * 4 * params.quads,
    bytes: ({ bytes, params }) => bytes("x") + (params.b === 0 ? 1 : 2) * bytes("y"),
    part: "preference",
  },
  // q k^T and p v.
  attention_rows_forward: attention(2),
  attention_tiles_forward: attention(2),
  // q k^T again, dOut v^T, dS k.
  attention_rows_backward_q: attention(3),
  attention_tiles_backward_q: attention(3),
  // q k^T again, dOut v^T, dS^T q, p^T dOut.
  attention_rows_backward_kv: attention(4),
  attention_tiles_backward_kv: attention(4),
  cached_attention_blocks: cachedAttention,
  cached_attention_combine: {
    flops: ({ params: { rows, splits }, constants: { headDim } }) => rows * splits * (2 * headDim + 4),
  },
  cached_attention_lanes: cachedAttention,
  // Only where a step failed: no part of a good one.
  finite_check: { flops: ({ params }) => params.words },
  // Sums of a completion's rows, then two inner products a pair.
  ches_scores: {
    flops: ({ bytes, params: { pairs, columns } }) => bytes("hidden") / 4 + 4 * pairs * columns,
    part: "preference",
  },
  clip_state: { flops: ({ params }) => params.count, part: "optimizer" },
  column_sum: perRowElement(1),
  column_sum_partial: perRowElement(1),
  // Of the table, the rows that are picked.
  embedding_forward: { flops: () => 0, bytes: ({ bytes }) => bytes("ids") + 2 * bytes("y") },
  embedding_backward: {
    flops: ({ bytes }) => bytes("d_y") / 4,
    bytes: ({ bytes, params, constants }) =>
      bytes("d_y") + bytes("places") +
      (params.accumulate ? 2 : 1) * 4 * constants.width * params.elements,
  },
  gather_rows_forward: { flops: () => 0, bytes: ({ bytes }) => bytes("rows") + 2 * bytes("y") },
  gather_rows_backward: { flops: () => 0 },
  head_norm_forward: perHead(4),
  head_norm_backward: perHead(8),
  head_norm_gain_partial: {
    flops: ({ params: { rows, heads, head_dim } }) => 3 * rows * heads * head_dim,
    // Of the packed heads, those that share the gain.
    bytes: ({ bytes, params: { heads, total } }) =>
      (bytes("x") + bytes("d_y") + bytes("rstd")) * heads / total + bytes("partial"),
  },
  kto_loss: lossOf("logps", "reference", "desirable", "d_logps"),
  // Of the packed heads, keys and values: read and written. Of the cache, the places that are written.
  kv_cache_write: {
    flops: () => 0,
    bytes: ({ bytes, params: { row_quads, kv_quads } }) =>
      2 * bytes("qkv") * kv_quads / row_quads + bytes("slots") + bytes("positions"),
  },
  layer_norm_forward: perRowElement(7),
  layer_norm_backward: perRowElement(11),
  layer_norm_gain_partial: perRowElement(5),
  lora_collect: { flops: ({ params }) => params.rows * params.rank },
  lora_spread: {
    flops: () => 0,
    bytes: ({ bytes, params }) => bytes("b") + 4 * params.rows * params.columns,
  },
  matmul: { flops: ({ params: { m, n, k } }) => 2 * m * n * k },
  matmul_pair: { flops: ({ params: { m, n, k, k2 } }) => 2 * m * n * (k + k2) },
  matmul_rows: { flops: ({ params: { m, n, k } }) => 2 * m * n * k },
  // y is read and written.
  mix: {
    flops: ({ params }) => 3 * 4 * params.quads,
    bytes: ({ bytes, constants: { copy } }) => bytes("x") + 2 * bytes("y") + (copy ? bytes("copy") : 0),
    part: "preference",
  },
  pair_loss: lossOf("logps", "reference", "lengths", "d_logps"),
  pair_weights: { flops: ({ params }) => 4 * params.pairs, part: "preference" },
  rms_norm_forward: perRowElement(4),
  rms_norm_backward: perRowElement(8),
  rms_norm_weight_partial: perRowElement(3),
  // Rotates half of its columns with the other half, where they lie: read and written.
  rope: {
    flops: ({ params }) => 6 * params.rows * params.heads * params.half,
    // The rotated heads alone, in place, and of the table every token's row, which all heads share.
    bytes: ({ bytes, params: { rows, heads, half } }) =>
      bytes("positions") + 4 * rows * (2 * 2 * heads * half + 2 * half),
  },
  scale_by_scalar: { flops: ({ params }) => 2 * params.rows, part: "preference" },
  scaled_sum: {
    flops: ({ params, constants: { weighted } }) => (weighted ? 2 : 1) * params.rows,
    bytes: ({ params, constants: { weighted } }) => (weighted ? 2 : 1) * 4 * params.rows,
    part: "preference",
  },
  segment_sum: { flops: ({ bytes }) => bytes("values") / 4, part: "preference" },
  segment_sum_backward: { flops: () => 0, part: "preference" },
  sequence_statistics: { flops: ({ bytes }) => 5 * bytes("logps") / 4, part: "preference" },
  spo_penalty: lossOf("lower", "loss", "slope"),
  square_sum_partial: { flops: ({ params }) => 8 * params.quads, part: "optimizer" },
  statistics_metrics: { flops: ({ params }) => 4 * params.segments, part: "preference" },
  swiglu_forward: perRowElement(5),
  swiglu_backward: perRowElement(11),
  swiglu_linear_forward: { flops: ({ params: { m, f, k } }) => m * f * (4 * k + 5) },
  token_logps_partial: { flops: product },
  token_logps_combine: { flops: ({ params: { rows, chunks } }) => 4 * rows * chunks },
  token_logps_backward: { flops: product },
};

/**
 * @param dispatch what is dispatched
 * @param context of its batch
 * @returns its cost; of a kernel that is not in the table, bytes alone
 */
export function costOf(dispatch: ObservedDispatch, context: CostContext): Cost {
  const known = Object.hasOwn(KERNEL_COSTS, dispatch.name) ? KERNEL_COSTS[dispatch.name] : undefined;
  if (!known) return { bytes: boundBytes(dispatch) };
  const work: Work = {
    ...context,
    params: dispatch.params,
    constants: dispatch.constants as Readonly<Record<string, number>>,
    bytes: (name) => dispatch.bindings[name].sizeBytes,
  };
  return { flops: known.flops(work), bytes: known.bytes?.(work) ?? boundBytes(dispatch) };
}

/** @param name of a kernel */
export function partOf(name: string): StepPart {
  return (Object.hasOwn(KERNEL_COSTS, name) ? KERNEL_COSTS[name].part : undefined) ?? "model";
}

/**
 * Every bound range once, and what is written a second time where the kernel adds to it. A range bound in place of an
 * absent operand is another operand's, and counts with that.
 */
function boundBytes({ source, bindings, params }: ObservedDispatch): number {
  const adds = Object.entries(params).some(([name, value]) => name.startsWith("accumulate") && value !== 0);
  const counted = new Set<string>();
  return Object.entries(source.bindings).reduce((total, [name, { access }]) => {
    const { allocation, offsetBytes, sizeBytes } = bindings[name];
    const key = `${allocation.id}:${offsetBytes}:${sizeBytes}`;
    if (counted.has(key)) return total;
    counted.add(key);
    return total + sizeBytes * (access === "read_write" && adds ? 2 : 1);
  }, 0);
}
