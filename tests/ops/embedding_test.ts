import assert from "node:assert/strict";
import { narrow, widen } from "../../engine/dtype.ts";
import { uploadAll } from "../../engine/inputs.ts";
import type { Storage } from "../../engine/mod.ts";
import { embedding, hostTokenIndex } from "../../engine/ops/embedding.ts";
import { ShapeError } from "../../engine/shape.ts";
import { noGrad, Tape } from "../../engine/tape.ts";
import { fromHost, release, toHost, upload } from "../../engine/tensor.ts";
import { gpuTest } from "../gpu.ts";
import * as reference from "../reference/embedding.ts";
import { integers, normals, seededRandom } from "../reference/random.ts";
import { assertClose, checkOp } from "./check_op.ts";

interface Case {
  name: string;
  N: number;
  V: number;
  C: number;
  shards?: number[];
  /** Ids lie in [low, high); by default anywhere. */
  low?: number;
  high?: number;
  capacity?: number;
  /** Tokens of the index: those past N are padding. */
  length?: number;
}

const CASES: Case[] = [
  { name: "one id", N: 1, V: 1, C: 1 },
  { name: "distinct and absent ids", N: 17, V: 257, C: 17 },
  { name: "repeated ids", N: 257, V: 17, C: 64 },
  { name: "one id throughout", N: 65, V: 63, C: 63, low: 40, high: 41 },
  { name: "three shards", N: 257, V: 65, C: 65, shards: [17, 31, 17] },
  { name: "three shards in quads", N: 63, V: 65, C: 64, shards: [17, 31, 17] },
  { name: "ids in the middle shard only", N: 64, V: 65, C: 64, shards: [17, 31, 17], low: 17, high: 48 },
  { name: "ids in the last shard only", N: 5, V: 65, C: 3, shards: [17, 31, 17], low: 48 },
  { name: "room for more tokens", N: 17, V: 64, C: 64, capacity: 300 },
  { name: "padding", N: 17, V: 65, C: 64, shards: [17, 31, 17], length: 64 },
];

for (const { name, N, V, C, shards, low = 0, high = V, capacity, length = N } of CASES) {
  gpuTest(`embedding ${N}x${V}x${C}: ${name}`, (gpu) => {
    const ids = Uint32Array.from(integers(seededRandom(N * V + C), { length: N, low, high }));
    const dims = { N, V, C };
    // The padding reads row 0, and gives no gradient.
    const padded = Uint32Array.from({ length }, (_, n) => ids[n] ?? 0);
    const index = hostTokenIndex(gpu, ids, { rows: V, length });
    return checkOp(gpu, {
      op: `embedding ${name}`,
      inputs: { table: { shape: [V, C], shards } },
      run: (_, { table }) => embedding(table, uploadAll(gpu, index, { capacity })),
      reference: ({ table: weight }) => ({
        output: reference.forward({ ids: padded, weight }, { ...dims, N: length }).y,
        backward: (dY) => ({
          table: reference.backward({ ids, weight }, dims, { dY: dY.subarray(0, N * C) }).dWeight,
        }),
      }),
    });
  });
}

for (const [type, y] of [["f16", "f16"], ["bf16", "f32"], ["f16", "f32"], ["f32", "f16"]] as const) {
  gpuTest(`embedding of a ${type} table gives ${y} rows, and f32 gradients of the table`, async (gpu) => {
    const [N, V, C] = [65, 17, 64];
    const random = seededRandom(3);
    const ids = Uint32Array.from(integers(random, { length: N, low: 0, high: V }));
    const draw = (length: number) => Float32Array.from(normals(random, { length }));
    const round = (values: Float32Array, to: Storage) => widen(narrow(values, to), to);
    const [values, upstream] = [draw(V * C), draw(N * C)];
    const grad = fromHost(gpu, new Float32Array(V * C), { shape: [V, C] });
    const table = { ...fromHost(gpu, values, { shape: [V, C], type }), requiresGrad: true, grad };
    const dY = fromHost(gpu, upstream, { shape: [N, C], type: y });
    const tape = new Tape(gpu);
    const tokens = uploadAll(gpu, hostTokenIndex(gpu, ids, { rows: V }));
    const result = tape.keep(embedding([table], tokens, { type: y }));
    tape.backward([{ tensor: result, gradient: dY }]);
    const weight = Float64Array.from(round(values, type));
    const dims = { N, V, C };
    const expected = Float32Array.from(reference.forward({ ids, weight }, dims).y);
    assert.deepEqual(await toHost(result), round(expected, y));
    const rounded = Float64Array.from(round(upstream, y));
    const { dWeight } = reference.backward({ ids, weight }, dims, { dY: rounded });
    assertClose(await toHost(grad), dWeight, { what: "d table" });
    [result, grad, table, dY].forEach(release);
  });
}

gpuTest("embedding refuses 16-bit rows that do not divide by four", (gpu) => {
  const table = upload(gpu, new Float32Array(12), { shape: [2, 6] });
  const tokens = uploadAll(gpu, hostTokenIndex(gpu, Uint32Array.of(0), { rows: 2 }));
  assert.throws(
    () => embedding([table], tokens, { type: "f16" }),
    new ShapeError("Cannot run embedding: expected rows that divide by four for f16, found rows of 6"),
  );
});

gpuTest(
  "embedding refuses ids past the table, an index of another one, and shards of different widths",
  (gpu) => {
    const table = [2, 3].map((rows) => upload(gpu, new Float32Array(rows * 4), { shape: [rows, 4] }));
    assert.throws(
      () => hostTokenIndex(gpu, Uint32Array.of(0, 4, 5), { rows: 5 }),
      new RangeError("Cannot index tokens: expected ids below 5, found 5 at position 2"),
    );
    const index = (rows: number) =>
      uploadAll(gpu, hostTokenIndex(gpu, Uint32Array.of(0, 0, 0, 0, 0, 0), { rows }));
    assert.throws(
      () => embedding(table, index(6)),
      new ShapeError("Cannot run embedding: expected the unique ids of shape [5], found [6]"),
    );
    const wider = upload(gpu, new Float32Array(5), { shape: [1, 5] });
    assert.throws(
      () => embedding([...table, wider], index(6)),
      new ShapeError("Cannot run embedding: expected a shard of shape [any, 4], found [1, 5]"),
    );
  },
);

gpuTest("embedding takes ids alone where no gradient is wanted, and refuses to record them", async (gpu) => {
  const grad = fromHost(gpu, new Float32Array(8), { shape: [2, 4] });
  const values = Float32Array.from({ length: 8 }, (_, i) => i);
  const table = { ...fromHost(gpu, values, { shape: [2, 4] }), requiresGrad: true, grad };
  const ids = upload(gpu, Uint32Array.of(1, 0, 1));
  const rows = noGrad(gpu, () => embedding([table], { ids }));
  assert.deepEqual([...await toHost(rows)], [4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]);
  const tape = new Tape(gpu);
  assert.throws(
    () => embedding([table], { ids: upload(gpu, Uint32Array.of(1)) }),
    new ShapeError("Cannot run embedding without the places of its ids: it has no gradient"),
  );
  tape[Symbol.dispose]();
  [rows, grad, table].forEach(release);
});

gpuTest("an id that comes too often for a software adapter's loops is refused", (gpu) => {
  assert.throws(
    () => hostTokenIndex(gpu, new Uint32Array(65_001), { rows: 1 }),
    /expected an id at most 65000 times in a batch .* found one 65001 times/,
  );
}, { layouts: ["cpu"] });
