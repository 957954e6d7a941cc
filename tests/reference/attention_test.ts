import assert from "node:assert/strict";
import * as attention from "./attention.ts";
import type { AttentionDims, AttentionInputs } from "./attention.ts";
import { assertBackward } from "./central_difference.ts";
import { normals, seededRandom } from "./random.ts";

function randomInputs(
  { N, H, K, D }: AttentionDims,
  sequenceOffsets: number[],
  prefixSegments?: number[],
): AttentionInputs {
  const random = seededRandom(N * H * D);
  return {
    q: normals(random, { length: N * H * D }),
    k: normals(random, { length: N * K * D }),
    v: normals(random, { length: N * K * D }),
    sequenceOffsets,
    prefixSegments,
  };
}

const SHAPES: [AttentionDims, number[], number[]?][] = [
  [{ N: 1, H: 1, K: 1, D: 1 }, [0, 1]],
  [{ N: 7, H: 2, K: 2, D: 4 }, [0, 7]],
  [{ N: 9, H: 4, K: 2, D: 3 }, [0, 4, 5, 9]],
  [{ N: 6, H: 3, K: 1, D: 2 }, [0, 2, 2, 6]],
  [{ N: 8, H: 2, K: 1, D: 3 }, [0, 2, 4, 7, 8], [0, 0, 0, 3]],
];

for (const [dims, offsets, prefixes] of SHAPES) {
  const shape = `N=${dims.N} H=${dims.H} K=${dims.K} D=${dims.D} offsets=${offsets.join(",")}` +
    (prefixes ? ` prefixes=${prefixes.join(",")}` : "");
  Deno.test(`attention ${shape}: backward is the central difference`, () => {
    const inputs = randomInputs(dims, offsets, prefixes);
    assertBackward(attention, { inputs, dims, outputs: ["out"], seed: 1 });
  });
}

Deno.test("attention: the first token of a sequence returns its own value, lse is its own score", () => {
  const dims = { N: 3, H: 2, K: 1, D: 2 };
  const inputs = randomInputs(dims, [0, 1, 3]);
  const { out, lse } = attention.forward(inputs, dims);
  for (const n of [0, 1]) {
    for (const h of [0, 1]) {
      for (const d of [0, 1]) assert.equal(out[(n * 2 + h) * 2 + d], inputs.v[n * 2 + d]);
      const start = (n * 2 + h) * 2;
      const score = (inputs.q[start] * inputs.k[n * 2] + inputs.q[start + 1] * inputs.k[n * 2 + 1]) /
        Math.SQRT2;
      assert.ok(Math.abs(lse[n * 2 + h] - score) < 1e-15);
    }
  }
});

Deno.test("attention: later tokens never change earlier outputs, and do change their own", () => {
  const dims = { N: 6, H: 2, K: 1, D: 4 };
  const inputs = randomInputs(dims, [0, 6]);
  const before = attention.forward(inputs, dims);
  for (const tensor of [inputs.q, inputs.k, inputs.v]) tensor.fill(1.5, tensor.length * 4 / 6);
  const after = attention.forward(inputs, dims);
  assert.deepEqual(after.out.slice(0, 4 * 8), before.out.slice(0, 4 * 8));
  assert.deepEqual(after.lse.slice(0, 4 * 2), before.lse.slice(0, 4 * 2));
  assert.notDeepEqual(after.out.slice(4 * 8), before.out.slice(4 * 8));
});

Deno.test("attention: packed sequences equal the same sequences alone, bit for bit", () => {
  const dims = { N: 7, H: 4, K: 2, D: 3 };
  const packed = randomInputs(dims, [0, 3, 7]);
  const { out } = attention.forward(packed, dims);
  for (const [start, end] of [[0, 3], [3, 7]]) {
    const alone = attention.forward({
      q: packed.q.slice(start * 12, end * 12),
      k: packed.k.slice(start * 6, end * 6),
      v: packed.v.slice(start * 6, end * 6),
      sequenceOffsets: [0, end - start],
    }, { ...dims, N: end - start });
    assert.deepEqual(alone.out, out.slice(start * 12, end * 12));
  }
});

Deno.test("attention: continuations of one prompt equal the prompt with each of them, bit for bit", () => {
  const dims = { N: 7, H: 2, K: 1, D: 3 };
  const shared = randomInputs(dims, [0, 2, 4, 7], [0, 0, 0]);
  const { out } = attention.forward(shared, dims);
  for (const [start, end] of [[2, 4], [4, 7]]) {
    const rows = (values: Float64Array, width: number) =>
      Float64Array.of(...values.slice(0, 2 * width), ...values.slice(start * width, end * width));
    const N = 2 + end - start;
    const alone = attention.forward({
      ...{ q: rows(shared.q, 6), k: rows(shared.k, 3), v: rows(shared.v, 3) },
      sequenceOffsets: [0, N],
    }, { ...dims, N });
    assert.deepEqual(alone.out, rows(out, 6));
  }
});

Deno.test("attention: grouped queries equal plain heads whose keys and values are repeated", () => {
  const dims = { N: 5, H: 4, K: 2, D: 3 };
  const grouped = randomInputs(dims, [0, 5]);
  const repeated = (kv: Float64Array) =>
    Float64Array.from({ length: 5 * 4 * 3 }, (_, i) => {
      const [n, h, d] = [Math.floor(i / 12), Math.floor(i / 3) % 4, i % 3];
      return kv[(n * 2 + (h < 2 ? 0 : 1)) * 3 + d];
    });
  const plain = { ...grouped, k: repeated(grouped.k), v: repeated(grouped.v) };
  assert.deepEqual(attention.forward(grouped, dims), attention.forward(plain, { ...dims, K: 4 }));
});

Deno.test("attention: refuses kv heads that do not divide the heads, and offsets that do not end at N", () => {
  const dims = { N: 2, H: 3, K: 2, D: 1 };
  assert.throws(
    () => attention.forward(randomInputs(dims, [0, 2]), dims),
    /expected kv heads that divide 3, found 2/,
  );
  const even = { ...dims, H: 2 };
  assert.throws(
    () => attention.forward(randomInputs(even, [0, 1]), even),
    /expected them to run from 0 to 2/,
  );
});
