/**
 * C = scale op(A) op(B) + bias + residual, written or added to. See {@link ./tile.ts} for the tilings.
 * @module
 */
import { elementOf, type Kernel, output } from "./kernel.ts";
import { loadQuad, packQuad, quadType, type Storage } from "./storage.ts";
import {
  columnOf,
  operandBinding,
  type OperandStorage,
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

/** What a matmul pipeline is specialised on; shapes and what is added are uniforms. */
export interface MatmulConstants {
  readonly kind: ProductKind;
  readonly tile: Tile;
  /** Every row length divides by four: vec4 loads and stores. */
  readonly vector: boolean;
  /** How A, B and C (and the residual, which is stored as C is) lie in memory; all f32 unless `vector`. */
  readonly storage: OperandStorage & { readonly c: Storage };
}

/** NN: A [M, K], B [K, N]; NT: B [N, K]; TN: A [K, M]. C [M, N] is written, or added to. */
export const matmulForward: Kernel<MatmulConstants> = {
  name: "matmul",
  doc:
    `C[m, n] (+)= scale (sum over k of op(A)[m, k] op(B)[k, n]) + bias[n] + residual[m, n]; C, residual [M, N].
    NN: A [M, K], B [K, N]. NT: B [N, K]. TN: A [K, M]. bias [N]. Where there is no bias or no residual, its flag is 0
    and A is bound in its place. A workgroup owns a tile of C. Nothing is saved.`,
  build({ kind, tile, vector, storage }) {
    const element = (stored: Storage) => vector ? quadType(stored) : "f32";
    const product = { tile, kind, vector, storage, a: "a", b: "b", m: "p.m", n: "p.n", k: "p.k" };
    return {
      bindings: {
        a: operandBinding(tile, element(storage.a)),
        b: operandBinding(tile, element(storage.b)),
        bias: operandBinding(tile, element("f32")),
        residual: operandBinding(tile, element(storage.c)),
        c: output(element(storage.c)),
      },
      params: {
        m: "u32",
        n: "u32",
        k: "u32",
        scale: "f32",
        has_bias: "u32",
        has_residual: "u32",
        accumulate: "u32",
      },
      workgroupSize: [tile.lanesX, tile.lanesY],
      workgroupBytes: tileWorkgroupBytes(tile),
      declarations: tileDeclarations(product, storage.c) + storeFunction({ tile, vector, storage }),
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

/** The order of the additions is fixed, and is part of what makes a run's bits. */
function storeFunction({ tile, vector, storage }: Omit<MatmulConstants, "kind">): string {
  const stored = storage.c;
  const added = (name: string, type: Storage, index: string) => {
    const binding = operandBinding(tile, vector ? quadType(type) : "f32");
    return loadQuad(type, elementOf(binding, name, index));
  };
  return wgsl`
fn store(row: u32, column: u32, product: vec4f) {
  if (row >= p.m || column >= p.n) { return; }
  var value = p.scale * product;
#if ${vector}
  let index = (row * p.n + column) / 4u;
  if (p.has_bias != 0u) { value += ${added("bias", "f32", "column / 4u")}; }
  if (p.has_residual != 0u) { value += ${added("residual", stored, "index")}; }
  if (p.accumulate != 0u) { value += ${loadQuad(stored, "c[index]")}; }
  c[index] = ${packQuad(stored, "value")};
#else
  for (var i = 0u; i < min(4u, p.n - column); i++) {
    let index = row * p.n + column + i;
    if (p.has_bias != 0u) { value[i] += ${added("bias", "f32", "column + i")}; }
    if (p.has_residual != 0u) { value[i] += ${added("residual", "f32", "index")}; }
    if (p.accumulate != 0u) { value[i] += c[index]; }
    c[index] = value[i];
  }
#endif
}`;
}
