/**
 * The fused language-model head: log-probabilities of labels, without logits in memory.
 * @module
 */
import {
  COMBINE_WORKGROUP,
  partialSize,
  tokenLogpsBackward,
  tokenLogpsCombine,
  type TokenLogpsConstants,
  tokenLogpsPartial,
} from "../../shaders/token_logps.ts";
import { tileCols, tileRows } from "../../shaders/tile.ts";
import { expectShape } from "../shape.ts";
import { type GradientSink, type GradientTarget, record } from "../tape.ts";
import {
  elementBytes,
  empty,
  emptyLike,
  expectQuads,
  scope,
  slice,
  storageOf,
  type Tensor,
} from "../tensor.ts";
import { accumulateInto } from "./accumulate.ts";
import { CPU_LOOP_LIMIT, productTile } from "./dispatch.ts";
import { eachShard } from "./embedding.ts";
import { multiply } from "./matmul.ts";

/** Columns a workgroup of the forward walks at least: below that, joining chunks costs more than it spreads. */
const MIN_CHUNK = 256;
/** Chunks of a large vocabulary: enough workgroups for a GPU with few rows. */
const MAX_CHUNKS = 32;
/** Elements of the backward's scratch slab: 16 MB, whatever the vocabulary. */
const SLAB_ELEMENTS = 1 << 22;
/**
 * Ids of a slab at most, however few the rows. dHidden sums over a slab in one run, where the many unlikely ids vanish
 * beside what is summed already; and software adapters stop long loops.
 */
const MAX_SLAB_IDS = 1 << 12;
/** Slabs start at multiples of this many ids, which keeps every slab's offset aligned for binding. */
const SLAB_ALIGNMENT = 64;

/**
 * Labels for {@link tokenLogps}, checked.
 *
 * @param labels `[r]`
 * @param options.vocab V, rows of the head
 * @param options.length R, at least r; the padding's label is 0
 * @returns `[R]`, to upload
 * @throws {RangeError} on a label that is not a row of the head
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual([...hostLabels([5, 7], { vocab: 8, length: 3 })], [5, 7, 0]);
 * assert.throws(() => hostLabels([8], { vocab: 8 }), RangeError);
 * ```
 */
export function hostLabels(
  labels: ArrayLike<number>,
  options: { vocab: number; length?: number },
): Uint32Array<ArrayBuffer> {
  const { vocab, length = labels.length } = options;
  const padded = new Uint32Array(length);
  for (let position = 0; position < labels.length; position++) {
    const label = labels[position];
    if (!(label >= 0 && label < vocab)) {
      throw new RangeError(
        `Cannot index labels: expected them below ${vocab}, found ${label} at position ${position}`,
      );
    }
    padded[position] = label;
  }
  return padded;
}

/**
 * logps[r] = log softmax(hidden[r] . lmHead^T)[labels[r]], in f32 whatever the operands' types are.
 *
 * @param hidden `[R, C]`, f32 or f16: only rows whose label counts (see `gatherRows`)
 * @param lmHead `[V, C]` as row shards, in order; f32, f16 or bf16
 * @param labels `[R]`, u32, each below V: see {@link hostLabels}
 * @returns `[R]`, in nats
 * @throws {ShapeError} when the widths differ or do not divide by four where 16 bits are read, or the number of labels
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, upload } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const hidden = fromHost(gpu, new Float32Array(4), { shape: [1, 4] }); // zero: all ids are equally likely
 * const lmHead = fromHost(gpu, new Float32Array(32).fill(1), { shape: [8, 4] });
 * const labels = upload(gpu, hostLabels([5], { vocab: 8 }));
 * const [logp] = await toHost(tokenLogps(hidden, [lmHead], labels));
 * assert(Math.abs(logp + Math.log(8)) < 1e-6);
 * ```
 */
export function tokenLogps(hidden: Tensor, lmHead: readonly Tensor[], labels: Tensor): Tensor {
  return evaluate(hidden, lmHead, { labels });
}

/** Log-probs of R labels, and what the logits that they come from look like. */
export interface TokenStatistics {
  /** `[R]`, in nats. */
  readonly logps: Tensor;
  /**
   * `[R, 4]`, without gradient: the distribution's entropy in nats, the mean of the logits over the vocabulary, 1 where the
   * label is the likeliest id (of equal ones the lowest) and 0 elsewhere, and log sum of p^2.
   */
  readonly statistics: Tensor;
}

/**
 * The same as {@link tokenLogps}, bit for bit, with statistics of the logits from the same walk over the vocabulary.
 *
 * @param hidden as there
 * @param lmHead as there
 * @param labels as there
 * @returns the log-probs, and the statistics
 * @throws {ShapeError} as there
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, upload } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const hidden = fromHost(gpu, new Float32Array(4), { shape: [1, 4] }); // zero: all ids are equally likely
 * const lmHead = fromHost(gpu, new Float32Array(32).fill(1), { shape: [8, 4] });
 * const labels = upload(gpu, hostLabels([0], { vocab: 8 }));
 * const [entropy, meanLogit, hit, logSquares] = await toHost(
 *   tokenLogpsWithStatistics(hidden, [lmHead], labels).statistics,
 * );
 * assert(Math.abs(entropy - Math.log(8)) < 1e-6);
 * assert.deepEqual([meanLogit, hit], [0, 1]); // of equal ids the first is the likeliest
 * assert(Math.abs(logSquares + Math.log(8)) < 1e-6);
 * ```
 */
export function tokenLogpsWithStatistics(
  hidden: Tensor,
  lmHead: readonly Tensor[],
  labels: Tensor,
): TokenStatistics {
  const statistics = emptyLike(hidden, [hidden.shape[0], 4]);
  return { logps: evaluate(hidden, lmHead, { labels, statistics }), statistics };
}

/** Both forms: with a tensor for the statistics they are written there. */
function evaluate(
  hidden: Tensor,
  lmHead: readonly Tensor[],
  { labels, statistics }: { labels: Tensor; statistics?: Tensor },
): Tensor {
  expectShape("token_logps", "hidden", hidden.shape, [labels.shape[0], -1]);
  const { gpu, shape: [rows, columns] } = hidden;
  for (const shard of lmHead) expectShape("token_logps", "lmHead", shard.shape, [-1, columns]);
  expectQuads("token_logps", columns, [hidden, ...lmHead].map(storageOf));
  const lse = emptyLike(hidden, [rows]);
  const logps = emptyLike(hidden, [rows]);
  forward(hidden, lmHead, { labels, lse, logps, statistics });
  return record(gpu, {
    name: "token_logps",
    inputs: [hidden, ...lmHead],
    output: logps,
    backward: (dLogps, sink) => backward(hidden, lmHead, { labels, lse, dLogps, sink }),
  });
}

function forward(
  hidden: Tensor,
  lmHead: readonly Tensor[],
  out: Record<"labels" | "lse" | "logps", Tensor> & { statistics?: Tensor },
): void {
  const { gpu, shape: [rows, columns] } = hidden;
  const tile = productTile(gpu);
  const plan = planChunks(lmHead, {
    tileColumns: tileCols(tile),
    columns,
    isCpu: gpu.adapter.isCpu,
  });
  const statistics = out.statistics !== undefined;
  scope(gpu, () => {
    const partial = emptyLike(hidden, [rows, plan.chunks, partialSize(statistics)]);
    let firstChunk = 0;
    eachShard(lmHead, (shard, firstId) => {
      const chunks = Math.ceil(shard.shape[0] / plan.chunk);
      gpu.dispatch(tokenLogpsPartial, {
        constants: { ...constantsFor(hidden, shard), ...(statistics ? { statistics } : {}) },
        bindings: {
          hidden: hidden.range,
          weight: shard.range,
          labels: out.labels.range,
          partial: partial.range,
        },
        params: {
          rows,
          vocab: shard.shape[0],
          columns,
          chunk: plan.chunk,
          chunks: plan.chunks,
          first_chunk: firstChunk,
          first_id: firstId,
        },
        workgroups: [chunks, Math.ceil(rows / tileRows(tile))],
      });
      firstChunk += chunks;
    });
    gpu.dispatch(tokenLogpsCombine, {
      constants: { statistics },
      bindings: {
        partial: partial.range,
        lse: out.lse.range,
        logps: out.logps.range,
        ...(out.statistics ? { statistics: out.statistics.range } : {}),
      },
      params: { rows, chunks: plan.chunks, ...(statistics ? { vocab: vocabOf(lmHead) } : {}) },
      workgroups: Math.ceil(rows / COMBINE_WORKGROUP),
    });
  });
}

/** What the head's kernels are specialised on for these operands. */
function constantsFor(hidden: Tensor, weight: Tensor): TokenLogpsConstants {
  return {
    tile: productTile(hidden.gpu),
    vector: hidden.shape[1] % 4 === 0,
    storage: { a: storageOf(hidden), b: storageOf(weight) },
  };
}

/** logp = z[label] - lse, z = hidden . W^T: dZ = dLogp (1[label] - exp(z - lse)), dHidden = dZ W, dW = dZ^T hidden. */
function backward(
  hidden: Tensor,
  lmHead: readonly Tensor[],
  saved: Record<"labels" | "lse" | "dLogps", Tensor> & { sink: GradientSink },
): void {
  const { gpu, shape: [rows, columns] } = hidden;
  const dHidden = saved.sink.into(hidden);
  let written = dHidden?.accumulate ?? false;
  const affordable = Math.floor(SLAB_ELEMENTS / hidden.capacity / SLAB_ALIGNMENT) * SLAB_ALIGNMENT;
  const largest = Math.max(...lmHead.map((shard) => shard.shape[0]));
  const needed = Math.ceil(largest / SLAB_ALIGNMENT) * SLAB_ALIGNMENT;
  const slabRows = Math.min(needed, MAX_SLAB_IDS, Math.max(SLAB_ALIGNMENT, affordable));
  scope(gpu, () => {
    const room = emptyLike(hidden, [rows, slabRows], { type: hidden.type });
    eachShard(lmHead, (shard, firstId) => {
      const dShard = saved.sink.into(shard);
      for (const [start, count] of slabs(shard.shape[0], slabRows)) {
        const place = { shape: [count, columns], offset: start * columns };
        const slab = padToQuads(hidden, slice(shard, place));
        const dLogits = firstColumns(room, slab.shape[0]);
        slabGradient(hidden, slab, { ...saved, dLogits, firstId: firstId + start });
        if (dHidden) multiply("NN", dLogits, slab, { tensor: dHidden.tensor, accumulate: written });
        written = true;
        if (!dShard) continue;
        const dWeight = { tensor: slice(dShard.tensor, place), accumulate: dShard.accumulate };
        if (slab.shape[0] === count) multiply("TN", dLogits, hidden, dWeight);
        else addPadded(dWeight, dLogits, hidden);
      }
    });
  });
}

/** A tensor of fewer columns in the room of `room`: slabs follow each other in one buffer. */
function firstColumns(room: Tensor, columns: number): Tensor {
  const sizeBytes = room.capacity * columns * elementBytes(room.type);
  return { ...room, shape: [room.shape[0], columns], range: { ...room.range, sizeBytes } };
}

/** Writes dZ `[R, slab]` of one slab. */
function slabGradient(
  hidden: Tensor,
  slab: Tensor,
  saved: Record<"labels" | "lse" | "dLogps" | "dLogits", Tensor> & { firstId: number },
): void {
  const { gpu, shape: [rows, columns] } = hidden;
  const constants = constantsFor(hidden, slab);
  const [vocab] = slab.shape;
  gpu.dispatch(tokenLogpsBackward, {
    constants,
    bindings: {
      hidden: hidden.range,
      weight: slab.range,
      labels: saved.labels.range,
      lse: saved.lse.range,
      d_logps: saved.dLogps.range,
      d_logits: saved.dLogits.range,
    },
    params: { rows, vocab, columns, first_id: saved.firstId },
    workgroups: [Math.ceil(vocab / tileCols(constants.tile)), Math.ceil(rows / tileRows(constants.tile))],
  });
}

/**
 * The slab itself, or a copy with rows of zeros at its end where 16-bit products need whole quads (what follows a shard
 * is not its own). The zeros add nothing to dHidden; what their own gradient would be is dropped.
 */
function padToQuads(hidden: Tensor, slab: Tensor): Tensor {
  const { gpu, shape: [count, columns] } = slab;
  if (count % 4 === 0 || (hidden.type === "f32" && slab.type === "f32")) return slab;
  const padded = empty(gpu, [Math.ceil(count / 4) * 4, columns], { type: slab.type });
  gpu.queue.clear(padded.range);
  gpu.queue.copy(slab.range, padded.range);
  return padded;
}

/** dW of a padded slab, without the padding. */
function addPadded(dWeight: GradientTarget, dLogits: Tensor, hidden: Tensor): void {
  const { gpu, shape: [count, columns] } = dWeight.tensor;
  const padded = empty(gpu, [dLogits.shape[1], columns]);
  multiply("TN", dLogits, hidden, { tensor: padded, accumulate: false });
  const part = slice(padded, { shape: [count, columns], offset: 0 });
  if (dWeight.accumulate) accumulateInto(dWeight.tensor, part);
  else gpu.queue.copy(part.range, dWeight.tensor.range);
}

/** Cuts a shard into slabs of aligned start; a tail that is no multiple of the alignment comes alone. */
function slabs(rows: number, slabRows: number): [number, number][] {
  const result: [number, number][] = [];
  const whole = Math.floor(rows / SLAB_ALIGNMENT) * SLAB_ALIGNMENT;
  for (let start = 0; start < whole; start += slabRows) {
    result.push([start, Math.min(slabRows, whole - start)]);
  }
  if (whole < rows) result.push([whole, rows - whole]);
  return result;
}

/** Rows of all shards. */
function vocabOf(lmHead: readonly Tensor[]): number {
  return lmHead.reduce((total, shard) => total + shard.shape[0], 0);
}

/** How the forward cuts the vocabulary: chunks of a multiple of the tile's columns. */
function planChunks(
  lmHead: readonly Tensor[],
  options: { tileColumns: number; columns: number; isCpu: boolean },
): { chunk: number; chunks: number } {
  const { tileColumns, columns, isCpu } = options;
  const vocab = vocabOf(lmHead);
  const roundUp = (length: number) => Math.ceil(length / tileColumns) * tileColumns;
  let chunk = roundUp(Math.max(MIN_CHUNK, vocab / MAX_CHUNKS));
  if (isCpu) {
    const perTile = Math.ceil(columns / 4) + 1;
    const affordable = Math.floor(CPU_LOOP_LIMIT / perTile) * tileColumns;
    chunk = Math.max(tileColumns, Math.min(chunk, affordable));
  }
  const chunks = lmHead.reduce((total, shard) => total + Math.ceil(shard.shape[0] / chunk), 0);
  return { chunk, chunks };
}
