import assert from "node:assert/strict";
import { hostLabels, tokenLogps } from "../../engine/ops/token_logps.ts";
import { ShapeError } from "../../engine/shape.ts";
import { upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { integers, seededRandom } from "../reference/random.ts";
import * as reference from "../reference/token_logps.ts";
import { checkOp, type OpCheck } from "./check_op.ts";

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
