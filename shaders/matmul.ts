/**
 * C = op(A) op(B) with optional accumulation. See {@link ./tile.ts} for the tilings.
 * @module
 */
import { type Kernel, output } from "./kernel.ts";
import {
  columnOf,
  operandBinding,
  type ProductKind,
  rowOf,
  type Tile,
  tileCols,
  tileDeclarations,
  tileProduct,
  tileRows,
  tileWorkgroupBytes,
} from "./tile.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** What a matmul pipeline is specialised on; shapes are uniforms. */
export interface MatmulConstants {
  readonly kind: ProductKind;
  readonly tile: Tile;
  /** Every row length divides by four: vec4 loads and stores. */
  readonly vector: boolean;
}

/** NN: A [M, K], B [K, N]; NT: B [N, K]; TN: A [K, M]. C [M, N] is written, or added to. */
export const matmulForward: Kernel<MatmulConstants> = {
  name: "matmul",
  doc: `C[m, n] (+)= sum over k of op(A)[m, k] op(B)[k, n]; C [M, N].
    NN: A [M, K], B [K, N]. NT: B [N, K]. TN: A [K, M]. A workgroup owns a tile of C. Nothing is saved.`,
  build({ kind, tile, vector }) {
    const element = vector ? "vec4f" : "f32";
    const product = { tile, kind, vector, a: "a", b: "b", m: "p.m", n: "p.n", k: "p.k" };
    return {
      bindings: { a: operandBinding(tile, element), b: operandBinding(tile, element), c: output(element) },
      params: { m: "u32", n: "u32", k: "u32", accumulate: "u32" },
      workgroupSize: [tile.lanesX, tile.lanesY],
      workgroupBytes: tileWorkgroupBytes(tile),
      declarations: tileDeclarations(product) + storeFunction(vector),
      body: wgsl`
let m0 = workgroup_id.y * ${tileRows(tile)}u;
let n0 = workgroup_id.x * ${tileCols(tile)}u;
${tileProduct(product)}
${
        unroll(tile.rows, (i) =>
          unroll(tile.cols / 4, (j) => `store(${rowOf(tile, i)}, ${columnOf(tile, j)}, c${i}_${j});`))
      }`,
    };
  },
};

function storeFunction(vector: boolean): string {
  return wgsl`
fn store(row: u32, column: u32, value: vec4f) {
  if (row >= p.m || column >= p.n) { return; }
#if ${vector}
  let index = (row * p.n + column) / 4u;
  if (p.accumulate != 0u) { c[index] += value; } else { c[index] = value; }
#else
  for (var i = 0u; i < min(4u, p.n - column); i++) {
    let index = row * p.n + column + i;
    if (p.accumulate != 0u) { c[index] += value[i]; } else { c[index] = value[i]; }
  }
#endif
}`;
}
