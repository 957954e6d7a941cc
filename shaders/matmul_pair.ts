/**
 * Two products into one result, a tile at a time: what a low-rank adapter adds costs a few steps of k more, not another
 * pass over the result. See {@link ./tile.ts} for the tilings.
 * @module
 */
import { type MatmulConstants, storeFunction } from "./matmul.ts";
import { type Kernel, output } from "./kernel.ts";
import { quadType, type Storage } from "./storage.ts";
import {
  columnOf,
  operandBinding,
  type OperandStorage,
  rowOf,
  tileCols,
  tileDeclarations,
  tileProduct,
  tileRows,
  tileWorkgroupBytes,
} from "./tile.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** As of the product, for the first; the second is NT or NN as the first is, or of its own kind. */
export interface MatmulPairConstants extends MatmulConstants {
  /** How the second product's factors are stored, and which is transposed. */
  readonly second: OperandStorage & { readonly kind: MatmulConstants["kind"] };
}

/** C = op(A) op(B) + op(A2) op(B2) + bias + residual. */
export const matmulPair: Kernel<MatmulPairConstants> = {
  name: "matmul_pair",
  doc:
    `C[m, n] (+)= sum over k of op(A)[m, k] op(B)[k, n] + sum over k2 of op(A2)[m, k2] op(B2)[k2, n] + bias[n] +
    residual[m, n]; C, residual [M, N]; as in matmul, k first, then k2. A workgroup owns a tile of C. Nothing is saved.`,
  build({ kind, tile, vector, storage, second }) {
    const binding = (stored: Storage) => operandBinding(tile, vector ? quadType(stored) : "f32");
    const shared = { tile, vector, m: "p.m", n: "p.n" } as const;
    const first = { ...shared, kind, storage, a: "a", b: "b", k: "p.k" } as const;
    const added = {
      ...shared,
      kind: second.kind,
      storage: second,
      a: "a2",
      b: "b2",
      k: "p.k2",
      addend: "second_",
    } as const;
    return {
      bindings: {
        a: binding(storage.a),
        b: binding(storage.b),
        a2: binding(second.a),
        b2: binding(second.b),
        bias: binding("f32"),
        residual: binding(storage.c),
        c: output(binding(storage.c).type),
      },
      params: {
        ...{ m: "u32", n: "u32", k: "u32", k2: "u32", scale: "f32" },
        ...{ has_bias: "u32", has_residual: "u32", accumulate: "u32" },
      },
      workgroupSize: [tile.lanesX, tile.lanesY],
      workgroupBytes: tileWorkgroupBytes(tile),
      declarations: tileDeclarations(first, storage.c, second.a, second.b) + tileDeclarations(added) +
        storeFunction({ binding, vector, storage }),
      body: wgsl`
let m0 = workgroup_id.y * ${tileRows(tile)}u;
let n0 = workgroup_id.x * ${tileCols(tile)}u;
${tileProduct(first)}
${tileProduct(added)}
${
        unroll(tile.rows, (i) =>
          unroll(tile.cols / 4, (j) =>
            `store(0u, ${rowOf(tile, i)}, ${columnOf(tile, j)}, c${i}_${j});`))
      }`,
    };
  },
};
