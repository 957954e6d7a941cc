import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { matmul, multiply } from "../../engine/ops/matmul.ts";
import { ShapeError } from "../../engine/shape.ts";
import { empty, release, type Tensor, upload, writeHost } from "../../engine/tensor.ts";
import { CPU_TILE, GPU_TILE, type ProductKind, TEXEL_TILE, type Tile } from "../../shaders/tile.ts";
import { gpuTest, LAYOUTS, readAll } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
import * as reference from "../reference/matmul.ts";
import { assertClose, checkOp } from "./check_op.ts";

const SIZES = [1, 17, 63, 64, 65, 257];
const KINDS: readonly ProductKind[] = ["NN", "NT", "TN"];

for (const kind of KINDS) {
  for (
    const [name, tile] of [["registers", CPU_TILE], ["texels", TEXEL_TILE], [
      "workgroup memory",
      GPU_TILE,
    ]] as const
  ) {
    for (const M of SIZES) {
      gpuTest(
        `multiply ${kind} through ${name}, ${M} rows by all sizes, overwriting and adding`,
        async (gpu) => {
          for (const N of SIZES) await checkProducts(gpu, { kind, tile, M, N });
        },
      );
    }
  }
}

/** All K of one result shape, read back together: twice each, overwriting poison and adding to known values. */
async function checkProducts(
  gpu: Gpu,
  { kind, tile, M, N }: { kind: ProductKind; tile: Tile; M: number; N: number },
): Promise<void> {
  const random = seededRandom(M * 1000 + N);
  const owned: Tensor[] = [];
  const place = (values: Float64Array, shape: [number, number]) => {
    const tensor = empty(gpu, shape, { owner: "caller" });
    writeHost(tensor, Float32Array.from(values));
    owned.push(tensor);
    return tensor;
  };
  const results: Tensor[] = [];
  const expected: Float64Array[] = [];
  for (const K of SIZES) {
    const draw = (length: number) => normals(random, { length }).map(Math.fround);
    const inputs = { a: draw(M * K), b: draw(K * N) };
    const a = place(inputs.a, kind === "TN" ? [K, M] : [M, K]);
    const b = place(inputs.b, kind === "NT" ? [N, K] : [K, N]);
    const before = draw(M * N);
    const fresh = empty(gpu, [M, N], { owner: "caller" });
    owned.push(fresh);
    const sum = place(before, [M, N]);
    multiply(kind, a, b, { tensor: fresh, accumulate: false }, tile);
    multiply(kind, a, b, { tensor: sum, accumulate: true }, tile);
    const dims = { M, N, K, transposeA: kind === "TN", transposeB: kind === "NT" };
    const { c } = reference.forward(inputs, dims);
    results.push(fresh, sum);
    expected.push(c, c.map((value, i) => value + before[i]));
  }
  const found = await readAll(gpu, results);
  owned.forEach(release);
  found.forEach((values, index) =>
    assertClose(values, expected[index], {
      what: `${kind} ${M}x${N}x${SIZES[index >> 1]}${index % 2 ? ", added" : ""}`,
      // A sum of 257 products grows to about 50, where an f32 step is 4e-6, and rounds 257 times.
      atol: 5e-5,
    })
  );
}

for (const kind of KINDS) {
  for (
    const [M, N, K] of [[1, 1, 1], [17, 64, 65], [64, 17, 257], [65, 63, 64], [64, 64, 64], [5, 128, 32]]
  ) {
    gpuTest(`matmul ${kind} ${M}x${N}x${K}`, (gpu) => {
      const dims = { M, N, K, transposeA: kind === "TN", transposeB: kind === "NT" };
      return checkOp(gpu, {
        op: `matmul ${kind} ${M}x${N}x${K}`,
        inputs: {
          a: { shape: kind === "TN" ? [K, M] : [M, K] },
          b: { shape: kind === "NT" ? [N, K] : [K, N] },
        },
        run: ({ a, b }) => matmul(a, b, { kind }),
        reference: ({ a, b }) => ({
          output: reference.forward({ a, b }, dims).c,
          backward: (dC) => {
            const { dA, dB } = reference.backward({ a, b }, dims, { dC });
            return { a: dA, b: dB };
          },
        }),
        // As above.
        atol: 5e-5,
      });
    }, { layouts: LAYOUTS });
  }
}

gpuTest("matmul of a matrix with itself: both gradients reach the one tensor", (gpu) => {
  const dims = { M: 17, N: 17, K: 17 };
  return checkOp(gpu, {
    op: "matmul(x, x)",
    inputs: { x: { shape: [17, 17] } },
    run: ({ x }) => matmul(x, x),
    reference: ({ x }) => ({
      output: reference.forward({ a: x, b: x }, dims).c,
      backward: (dC) => {
        const { dA, dB } = reference.backward({ a: x, b: x }, dims, { dC });
        return { x: dA.map((value, i) => value + dB[i]) };
      },
    }),
  });
});

gpuTest("matmul refuses unequal inner extents, vectors, and a result of another shape", (gpu) => {
  const a = upload(gpu, new Float32Array(6), { shape: [2, 3] });
  const b = upload(gpu, new Float32Array(8), { shape: [2, 4] });
  const inner = "expected equal inner extents, found [2, 3] and [2, 4]";
  assert.throws(() => matmul(a, b), new ShapeError(`Cannot run matmul NN: ${inner}`));
  assert.throws(() => matmul(a, b, { kind: "NT" }), new ShapeError(`Cannot run matmul NT: ${inner}`));
  assert.throws(
    () => matmul(upload(gpu, new Float32Array(6)), a),
    new ShapeError("Cannot run matmul NN: expected two matrices, found [6] and [2, 3]"),
  );
  assert.throws(
    () => multiply("TN", a, b, { tensor: a, accumulate: false }),
    new ShapeError("Cannot run matmul TN: expected the result of shape [3, 4], found [2, 3]"),
  );
});
