/**
 * C = scale op(A) op(B) + bias + residual, written or added to. See {@link ./tile.ts} for the tilings.
 * @module
 */
import { elementOf, type Kernel, output, type StorageBinding } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { loadQuad, packQuad, quadType, type Storage, storageFunctions } from "./storage.ts";
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

/** The steps of k that a workgroup sums. */
const SPLIT = { first: "k_first", end: "k_end" } as const;

/** NN: A [M, K], B [K, N]; NT: B [N, K]; TN: A [K, M]. C [M, N] is written, or added to. */
export const matmulForward: Kernel<MatmulConstants> = {
  name: "matmul",
  doc:
    `C[m, n] (+)= scale (sum over k of op(A)[m, k] op(B)[k, n]) + bias[n] + residual[m, n]; C, residual [M, N].
    NN: A [M, K], B [K, N]. NT: B [N, K]. TN: A [K, M]. bias [N]. Where there is no bias or no residual, its flag is 0
    and A is bound in its place. A workgroup owns a tile of C. Nothing is saved.
    With splits > 1, C is [splits, M, N]: part s sums the steps from s split_k on; the caller adds the parts up.`,
  build({ kind, tile, vector, storage }) {
    const binding = (stored: Storage) => operandBinding(tile, vector ? quadType(stored) : "f32");
    const product = {
      tile,
      kind,
      vector,
      storage,
      a: "a",
      b: "b",
      m: "p.m",
      n: "p.n",
      k: "p.k",
      range: SPLIT,
    };
    return {
      bindings: {
        a: binding(storage.a),
        b: binding(storage.b),
        bias: binding("f32"),
        residual: binding(storage.c),
        c: output(binding(storage.c).type),
      },
      params: {
        m: "u32",
        n: "u32",
        k: "u32",
        scale: "f32",
        has_bias: "u32",
        has_residual: "u32",
        accumulate: "u32",
        splits: "u32",
        split_k: "u32",
      },
      workgroupSize: [tile.lanesX, tile.lanesY],
      workgroupBytes: tileWorkgroupBytes(tile),
      declarations: tileDeclarations(product, storage.c) + storeFunction({ binding, vector, storage }),
      body: wgsl`
let m0 = workgroup_id.y * ${tileRows(tile)}u;
let tiles_n = num_workgroups.x / p.splits;
let part = workgroup_id.x / tiles_n;
let n0 = (workgroup_id.x % tiles_n) * ${tileCols(tile)}u;
let k_first = part * p.split_k;
let k_end = min(p.k, k_first + p.split_k);
${tileProduct(product)}
${
        unroll(tile.rows, (i) =>
          unroll(tile.cols / 4, (j) =>
            `store(part, ${rowOf(tile, i)}, ${columnOf(tile, j)}, c${i}_${j});`))
      }`,
    };
  },
};

/** The order of the additions is fixed, and is part of what makes a run's bits. */
export function storeFunction(
  { binding, vector, storage }: Pick<MatmulConstants, "vector" | "storage"> & {
    binding: (stored: Storage) => StorageBinding;
  },
): string {
  const stored = storage.c;
  const added = (name: string, type: Storage, index: string) =>
    loadQuad(type, elementOf(binding(type), name, index));
  return wgsl`
fn store(part: u32, row: u32, column: u32, product: vec4f) {
  if (row >= p.m || column >= p.n) { return; }
  var value = p.scale * product;
#if ${vector}
  let index = ((part * p.m + row) * p.n + column) / 4u;
  if (p.has_bias != 0u) { value += ${added("bias", "f32", "column / 4u")}; }
  if (p.has_residual != 0u) { value += ${added("residual", stored, "index")}; }
  if (p.accumulate != 0u) { value += ${loadQuad(stored, "c[index]")}; }
  c[index] = ${packQuad(stored, "value")};
#else
  for (var i = 0u; i < min(4u, p.n - column); i++) {
    let index = (part * p.m + row) * p.n + column + i;
    if (p.has_bias != 0u) { value[i] += ${added("bias", "f32", "column + i")}; }
    if (p.has_residual != 0u) { value[i] += ${added("residual", "f32", "index")}; }
    if (p.accumulate != 0u) { value[i] += c[index]; }
    c[index] = value[i];
  }
#endif
}`;
}

/** Columns of C that a workgroup of {@link matmulRows} owns. */
export const COLUMNS_PER_ROWS_WORKGROUP = 4;

/** What the product of few rows is specialised on. */
export interface MatmulRowsConstants {
  /** Rows of A: as many accumulators a lane. */
  readonly rows: number;
  /** Lanes that share a sum: a power of two. */
  readonly lanes: number;
  /** K and N divide by four. */
  readonly vector: boolean;
  readonly storage: MatmulConstants["storage"];
  /** Operands through textures: for software adapters. */
  readonly texels: boolean;
}

/** NT for decoding: so few rows that a tile would be mostly empty, and the weight is read once. */
export const matmulRows: Kernel<MatmulRowsConstants> = {
  name: "matmul_rows",
  doc:
    `C[m, n] (+)= scale (sum over k of A[m, k] B[n, k]) + bias[n] + residual[m, n], M at most the member's rows.
    A [M, K]; B [N, K]; bias [N]; C, residual [M, N]; absent ones as in matmul. A workgroup owns four columns;
    its lanes take every lanes-th quad of k, and add their sums in a fixed tree.`,
  build({ rows, lanes, vector, storage, texels }) {
    const binding = (stored: Storage): StorageBinding => ({
      type: vector ? quadType(stored) : "f32",
      access: texels ? "texels" : "read",
    });
    const load = (name: "a" | "b", outer: string) => {
      const stored = storage[name];
      if (vector) return loadQuad(stored, elementOf(binding(stored), name, `${outer} * (p.k / 4u) + q`));
      const component = (c: number) =>
        `select(0.0, ${
          elementOf(binding(stored), name, `${outer} * p.k + min(q * 4u + ${c}u, p.k - 1u)`)
        }, q * 4u + ${c}u < p.k)`;
      return `vec4f(${[0, 1, 2, 3].map(component).join(", ")})`;
    };
    return {
      bindings: {
        a: binding(storage.a),
        b: binding(storage.b),
        bias: binding("f32"),
        residual: binding(storage.c),
        c: { ...binding(storage.c), access: "read_write" },
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
      workgroupSize: [lanes, 1],
      workgroupBytes: rows * lanes * 16,
      declarations: wgsl`${storageFunctions(storage.a, storage.b, storage.c)}
${storeFunction({ binding, vector, storage })}
var<workgroup> sums: array<vec4f, ${rows * lanes}>;`,
      body: wgsl`
let lane = local_id.x;
let n0 = (${LINEAR_WORKGROUP}) * ${COLUMNS_PER_ROWS_WORKGROUP}u;
${unroll(rows, (r) => `var c${r} = vec4f();`)}
for (var q = lane; q < (p.k + 3u) / 4u; q += ${lanes}u) {
${unroll(4, (c) => `let w${c} = ${load("b", `min(n0 + ${c}u, p.n - 1u)`)};`)}
${
        unroll(rows, (r) => `
let x${r} = ${load("a", `min(${r}u, p.m - 1u)`)};
c${r} += vec4f(dot(x${r}, w0), dot(x${r}, w1), dot(x${r}, w2), dot(x${r}, w3));`)
      }
}
${unroll(rows, (r) => `sums[lane * ${rows}u + ${r}u] = c${r};`)}
workgroupBarrier();
for (var stride = ${lanes / 2}u; stride > 0u; stride >>= 1u) {
  if (lane < stride) {
    ${unroll(rows, (r) => `sums[lane * ${rows}u + ${r}u] += sums[(lane + stride) * ${rows}u + ${r}u];`)}
  }
  workgroupBarrier();
}
if (lane < ${rows}u) { store(0u, lane, n0, sums[lane]); }`,
    };
  },
};
