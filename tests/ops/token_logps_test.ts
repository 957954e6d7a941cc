import assert from "node:assert/strict";
import { narrow, widen } from "../../engine/dtype.ts";
import { Gpu, type Storage } from "../../engine/mod.ts";
import { hostLabels, tokenLogps } from "../../engine/ops/token_logps.ts";
import { type Shape, ShapeError } from "../../engine/shape.ts";
import { Tape } from "../../engine/tape.ts";
import { empty, release, toHost, upload, writeHost } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { integers, normals, seededRandom } from "../reference/random.ts";
import * as reference from "../reference/token_logps.ts";
import { assertClose, checkOp, type OpCheck } from "./check_op.ts";

interface Case {
  name: string;
  R: number;
  C: number;
  V: number;
  shards?: number[];
  labels?: number[];
  /** Standard deviation of hidden states, 1 by default. Logits have standard deviation scale sqrt(C) headScale. */
  scale?: number;
  headScale?: number;
  capacity?: number;
}

const CASES: Case[] = [
  { name: "a vocabulary of one", R: 3, C: 17, V: 1 },
  { name: "scalar loads", R: 17, C: 17, V: 17 },
  { name: "vector loads", R: 65, C: 64, V: 64 },
  { name: "a vocabulary past one chunk", R: 63, C: 17, V: 257 },
  { name: "four chunks", R: 64, C: 64, V: 1000 },
  { name: "one row", R: 1, C: 64, V: 257 },
  {
    name: "three shards, labels at their borders",
    R: 8,
    C: 64,
    V: 300,
    shards: [64, 128, 108],
    labels: [0, 63, 64, 65, 191, 192, 193, 299],
  },
  {
    name: "shards that divide by nothing",
    R: 6,
    C: 17,
    V: 400,
    shards: [17, 300, 83],
    labels: [0, 16, 17, 316, 317, 399],
  },
  // Logits of standard deviation 80: unshifted exponentials would overflow.
  { name: "large logits", R: 17, C: 64, V: 257, scale: 10 },
  // Slabs of the backward hold 64 ids when so many rows are reserved: three, and a tail of 8.
  { name: "several slabs of the backward", R: 17, C: 16, V: 200, capacity: 33000 },
  { name: "several slabs in two shards", R: 5, C: 17, V: 200, shards: [128, 72], capacity: 33000 },
];

for (const one of CASES) {
  gpuTest(
    `token_logps ${one.R}x${one.C}x${one.V}: ${one.name}`,
    (gpu) => checkOp(gpu, tokenLogpsCheck(one)),
    { layouts: LAYOUTS },
  );
}

function tokenLogpsCheck({ name, R, C, V, shards, scale = 1, capacity, ...given }: Case): OpCheck {
  const labels = Uint32Array.from(given.labels ?? integers(seededRandom(R + V), { length: R, high: V }));
  const dims = { N: R, C, V };
  return {
    op: `token_logps ${name}`,
    inputs: { hidden: { shape: [R, C], scale, capacity }, lmHead: { shape: [V, C], shards } },
    run: ({ hidden }, { lmHead }) => tokenLogps(hidden, lmHead, upload(hidden.gpu, labels, { capacity })),
    reference: ({ hidden, lmHead }) => ({
      output: reference.forward({ hidden, lmHead, labels }, dims).logps,
      backward: (dLogps) => {
        const { dHidden, dLmHead } = reference.backward({ hidden, lmHead, labels }, dims, { dLogps });
        return { hidden: dHidden, lmHead: dLmHead };
      },
    }),
    // A logit of magnitude 250 is rounded to 3e-5 many times over; probabilities scale by its error, and the head's
    // gradient multiplies them by hidden states of magnitude 30.
    ...(scale === 10 ? { atol: 2e-3, rtol: 1e-4 } : { atol: 2e-5 }),
  };
}

/** One forward and backward outside {@link checkOp}, whose several runs are too slow for a large vocabulary. */
async function runOnce(gpu: Gpu, { R, C, V, hiddenType = "f32", headType = "f32", capacity }: Run) {
  const random = seededRandom(R + V);
  const draw = (length: number) => Float32Array.from(normals(random, { length }));
  const labels = Uint32Array.from(integers(random, { length: R, high: V }));
  labels[R - 1] = V - 1;
  const [hiddenValues, headValues, upstream] = [draw(R * C), draw(V * C), draw(R)];
  const place = (values: Float32Array<ArrayBuffer>, shape: Shape, type: Storage, room?: number) => {
    const tensor = empty(gpu, shape, { type, capacity: room, owner: "caller" });
    writeHost(tensor, values);
    return tensor;
  };
  // Gradients of activations are stored as the activations are, those of parameters in f32.
  const dHidden = place(new Float32Array(R * C), [R, C], hiddenType, capacity);
  const dHead = place(new Float32Array(V * C), [V, C], "f32");
  const hidden = { ...place(hiddenValues, [R, C], hiddenType, capacity), requiresGrad: true, grad: dHidden };
  const head = { ...place(headValues, [V, C], headType), requiresGrad: headType !== "bf16", grad: dHead };
  const dLogps = place(upstream, [R], "f32");
  const tape = new Tape(gpu);
  const logps = tape.keep(tokenLogps(hidden, [head], upload(gpu, labels, { capacity })));
  tape.backward([{ tensor: logps, gradient: dLogps }]);
  const [foundLogps, foundHidden, foundHead] = [
    await toHost(logps),
    await toHost(dHidden),
    await toHost(dHead),
  ];
  [dHidden, dHead, hidden, head, dLogps, logps].forEach(release);
  const stored = (values: Float32Array, type: Storage) =>
    Float64Array.from(widen(narrow(values, type), type));
  return {
    found: { logps: foundLogps, dHidden: foundHidden, dHead: foundHead },
    inputs: { hidden: stored(hiddenValues, hiddenType), lmHead: stored(headValues, headType), labels },
    dLogps: Float64Array.from(upstream),
  };
}

interface Run {
  R: number;
  C: number;
  V: number;
  hiddenType?: "f32" | "f16";
  headType?: Storage;
  capacity?: number;
}

gpuTest("token_logps over 151,936 ids agrees with f64, forward and backward", async (gpu) => {
  const dims = { R: 5, C: 8, V: 151_936 };
  const { found, inputs, dLogps } = await runOnce(gpu, dims);
  const sizes = { ...dims, N: dims.R };
  assertClose(found.logps, reference.forward(inputs, sizes).logps, { what: "logps", atol: 2e-5 });
  const { dHidden, dLmHead } = reference.backward(inputs, sizes, { dLogps });
  // A sum of 151,936 products in runs of 4,096: unlikely ids fall below the last bit of what is summed already.
  assertClose(found.dHidden, dHidden, { what: "d hidden", atol: 4e-5 });
  assertClose(found.dHead, dLmHead, { what: "d head", atol: 2e-5 });
}, { layouts: LAYOUTS });

// 200 ids leave a tail of 8 beside slabs of 64, 203 one that does not divide by four.
for (const [hiddenType, headType] of [["f16", "f16"], ["f16", "bf16"], ["f32", "bf16"]] as const) {
  for (const V of [200, 203]) {
    gpuTest(`token_logps of ${hiddenType} rows under a ${headType} head of ${V}`, async (gpu) => {
      const dims = { R: 17, C: 16, V, hiddenType, headType, capacity: 33000 };
      const { found, inputs, dLogps } = await runOnce(gpu, dims);
      const sizes = { ...dims, N: dims.R };
      assertClose(found.logps, reference.forward(inputs, sizes).logps, { what: "logps", atol: 2e-5 });
      const expected = reference.backward(inputs, sizes, { dLogps });
      // In f16 dLogits and dHidden are rounded, of magnitude one each: by 2^-12, over a few rows and ids that matter.
      const close = { atol: hiddenType === "f16" ? 2e-3 : 2e-5, rtol: hiddenType === "f16" ? 2e-3 : 1e-5 };
      assertClose(found.dHidden, expected.dHidden, { what: "d hidden", ...close });
      if (headType === "bf16") {
        assert.ok(found.dHead.every((value) => value === 0), "a frozen head's gradient");
      } else assertClose(found.dHead, expected.dLmHead, { what: "d head", ...close });
    }, { layouts: LAYOUTS });
  }
}

gpuTest("token_logps takes no more memory for 151,936 ids than for 4,096", (gpu) => {
  // Room for 2,048 rows: their logits over the large vocabulary would take 1.24 GB.
  const [R, C, capacity] = [3, 4, 2048];
  const extraBytes = [4096, 151_936].map((V) => {
    const own = new Gpu(gpu.device, gpu.adapter, {});
    const make = (shape: Shape, room?: number) => empty(own, shape, { capacity: room, owner: "caller" });
    const hidden = { ...make([R, C], capacity), requiresGrad: true, grad: make([R, C], capacity) };
    const head = { ...make([V, C]), requiresGrad: true, grad: make([V, C]) };
    const before = own.stats().memory.usedBytes;
    const gradient = upload(own, new Float32Array(R));
    using tape = new Tape(own);
    tape.backward([{ tensor: tokenLogps(hidden, [head], upload(own, new Uint32Array(R))), gradient }]);
    own.queue.submit();
    const { peakBytes } = own.stats().memory;
    own.buffers.destroy();
    return peakBytes - before;
  });
  const [small, large] = extraBytes;
  assert.ok(small > 2 ** 24 && small < 1.3 * 2 ** 24, `the slab and little else: ${small}`);
  // Chunks of the forward grow from 16 to 32, 24 KB each; buffers come in sizes of their own.
  assert.ok(large - small < 2 ** 20, `${large} and ${small}`);
}, { layouts: ["gpu"] });

gpuTest(
  "token_logps refuses 16-bit rows that do not divide by four",
  (gpu) => {
    const hidden = empty(gpu, [1, 6], { type: "f16" });
    const head = upload(gpu, new Float32Array(12), { shape: [2, 6] });
    assert.throws(
      () => tokenLogps(hidden, [head], upload(gpu, Uint32Array.of(0))),
      new ShapeError("Cannot run token_logps: expected rows that divide by four for f16, found rows of 6"),
    );
    release(hidden);
  },
);

gpuTest(
  "token_logps refuses labels past the head, their wrong number, and shards of another width",
  (gpu) => {
    const hidden = upload(gpu, new Float32Array(8), { shape: [2, 4] });
    const head = [3, 2].map((rows) => upload(gpu, new Float32Array(rows * 4), { shape: [rows, 4] }));
    assert.throws(
      () => hostLabels([4, 5], { vocab: 5 }),
      new RangeError("Cannot index labels: expected them below 5, found 5 at position 1"),
    );
    assert.throws(
      () => tokenLogps(hidden, head, upload(gpu, Uint32Array.of(4))),
      new ShapeError("Cannot run token_logps: expected hidden of shape [1, any], found [2, 4]"),
    );
    const wider = upload(gpu, new Float32Array(5), { shape: [1, 5] });
    assert.throws(
      () => tokenLogps(hidden, [...head, wider], upload(gpu, Uint32Array.of(0, 0))),
      new ShapeError("Cannot run token_logps: expected lmHead of shape [any, 4], found [1, 5]"),
    );
  },
);
