import assert from "node:assert/strict";
import { headNorm } from "../../engine/ops/head_norm.ts";
import { rope, ropeTable } from "../../engine/ops/rope.ts";
import { ShapeError } from "../../engine/shape.ts";
import { release, type Tensor, upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import * as reference from "../reference/head_norm.ts";
import * as ropeReference from "../reference/rope.ts";
import { checkOp, type OpCheck } from "./check_op.ts";

const EPS = 1e-6;

interface Case {
  N: number;
  H: number;
  K: number;
  D: number;
  type?: "f32" | "f16";
}

// 65 tokens of 5 and 257 of 4 heads: two and five blocks of a gain's two-stage sum; heads of 6 are no quads, of 160 more
// than a tile of columns.
const CASES: Case[] = [
  { N: 1, H: 1, K: 1, D: 1 },
  { N: 17, H: 2, K: 1, D: 6 },
  { N: 63, H: 4, K: 2, D: 16 },
  { N: 65, H: 5, K: 5, D: 64 },
  { N: 257, H: 4, K: 1, D: 128 },
  { N: 3, H: 2, K: 2, D: 160 },
  { N: 65, H: 4, K: 2, D: 16, type: "f16" },
];

for (const each of CASES) {
  const { N, H, K, D, type } = each;
  gpuTest(
    `head_norm of ${N} tokens, ${H} + 2 ${K} heads of ${D} ${type ?? "f32"}`,
    (gpu) => checkOp(gpu, headNormCheck(each)),
    { layouts: LAYOUTS },
  );
}

gpuTest("head_norm's result can be rotated in place", async (gpu) => {
  const [N, H, K, D] = [17, 2, 1, 8];
  const at = Uint32Array.from({ length: N }, (_, n) => n);
  const table = ropeTable(gpu, { positions: N, headDim: D, theta: 100 });
  const check = headNormCheck({ N, H, K, D });
  const dims = { N, H: H + 2 * K, D, theta: 100, rotated: H + K };
  await checkOp(gpu, {
    ...check,
    run: (inputs, shards) => rope(check.run(inputs, shards), upload(gpu, at), table, { heads: H + K }),
    reference: (inputs) => {
      const { output, backward } = check.reference(inputs);
      return {
        output: ropeReference.forward({ x: output, positions: at }, dims).y,
        backward: (dY) => backward(ropeReference.backward({ x: output, positions: at }, dims, { dY }).dX),
      };
    },
  });
  release(table);
}, { layouts: LAYOUTS });

gpuTest("head_norm refuses gains of two sizes, and columns that are no whole heads", (gpu) => {
  const qkv = upload(gpu, new Float32Array(24), { shape: [2, 12] });
  const [four, three] = [upload(gpu, new Float32Array(4)), upload(gpu, new Float32Array(3))];
  assert.throws(
    () => headNorm(qkv, { q: four, k: three, heads: 1, kvHeads: 1, eps: EPS }),
    new ShapeError("Cannot run head_norm: expected the gain of keys of shape [4], found [3]"),
  );
  assert.throws(
    () => headNorm(qkv, { q: four, k: four, heads: 2, kvHeads: 1, eps: EPS }),
    new ShapeError("Cannot run head_norm: expected qkv of shape [any, 16], found [2, 12]"),
  );
});

function headNormCheck({ N, H, K, D, type = "f32" }: Case): OpCheck {
  const dims = { N, H, K, D, eps: EPS };
  return {
    op: `head_norm [${N}, (${H} + 2 * ${K}) * ${D}]`,
    inputs: { qkv: { shape: [N, (H + 2 * K) * D], type }, q: { shape: [D] }, k: { shape: [D] } },
    outputType: type,
    run: ({ qkv, q, k }: Record<string, Tensor>) => headNorm(qkv, { q, k, heads: H, kvHeads: K, eps: EPS }),
    reference: ({ qkv, q, k }: Record<string, Float64Array>) => ({
      output: reference.forward({ qkv, q, k }, dims).y,
      backward: (dY: Float64Array) => {
        const { dQkv, dQ, dK } = reference.backward({ qkv, q, k }, dims, { dY });
        return { qkv: dQkv, q: dQ, k: dK };
      },
    }),
    // A gain's gradient sums over a thousand heads.
    ...(type === "f16" ? { atol: 4e-3, rtol: 2 ** -10 } : { atol: 1e-4 }),
  };
}
