/**
 * The token embedding, over a table that may lie in several row shards.
 * @module
 */
import { embeddingBackward, embeddingForward, GATHER_WORKGROUP } from "../../shaders/embedding.ts";
import { vectorWidth } from "../../shaders/lib.ts";
import type { Gpu } from "../gpu.ts";
import type { DeviceTensors } from "../inputs.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { record, refuseGradient } from "../tape.ts";
import { emptyLike, expectQuads, storageOf, type Tensor } from "../tensor.ts";
import { CPU_LOOP_LIMIT } from "./dispatch.ts";

/** Token ids and where each occurs, on the GPU: see {@link hostTokenIndex}. */
export type TokenIndex = DeviceTensors<HostTokenIndex>;

/** What {@link hostTokenIndex} makes: arrays whose lengths depend on its `length` and `rows` alone. */
export interface HostTokenIndex {
  /** `[N]`: the ids; 0 in the padding. */
  readonly ids: Uint32Array;
  /** `[U]`, U = min(N, rows): each id that occurs, ascending, then 0xffffffff. */
  readonly uniqueIds: Uint32Array;
  /** `[U + 1]`: where each unique id's places start. */
  readonly offsets: Uint32Array;
  /** `[N]`: the places of the unique ids, one after the other; the padding has none. */
  readonly places: Uint32Array;
}

/**
 * Token ids with their inverse, for {@link embedding} and its backward.
 *
 * @param gpu the device, for its limit
 * @param ids `[n]`, each below `rows`
 * @param options.rows rows of the table, V
 * @param options.length N, at least n: as many tokens as arrays of this kind have; the others get no gradient
 * @returns the arrays, to upload
 * @throws {RangeError} on an id that is not a row of the table, or that occurs more often than this adapter's loops can be
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const index = hostTokenIndex(gpu, Uint32Array.of(7, 2, 7), { rows: 8 });
 * assert.deepEqual([...index.uniqueIds], [2, 7, 0xffffffff]);
 * assert.deepEqual([...index.offsets], [0, 1, 3, 3]);
 * assert.deepEqual([...index.places], [1, 0, 2]);
 * ```
 */
export function hostTokenIndex(
  gpu: Gpu,
  ids: Uint32Array,
  options: { rows: number; length?: number },
): HostTokenIndex {
  const { rows, length = ids.length } = options;
  checkIds(ids, rows);
  const padded = new Uint32Array(length);
  padded.set(ids);
  const unique = Math.min(length, rows);
  const uniqueIds = new Uint32Array(unique).fill(NO_ID);
  const offsets = new Uint32Array(unique + 1).fill(ids.length);
  const places = new Uint32Array(length);
  places.set(Uint32Array.from(ids.keys()).sort((a, b) => ids[a] - ids[b] || a - b));
  let count = 0;
  for (let index = 0; index < ids.length; index++) {
    const id = ids[places[index]];
    if (index > 0 && id === ids[places[index - 1]]) continue;
    uniqueIds[count] = id;
    offsets[count++] = index;
  }
  refuseLongLoops(gpu, offsets);
  return { ids: padded, uniqueIds, offsets, places };
}

/** In place of a unique id: no row of any table, so that the kernel skips it. */
const NO_ID = 0xffffffff;

/**
 * y[n] = table[ids[n]].
 *
 * @param table `[V, C]` as row shards, in order
 * @param tokens of {@link hostTokenIndex}, on the GPU: N ids and their inverse; where no gradient is wanted, the ids will do
 * @param options.type of the result, f32 by default
 * @returns `[N, C]`
 * @throws {ShapeError} when the shards' widths differ or do not divide by four where 16 bits are read or written, or
 * the index is one of another table, or there is none and the table is trained
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost, uploadAll } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const table = fromHost(gpu, Float32Array.of(0, 1, 10, 11, 20, 21), { shape: [3, 2] });
 * const tokens = uploadAll(gpu, hostTokenIndex(gpu, Uint32Array.of(2, 0), { rows: 3 }));
 * assert.deepEqual([...await toHost(embedding([table], tokens))], [20, 21, 0, 1]);
 * assert.throws(() => hostTokenIndex(gpu, Uint32Array.of(3), { rows: 3 }), RangeError);
 * ```
 */
export function embedding(
  table: readonly Tensor[],
  tokens: TokenIndex | Pick<TokenIndex, "ids">,
  options: { type?: "f32" | "f16" } = {},
): Tensor {
  const { gpu, shape: [, columns] } = table[0];
  for (const shard of table) expectShape("embedding", "a shard", shard.shape, [-1, columns]);
  const { ids } = tokens;
  const index = "uniqueIds" in tokens ? tokens : null;
  const rows = table.reduce((total, shard) => total + shard.shape[0], 0);
  if (index) {
    expectShape("embedding", "the unique ids", index.uniqueIds.shape, [Math.min(ids.shape[0], rows)]);
  } else refuseGradient("embedding without the places of its ids", ...table);
  const width = vectorWidth(columns);
  const type = options.type ?? "f32";
  expectQuads("embedding", columns, [...table.map(storageOf), type]);
  const y = emptyLike(ids, [ids.shape[0], columns], { type });
  const elements = sizeOf(y.shape) / width;
  eachShard(table, (shard, first) =>
    gpu.dispatch(embeddingForward, {
      constants: { width, table: storageOf(shard), y: type },
      bindings: { table: shard.range, ids: ids.range, y: y.range },
      params: { elements, columns, first, table_rows: shard.shape[0] },
      workgroups: Math.ceil(elements / GATHER_WORKGROUP),
    }));
  return record(gpu, {
    name: "embedding",
    inputs: table,
    output: y,
    // y[n] = table[ids[n]]: dTable[id] = sum over n with ids[n] = id of dY[n]
    backward: (dY, sink) => {
      const { uniqueIds, offsets, places } = index!;
      const bindings = { unique_ids: uniqueIds.range, offsets: offsets.range, places: places.range };
      const work = uniqueIds.shape[0] * columns / width;
      eachShard(table, (shard, first) => {
        const dTable = sink.into(shard);
        if (!dTable) return;
        // The kernel visits the ids that occur: the other rows of a fresh gradient are zero.
        if (!dTable.accumulate) gpu.queue.clear(dTable.tensor.range);
        gpu.dispatch(embeddingBackward, {
          constants: { width, y: type },
          bindings: { ...bindings, d_y: dY.range, d_table: dTable.tensor.range },
          params: {
            elements: work,
            columns,
            first,
            table_rows: shard.shape[0],
            accumulate: dTable.accumulate ? 1 : 0,
          },
          workgroups: Math.ceil(work / GATHER_WORKGROUP),
        });
      });
    },
  });
}

/** Calls `body` with each shard and the id of its first row. */
export function eachShard(table: readonly Tensor[], body: (shard: Tensor, first: number) => void): void {
  let first = 0;
  for (const shard of table) {
    body(shard, first);
    first += shard.shape[0];
  }
}

function checkIds(ids: Uint32Array, rows: number): void {
  const bad = ids.findIndex((id) => id >= rows);
  if (bad >= 0) {
    throw new RangeError(
      `Cannot index tokens: expected ids below ${rows}, found ${ids[bad]} at position ${bad}`,
    );
  }
}

/** One invocation of the backward walks all places of an id. */
function refuseLongLoops(gpu: Gpu, offsets: Uint32Array): void {
  const longest = offsets.reduce(
    (most, end, index) => (index === 0 ? 0 : Math.max(most, end - offsets[index - 1])),
    0,
  );
  if (gpu.adapter.isCpu && longest > CPU_LOOP_LIMIT) {
    throw new RangeError(
      `Cannot index tokens: expected an id at most ${CPU_LOOP_LIMIT} times in a batch on this software ` +
        `adapter, found one ${longest} times`,
    );
  }
}
