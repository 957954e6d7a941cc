import assert from "node:assert/strict";
import * as activation from "./activation.ts";
import * as add from "./add.ts";
import { assertBackward } from "./central_difference.ts";
import * as embedding from "./embedding.ts";
import * as headNorm from "./head_norm.ts";
import * as layerNorm from "./layer_norm.ts";
import { logSigmoid, sigmoid } from "./log_sigmoid.ts";
import * as matmul from "./matmul.ts";
import { integers, normals, seededRandom } from "./random.ts";
import * as rmsNorm from "./rms_norm.ts";
import * as rope from "./rope.ts";
import * as sequenceLogps from "./sequence_logps.ts";
import * as silu from "./silu.ts";
import * as swiglu from "./swiglu.ts";
import * as swigluLinear from "./swiglu_linear.ts";
import * as tokenLogps from "./token_logps.ts";

const LENGTHS = [1, 17, 64];

for (
  const [name, transposeA, transposeB] of [
    ["NN", false, false],
    ["NT", false, true],
    ["TN", true, false],
    ["TT", true, true],
  ] as const
) {
  for (const [M, N, K] of [[1, 1, 1], [5, 3, 7], [4, 9, 2]]) {
    Deno.test(`matmul ${name} ${M}x${N}x${K}: backward is the central difference`, () => {
      const random = seededRandom(M * 100 + N * 10 + K);
      const inputs = { a: normals(random, { length: M * K }), b: normals(random, { length: K * N }) };
      assertBackward(matmul, {
        inputs,
        dims: { M, N, K, transposeA, transposeB },
        outputs: ["c"],
        seed: 1,
      });
      const added = {
        ...inputs,
        bias: normals(random, { length: N }),
        residual: normals(random, { length: M * N }),
      };
      assertBackward({ forward: matmul.epilogueForward, backward: matmul.epilogueBackward }, {
        inputs: added,
        dims: { M, N, K, transposeA, transposeB, scale: 0.7 },
        outputs: ["c"],
        seed: 2,
      });
    });
  }
}

Deno.test("matmul: NN, NT and TN of the same matrices agree with a product by hand", () => {
  const expected = Float64Array.of(58, 64, 139, 154);
  const dims = { M: 2, N: 2, K: 3 };
  const a = Float64Array.of(1, 2, 3, 4, 5, 6);
  const aTransposed = Float64Array.of(1, 4, 2, 5, 3, 6);
  const b = Float64Array.of(7, 8, 9, 10, 11, 12);
  const bTransposed = Float64Array.of(7, 9, 11, 8, 10, 12);
  assert.deepEqual(matmul.forward({ a, b }, dims).c, expected);
  assert.deepEqual(matmul.forward({ a, b: bTransposed }, { ...dims, transposeB: true }).c, expected);
  assert.deepEqual(matmul.forward({ a: aTransposed, b }, { ...dims, transposeA: true }).c, expected);
});

for (const [N, V, C] of [[1, 1, 1], [6, 4, 3], [3, 17, 5]]) {
  Deno.test(`embedding ${N}x${V}x${C}: backward is the central difference`, () => {
    const random = seededRandom(N + V + C);
    const inputs = {
      ids: integers(random, { length: N, high: V }),
      weight: normals(random, { length: V * C }),
    };
    assertBackward(embedding, { inputs, dims: { N, V, C }, outputs: ["y"], seed: 2 });
  });
}

for (const [N, C, scale] of [[1, 1, 1], [3, 17, 1], [4, 8, 1e-3], [2, 64, 30]]) {
  Deno.test(`rms_norm ${N}x${C} at scale ${scale}: backward is the central difference`, () => {
    const random = seededRandom(N * C);
    const inputs = { x: normals(random, { length: N * C, scale }), w: normals(random, { length: C }) };
    // At scale 1e-3 the curvature is about 1e3 / eps: a smaller h keeps the truncation error below the tolerance.
    const h = scale < 1 ? 1e-7 : 1e-5;
    assertBackward(rmsNorm, { inputs, dims: { N, C, eps: 1e-5 }, outputs: ["y"], seed: 3, h });
  });
}

for (const [N, C, scale] of [[1, 2, 1], [3, 17, 1], [2, 64, 30]]) {
  Deno.test(`layer_norm ${N}x${C} at scale ${scale}: backward is the central difference`, () => {
    const random = seededRandom(N * C);
    const inputs = {
      x: normals(random, { length: N * C, scale }),
      w: normals(random, { length: C }),
      b: normals(random, { length: C }),
    };
    assertBackward(layerNorm, { inputs, dims: { N, C, eps: 1e-5 }, outputs: ["y"], seed: 3 });
  });
}

Deno.test("layer_norm: a row has mean 0 and variance 1 before weight and bias, whatever it is shifted by", () => {
  const dims = { N: 1, C: 16, eps: 1e-12 };
  const x = normals(seededRandom(1), { length: 16, scale: 3 });
  const [w, b] = [new Float64Array(16).fill(1), new Float64Array(16)];
  const { y } = layerNorm.forward({ x, w, b }, dims);
  const shifted = layerNorm.forward({ x: x.map((value) => value + 100), w, b }, dims).y;
  assert.ok(Math.abs(y.reduce((sum, value) => sum + value, 0)) < 1e-12);
  assert.ok(Math.abs(y.reduce((sum, value) => sum + value * value, 0) / 16 - 1) < 1e-9);
  assert.ok(y.every((value, i) => Math.abs(value - shifted[i]) < 1e-12));
});

for (const [N, H, K, D] of [[1, 1, 1, 1], [3, 4, 2, 6]]) {
  Deno.test(`head_norm ${N}x(${H} + 2 ${K})x${D}: backward is the central difference, values stay`, () => {
    const random = seededRandom(N * D);
    const inputs = {
      qkv: normals(random, { length: N * (H + 2 * K) * D }),
      q: normals(random, { length: D }),
      k: normals(random, { length: D }),
    };
    const dims = { N, H, K, D, eps: 1e-5 };
    // One column is divided by its own size: its gradient is eps over the cube of it, the curvature larger still.
    assertBackward(headNorm, { inputs, dims, outputs: ["y"], seed: 4, h: 1e-6 });
    const { y } = headNorm.forward(inputs, dims);
    assert.deepEqual(
      y.subarray((H + K) * D, (H + 2 * K) * D),
      inputs.qkv.subarray((H + K) * D, (H + 2 * K) * D),
    );
  });
}

for (const kind of ["silu", "gelu_tanh"] as const) {
  for (const [N, C] of [[1, 1], [5, 17]]) {
    Deno.test(`${kind} of ${N}x${C} with a bias: backward is the central difference`, () => {
      const random = seededRandom(N + C);
      const inputs = {
        x: normals(random, { length: N * C, scale: 3 }),
        bias: normals(random, { length: C }),
      };
      assertBackward(activation, { inputs, dims: { N, C, kind }, outputs: ["y"], seed: 11 });
    });
  }
}

for (const [N, H, D, rotated] of [[1, 1, 2, 1], [5, 2, 4, 2], [3, 3, 8, 2]]) {
  Deno.test(`rope ${N}x${H}x${D}: backward is the central difference`, () => {
    const random = seededRandom(N * H * D);
    const inputs = {
      x: normals(random, { length: N * H * D }),
      positions: integers(random, { length: N, high: 100 }),
    };
    assertBackward(rope, { inputs, dims: { N, H, D, theta: 10000, rotated }, outputs: ["y"], seed: 4 });
  });
}

Deno.test("rope: scores depend on the distance of two positions alone, and position 0 changes nothing", () => {
  const random = seededRandom(5);
  const [q, k] = [normals(random, { length: 8 }), normals(random, { length: 8 })];
  const rotated = (x: Float64Array, position: number) =>
    rope.forward({ x, positions: [position] }, { N: 1, H: 1, D: 8, theta: 100 }).y;
  const score = (i: number, j: number) => {
    const [left, right] = [rotated(q, i), rotated(k, j)];
    return left.reduce((sum, value, d) => sum + value * right[d], 0);
  };
  assert.ok(Math.abs(score(7, 3) - score(24, 20)) < 1e-12);
  assert.ok(Math.abs(score(7, 3) - score(7, 4)) > 1e-3);
  assert.deepEqual(rotated(q, 0), q);
});

for (const length of LENGTHS) {
  Deno.test(`silu, swiglu and add of ${length}: backward is the central difference`, () => {
    const random = seededRandom(length);
    const [a, b] = [normals(random, { length, scale: 3 }), normals(random, { length })];
    assertBackward(silu, { inputs: { x: a }, dims: { length }, outputs: ["y"], seed: 5 });
    assertBackward(swiglu, { inputs: { gate: a, up: b }, dims: { length }, outputs: ["y"], seed: 6 });
    assertBackward(add, { inputs: { a, b }, dims: { length }, outputs: ["y"], seed: 7 });
  });
}

Deno.test("swiglu, packed: backward is the central difference, and one row is its two halves", () => {
  const random = seededRandom(8);
  const packed = { forward: swiglu.packedForward, backward: swiglu.packedBackward };
  const gateUp = normals(random, { length: 2 * 3 * 5 });
  assertBackward(packed, { inputs: { gateUp }, dims: { N: 3, F: 5 }, outputs: ["y"], seed: 8 });
  const row = { gate: gateUp.slice(10, 15), up: gateUp.slice(15, 20) };
  const { y } = swiglu.packedForward({ gateUp }, { N: 3, F: 5 });
  assert.deepEqual(y.slice(5, 10), swiglu.forward(row, { length: 5 }).y);
});

for (const [N, F, C] of [[1, 1, 1], [4, 3, 5]]) {
  Deno.test(`swiglu_linear ${N}x${F}x${C}: backward is the central difference`, () => {
    const random = seededRandom(N * F * C);
    const inputs = {
      x: normals(random, { length: N * C }),
      weight: normals(random, { length: 2 * F * C }),
    };
    assertBackward(swigluLinear, { inputs, dims: { N, F, C }, outputs: ["y"], seed: 7 });
  });
}

Deno.test("sigmoid and log-sigmoid stay finite and accurate far out", () => {
  assert.equal(logSigmoid(-1e6), -1e6);
  assert.equal(logSigmoid(80), -Math.exp(-80));
  assert.ok(logSigmoid(1e6) === 0);
  assert.equal(sigmoid(-80), Math.exp(-80));
  assert.equal(sigmoid(-1e6), 0);
  assert.equal(sigmoid(1e6), 1);
  for (const x of [-3, -0.5, 0, 0.5, 3]) assert.ok(Math.abs(logSigmoid(x) - Math.log(sigmoid(x))) < 1e-15);
});

for (const [N, C, V] of [[1, 2, 3], [7, 5, 17], [6, 8, 4]]) {
  Deno.test(`token_logps ${N}x${C}x${V}: backward is the central difference`, () => {
    const random = seededRandom(N * C * V);
    const labels = integers(random, { length: N, high: V });
    for (let n = 1; n < N; n += 3) labels[n] = tokenLogps.IGNORED_LABEL;
    const inputs = {
      hidden: normals(random, { length: N * C }),
      lmHead: normals(random, { length: V * C }),
      labels,
    };
    assertBackward(tokenLogps, { inputs, dims: { N, C, V }, outputs: ["logps"], seed: 8 });
  });
}

Deno.test("token_logps: probabilities of all labels sum to 1, ignored rows give no log-prob and no gradient", () => {
  const random = seededRandom(9);
  const dims = { N: 3, C: 4, V: 6 };
  const [hidden, lmHead] = [normals(random, { length: 12 }), normals(random, { length: 24, scale: 20 })];
  let total = 0;
  for (let label = 0; label < dims.V; label++) {
    const { logps } = tokenLogps.forward({ hidden, lmHead, labels: [-100, label, -100] }, dims);
    assert.equal(logps.length, 1);
    total += Math.exp(logps[0]);
  }
  assert.ok(Math.abs(total - 1) < 1e-12);
  const { dHidden } = tokenLogps.backward({ hidden, lmHead, labels: [-100, 2, -100] }, dims, {
    dLogps: Float64Array.of(1),
  });
  assert.deepEqual(dHidden.filter((_, i) => i < 4 || i >= 8), new Float64Array(8));
  assert.ok(dHidden.slice(4, 8).every((value) => value !== 0));
});

Deno.test("sequence_logps: backward is the central difference, an empty sequence gives 0", () => {
  const tokens = normals(seededRandom(10), { length: 9 });
  const inputs = { tokenLogps: tokens, sequenceOffsets: [0, 4, 4, 9] };
  assertBackward(sequenceLogps, { inputs, dims: { M: 9, S: 3 }, outputs: ["s"], seed: 9 });
  const { s, lengths } = sequenceLogps.forward(inputs, { M: 9, S: 3 });
  assert.deepEqual(lengths, Float64Array.of(4, 0, 5));
  assert.equal(s[1], 0);
});

Deno.test("sequence_logps: tokens after a sequence's head count alpha (LD-DPO)", () => {
  const tokens = normals(seededRandom(10), { length: 9 });
  // The first sequence is all head, the third has 4 tokens after it.
  const inputs = { tokenLogps: tokens, sequenceOffsets: [0, 3, 4, 9], heads: [3, 1, 1] };
  const dims = { M: 9, S: 3, tailWeight: 0.3 };
  assertBackward(sequenceLogps, { inputs, dims, outputs: ["s"], seed: 9 });
  const { s, lengths } = sequenceLogps.forward(inputs, dims);
  assert.deepEqual(lengths, Float64Array.of(3, 1, 5), "lengths stay full");
  const tail = tokens[5] + tokens[6] + tokens[7] + tokens[8];
  assert.ok(Math.abs(s[2] - (tokens[4] + 0.3 * tail)) < 1e-12);
  const { s: plain } = sequenceLogps.forward({ tokenLogps: tokens, sequenceOffsets: [0, 3, 4, 9] }, dims);
  assert.deepEqual(s.subarray(0, 2), plain.subarray(0, 2));
  assert.deepEqual(sequenceLogps.forward(inputs, { ...dims, tailWeight: 1 }).s, plain);
});

Deno.test("ops refuse tensors, ids, labels and offsets that disagree with the dimensions", () => {
  const three = new Float64Array(3);
  const cases: (() => unknown)[] = [
    () => matmul.forward({ a: three, b: three }, { M: 2, N: 1, K: 3 }),
    () => embedding.forward({ ids: [3], weight: three }, { N: 1, V: 3, C: 1 }),
    () => embedding.forward({ ids: [-1], weight: three }, { N: 1, V: 3, C: 1 }),
    () => rope.forward({ x: three, positions: [0] }, { N: 1, H: 1, D: 3, theta: 10 }),
    () => tokenLogps.forward({ hidden: three, lmHead: three, labels: [3] }, { N: 1, C: 3, V: 1 }),
    () => sequenceLogps.forward({ tokenLogps: three, sequenceOffsets: [0, 2] }, { M: 3, S: 1 }),
    () => sequenceLogps.forward({ tokenLogps: three, sequenceOffsets: [0, 2, 1, 3] }, { M: 3, S: 3 }),
  ];
  for (const run of cases) assert.throws(run, RangeError);
});
