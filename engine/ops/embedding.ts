/**
 * The token embedding, over a table that may lie in several row shards.
 * @module
 */
import { embeddingBackward, embeddingForward, GATHER_WORKGROUP } from "../../shaders/embedding.ts";
import { vectorWidth } from "../../shaders/lib.ts";
import type { Gpu } from "../gpu.ts";
import { expectShape, sizeOf } from "../shape.ts";
import { record } from "../tape.ts";
import { empty, expectQuads, storageOf, type Tensor, upload } from "../tensor.ts";
import { CPU_LOOP_LIMIT } from "./dispatch.ts";

/**
 * y[n] = table[ids[n]].
 *
 * @param table `[V, C]` as row shards, in order
 * @param ids `[N]` on the host, each below V
 * @param options.capacity tokens to reserve for, at least N
 * @param options.type of the result, f32 by default
 * @returns `[N, C]`
 * @throws {RangeError} on an id that is not a row of the table
 * @throws {ShapeError} when the shards' widths differ, or do not divide by four where 16 bits are read or written
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, toHost } from "../mod.ts";
 * import { ensureAdapter } from "../../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const table = fromHost(gpu, Float32Array.of(0, 1, 10, 11, 20, 21), { shape: [3, 2] });
 * assert.deepEqual([...await toHost(embedding([table], Uint32Array.of(2, 0)))], [20, 21, 0, 1]);
 * assert.throws(() => embedding([table], Uint32Array.of(3)), RangeError);
 * ```
 */
export function embedding(
  table: readonly Tensor[],
  ids: Uint32Array,
  options: { capacity?: number; type?: "f32" | "f16" } = {},
): Tensor {
  const { gpu, shape: [, columns] } = table[0];
  for (const shard of table) expectShape("embedding", "a shard", shard.shape, [-1, columns]);
  checkIds(ids, table.reduce((total, shard) => total + shard.shape[0], 0));
  const capacity = Math.max(options.capacity ?? ids.length, ids.length);
  const width = vectorWidth(columns);
  const type = options.type ?? "f32";
  expectQuads("embedding", columns, [...table.map(storageOf), type]);
  const y = empty(gpu, [ids.length, columns], { capacity, type });
  const elements = sizeOf(y.shape) / width;
  const idTensor = upload(gpu, ids, { capacity });
  eachShard(table, (shard, first) =>
    gpu.dispatch(embeddingForward, {
      constants: { width, table: storageOf(shard), y: type },
      bindings: { table: shard.range, ids: idTensor.range, y: y.range },
      params: { elements, columns, first, table_rows: shard.shape[0] },
      workgroups: Math.ceil(elements / GATHER_WORKGROUP),
    }));
  return record(gpu, {
    name: "embedding",
    inputs: table,
    output: y,
    // y[n] = table[ids[n]]: dTable[id] = sum over n with ids[n] = id of dY[n]
    backward: (dY, sink) => {
      const places = placesOf(ids);
      refuseLongLoops(gpu, places.offsets);
      const uniqueCapacity = Math.min(capacity, table.reduce((total, shard) => total + shard.shape[0], 0));
      const bindings = {
        unique_ids: upload(gpu, places.uniqueIds, { capacity: uniqueCapacity }).range,
        offsets: upload(gpu, places.offsets, { capacity: uniqueCapacity + 1 }).range,
        places: upload(gpu, places.places, { capacity }).range,
      };
      const work = places.uniqueIds.length * columns / width;
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
      `Cannot run embedding: expected ids below ${rows}, found ${ids[bad]} at position ${bad}`,
    );
  }
}

/** One invocation walks all places of an id. */
function refuseLongLoops(gpu: Gpu, offsets: Uint32Array): void {
  const longest = offsets.reduce(
    (most, end, index) => (index === 0 ? 0 : Math.max(most, end - offsets[index - 1])),
    0,
  );
  if (gpu.adapter.isCpu && longest > CPU_LOOP_LIMIT) {
    throw new RangeError(
      `Cannot run embedding's backward: expected an id at most ${CPU_LOOP_LIMIT} times in a batch on this software ` +
        `adapter, found one ${longest} times`,
    );
  }
}

/** The inverse of `ids`: each distinct id, ascending, with its places, ascending. */
function placesOf(ids: Uint32Array): { uniqueIds: Uint32Array; offsets: Uint32Array; places: Uint32Array } {
  const places = Uint32Array.from(ids.keys()).sort((a, b) => ids[a] - ids[b] || a - b);
  const uniqueIds: number[] = [];
  const offsets: number[] = [];
  places.forEach((place, index) => {
    if (index === 0 || ids[place] !== ids[places[index - 1]]) {
      uniqueIds.push(ids[place]);
      offsets.push(index);
    }
  });
  return {
    uniqueIds: Uint32Array.from(uniqueIds),
    offsets: Uint32Array.from([...offsets, ids.length]),
    places,
  };
}
