import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { matmul, multiply } from "../../engine/ops/matmul.ts";
import { ShapeError } from "../../engine/shape.ts";
import { Tape } from "../../engine/tape.ts";
import { empty, fromHost, release, type Tensor, toHost, upload, writeHost } from "../../engine/tensor.ts";
import type { Storage } from "../../shaders/storage.ts";
import { CPU_TILE, GPU_TILE, type ProductKind, TEXEL_TILE, type Tile } from "../../shaders/tile.ts";
import { gpuTest, LAYOUTS, readAll } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
import * as reference from "../reference/matmul.ts";
import { assertClose, checkOp } from "./check_op.ts";

const SIZES = [1, 17, 63, 64, 65, 257];
const KINDS: readonly ProductKind[] = ["NN", "NT", "TN"];

const TILES: Readonly<Record<string, Tile>> = {
  registers: CPU_TILE,
  texels: TEXEL_TILE,
  "workgroup memory": GPU_TILE,
};

for (const kind of KINDS) {
  for (const M of SIZES) {
    const ways = Object.keys(TILES).join(", ");
    gpuTest(
      `multiply ${kind} through ${ways}: ${M} rows by all sizes, overwriting and adding`,
      async (gpu) => {
        for (const N of SIZES) await checkProducts(gpu, { kind, M, N });
      },
    );
  }
}

/** All K of one result shape, read back together: twice each, overwriting poison and adding to known values. */
async function checkProducts(
  gpu: Gpu,
  { kind, M, N }: { kind: ProductKind; M: number; N: number },
): Promise<void> {
  const random = seededRandom(M * 1000 + N);
  const owned: Tensor[] = [];
  const place = (values: Float64Array, shape: [number, number]) => {
    const tensor = empty(gpu, shape, { owner: "caller" });
    writeHost(tensor, Float32Array.from(values));
    owned.push(tensor);
    return tensor;
  };
  const results: { what: string; tensor: Tensor; expected: Float64Array }[] = [];
  for (const K of SIZES) {
    const draw = (length: number) => normals(random, { length }).map(Math.fround);
    const inputs = { a: draw(M * K), b: draw(K * N) };
    const a = place(inputs.a, kind === "TN" ? [K, M] : [M, K]);
    const b = place(inputs.b, kind === "NT" ? [N, K] : [K, N]);
    const before = draw(M * N);
    const dims = { M, N, K, transposeA: kind === "TN", transposeB: kind === "NT" };
    const { c } = reference.forward(inputs, dims);
    const added = c.map((value, i) => value + before[i]);
    for (const [name, tile] of Object.entries(TILES)) {
      const fresh = empty(gpu, [M, N], { owner: "caller" });
      owned.push(fresh);
      const sum = place(before, [M, N]);
      multiply(kind, a, b, { tensor: fresh, accumulate: false }, { plan: { tile, splitTo: 0 } });
      multiply(kind, a, b, { tensor: sum, accumulate: true }, { plan: { tile, splitTo: 0 } });
      const what = `${kind} ${M}x${N}x${K} through ${name}`;
      results.push({ what, tensor: fresh, expected: c });
      results.push({ what: `${what}, added`, tensor: sum, expected: added });
    }
  }
  const found = await readAll(gpu, results.map(({ tensor }) => tensor));
  owned.forEach(release);
  results.forEach(({ what, expected }, index) =>
    // A sum of 257 products grows to about 50, where an f32 step is 4e-6, and rounds 257 times.
    assertClose(found[index], expected, { what, atol: 5e-5 })
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

for (const kind of KINDS) {
  for (const [M, N, K] of [[17, 63, 5], [65, 64, 36]]) {
    gpuTest(`matmul ${kind} ${M}x${N}x${K} with a scale, a bias and a residual`, (gpu) => {
      const dims = { M, N, K, transposeA: kind === "TN", transposeB: kind === "NT", scale: 0.7 };
      return checkOp(gpu, {
        op: `matmul ${kind} ${M}x${N}x${K} + bias + residual`,
        inputs: {
          a: { shape: kind === "TN" ? [K, M] : [M, K] },
          b: { shape: kind === "NT" ? [N, K] : [K, N] },
          bias: { shape: [N] },
          residual: { shape: [M, N] },
        },
        run: ({ a, b, bias, residual }) => matmul(a, b, { kind, bias, residual, scale: 0.7 }),
        reference: ({ a, b, bias, residual }) => {
          const inputs = { a, b, bias, residual };
          return {
            output: reference.epilogueForward(inputs, dims).c,
            backward: (dC) => {
              const { dA, dB, dBias, dResidual } = reference.epilogueBackward(inputs, dims, { dC });
              return { a: dA, b: dB, bias: dBias, residual: dResidual };
            },
          };
        },
        atol: 2e-5,
      });
    }, { layouts: LAYOUTS });
  }
}

for (const [name, tile] of [["workgroup memory", GPU_TILE], ["registers", CPU_TILE]] as const) {
  gpuTest(
    `multiply through ${name} with k split into parts equals one sum, overwriting and adding`,
    async (gpu) => {
      for (const kind of KINDS) {
        for (const [M, N, K] of [[36, 68, 1028], [17, 5, 385], [64, 64, 256]]) {
          const dims = { M, N, K, transposeA: kind === "TN", transposeB: kind === "NT" };
          const random = seededRandom(K);
          const draw = (length: number) => Float32Array.from(normals(random, { length }));
          const inputs = { a: draw(M * K), b: draw(K * N) };
          const a = fromHost(gpu, inputs.a, { shape: kind === "TN" ? [K, M] : [M, K] });
          const b = fromHost(gpu, inputs.b, { shape: kind === "NT" ? [N, K] : [K, N] });
          const before = draw(M * N);
          const [fresh, sum, again] = [before, before, before].map((host) =>
            fromHost(gpu, host, { shape: [M, N] })
          );
          const options = { plan: { tile, splitTo: 16 }, scale: 0.5 };
          const dispatches = gpu.stats().dispatches;
          multiply(kind, a, b, { tensor: fresh, accumulate: false }, options);
          assert.equal(gpu.stats().dispatches - dispatches, 2, "the parts, and their sum");
          multiply(kind, a, b, { tensor: sum, accumulate: true }, options);
          multiply(kind, a, b, { tensor: again, accumulate: true }, options);
          const [wide, tall] = [inputs.a, inputs.b].map((values) => Float64Array.from(values));
          const expected = reference.forward({ a: wide, b: tall }, dims).c.map((value) => 0.5 * value);
          const [found, added, repeated] = await readAll(gpu, [fresh, sum, again]);
          const what = `${kind} ${M}x${N}x${K}`;
          assertClose(found, expected, { what, atol: 1e-4 });
          assertClose(added, expected.map((value, i) => value + before[i]), {
            what: `${what}, added`,
            atol: 1e-4,
          });
          assert.deepEqual(repeated, added, "the same bits again");
          [a, b, fresh, sum, again].forEach(release);
        }
      }
    },
  );
}

for (const M of [1, 3, 4]) {
  gpuTest(
    `multiply NT of ${M} rows, as in decoding, with a bias and a residual, overwriting and adding`,
    async (gpu) => {
      for (const [N, K] of [[1, 1], [17, 63], [64, 64], [65, 257], [36, 132]]) {
        const random = seededRandom(N + K);
        const draw = (length: number) => Float32Array.from(normals(random, { length }));
        const host = { a: draw(M * K), b: draw(N * K), bias: draw(N), residual: draw(M * N) };
        const a = fromHost(gpu, host.a, { shape: [M, K] });
        const b = fromHost(gpu, host.b, { shape: [N, K] });
        const bias = fromHost(gpu, host.bias, { shape: [N] });
        const residual = fromHost(gpu, host.residual, { shape: [M, N] });
        const before = draw(M * N);
        const [plain, fresh, sum] = [before, before, before].map((values) =>
          fromHost(gpu, values, { shape: [M, N] })
        );
        multiply("NT", a, b, { tensor: plain, accumulate: false });
        multiply("NT", a, b, { tensor: fresh, accumulate: false }, { bias, residual, scale: 0.5 });
        multiply("NT", a, b, { tensor: sum, accumulate: true }, { bias, residual, scale: 0.5 });
        const dims = { M, N, K, transposeB: true, scale: 0.5 };
        const inputs = {
          a: Float64Array.from(host.a),
          b: Float64Array.from(host.b),
          bias: Float64Array.from(host.bias),
          residual: Float64Array.from(host.residual),
        };
        const expected = reference.epilogueForward(inputs, dims).c;
        const found = await readAll(gpu, [plain, fresh, sum]);
        const what = `${M}x${N}x${K}`;
        assertClose(found[0], reference.forward(inputs, dims).c, { what, atol: 5e-5 });
        assertClose(found[1], expected, { what: `${what} + bias + residual`, atol: 5e-5 });
        assertClose(found[2], expected.map((value, i) => value + before[i]), {
          what: `${what}, added`,
          atol: 5e-5,
        });
        [a, b, bias, residual, plain, fresh, sum].forEach(release);
      }
    },
    { layouts: LAYOUTS },
  );
}

/** Storages of A, B and C where each kind meets them: backward with a frozen weight, forward, a parameter's gradient. */
const STORAGES = {
  NN: [["f16", "bf16", "f16"]],
  NT: [["f16", "f16", "f16"], ["f32", "bf16", "f32"]],
  TN: [["f16", "f16", "f32"]],
} as const;

for (const kind of KINDS) {
  gpuTest(
    `multiply ${kind} of 16-bit operands, with a bias and a residual, overwriting and adding`,
    async (gpu) => {
      const [M, N, K] = [20, 68, 36];
      for (const [aType, bType, cType] of STORAGES[kind]) {
        const random = seededRandom(M + N);
        const owned: Tensor[] = [];
        const place = async (shape: number[], type: Storage) => {
          const values = Float32Array.from(normals(random, { length: shape.reduce((x, y) => x * y) }));
          const tensor = fromHost(gpu, values, { shape, type });
          owned.push(tensor);
          // What was stored: the reference computes with the rounded values.
          return { tensor, values: Float64Array.from(await toHost(tensor)) };
        };
        const a = await place(kind === "TN" ? [K, M] : [M, K], aType);
        const b = await place(kind === "NT" ? [N, K] : [K, N], bType);
        const bias = await place([N], "f32");
        const residual = await place([M, N], cType);
        const c = await place([M, N], cType);
        const fresh = empty(gpu, [M, N], { type: cType });
        owned.push(fresh);
        const added = { bias: bias.tensor, residual: residual.tensor, scale: 0.5 };
        multiply(kind, a.tensor, b.tensor, { tensor: fresh, accumulate: false }, added);
        multiply(kind, a.tensor, b.tensor, { tensor: c.tensor, accumulate: true }, added);
        const dims = { M, N, K, transposeA: kind === "TN", transposeB: kind === "NT", scale: 0.5 };
        const inputs = { a: a.values, b: b.values, bias: bias.values, residual: residual.values };
        const expected = reference.epilogueForward(inputs, dims).c;
        // The result's own rounding: half a step of f16 is 2^-11 of the value.
        const tolerance = { atol: 2e-5, rtol: cType === "f16" ? 2 ** -10 : 1e-5 };
        const what = `${kind} of ${aType} and ${bType} to ${cType}`;
        assertClose(await toHost(fresh), expected, { what, ...tolerance });
        const sums = expected.map((value, i) => value + c.values[i]);
        assertClose(await toHost(c.tensor), sums, { what: `${what}, added`, ...tolerance });
        owned.forEach(release);
      }
    },
    { layouts: LAYOUTS },
  );
}

gpuTest(
  "matmul of f16 operands hands f16 gradients to activations and f32 ones to parameters",
  async (gpu) => {
    const [M, N, K] = [8, 12, 4];
    const random = seededRandom(3);
    const draw = (length: number) => Float32Array.from(normals(random, { length }));
    const x = fromHost(gpu, draw(M * K), { shape: [M, K], type: "f16" });
    const grad = fromHost(gpu, new Float32Array(N * K), { shape: [N, K] });
    const weight = {
      ...fromHost(gpu, draw(N * K), { shape: [N, K], type: "f16" }),
      requiresGrad: true,
      grad,
    };
    const xGrad = fromHost(gpu, new Float32Array(M * K), { shape: [M, K] });
    const dC = fromHost(gpu, draw(M * N), { shape: [M, N], type: "f16" });
    const tape = new Tape(gpu);
    const c = matmul({ ...x, requiresGrad: true, grad: xGrad }, weight, { kind: "NT" });
    assert.equal(c.type, "f16");
    tape.backward([{ tensor: c, gradient: dC }]);
    const inputs = { a: Float64Array.from(await toHost(x)), b: Float64Array.from(await toHost(weight)) };
    const { dA, dB } = reference.backward(inputs, { M, N, K, transposeB: true }, {
      dC: Float64Array.from(await toHost(dC)),
    });
    assertClose(await toHost(xGrad), dA, { what: "dA" });
    assertClose(await toHost(grad), dB, { what: "dB" });
    [x, weight, grad, xGrad, dC].forEach(release);
  },
);

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
  const weight = upload(gpu, new Float32Array(12), { shape: [4, 3] });
  assert.throws(
    () => matmul(a, weight, { kind: "NT", bias: b }),
    new ShapeError("Cannot run matmul NT: expected the bias of shape [4], found [2, 4]"),
  );
  assert.throws(
    () => matmul(a, weight, { kind: "NT", residual: { ...b, type: "f16" } }),
    new ShapeError("Cannot run matmul NT: expected the residual of type f32, found f16"),
  );
  assert.throws(
    () => multiply("NT", { ...a, type: "f16" }, weight, { tensor: b, accumulate: false }),
    new ShapeError(
      "Cannot run matmul NT: expected rows that divide by four, as 16-bit elements need, found [2, 3] and [4, 3]",
    ),
  );
});
