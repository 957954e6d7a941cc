/**
 * The register-blocked product that every matrix kernel is built from: a workgroup computes a tile of
 * op(A) op(B), each invocation `rows` x `cols` of it in named vec4 registers `c<i>_<j>`.
 *
 * Three ways to feed the registers, chosen by adapter:
 * - `registers`: straight from global memory. The lanes of a workgroup share their rows, so loads of A are uniform
 *   (one scalar load and a broadcast on CPU adapters, where a divergent load costs 10 to 40 multiply-adds).
 * - `texels`: like `registers`, with operands read through textures (a vector gather on software adapters, where a
 *   buffer load walks the lanes). The workgroup is one subgroup: lanes load different elements of A and broadcast them.
 * - `workgroup`: through workgroup memory, each element of A and B loaded once per tile: for GPUs.
 *
 * NN: A [M, K], B [K, N]. NT: B [N, K]. TN: A [K, M]. All row-major. Accumulation is in f32, k ascending.
 * @module
 */
import { elementOf, input, type StorageBinding, texels } from "./kernel.ts";
import { loadQuad, quadType, type Storage, storageFunctions } from "./storage.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** Which operand is stored transposed. */
export type ProductKind = "NN" | "NT" | "TN";

/** A tiling. `lanesX` x `lanesY` invocations of `rows` x `cols` results each. */
export interface Tile {
  readonly memory: "registers" | "texels" | "workgroup";
  readonly rows: number;
  readonly cols: number;
  readonly lanesX: number;
  readonly lanesY: number;
  /** Steps of k per round through workgroup memory; 4 for registers. */
  readonly depth: number;
}

/** For software adapters without such subgroups: the lanes share their rows of A. */
export const CPU_TILE: Tile = { memory: "registers", rows: 16, cols: 8, lanesX: 8, lanesY: 1, depth: 4 };

/** For software adapters with subgroups of eight, through textures: measured in docs/performance.md. */
export const TEXEL_TILE: Tile = { memory: "texels", rows: 16, cols: 8, lanesX: 8, lanesY: 1, depth: 4 };

/** How a product with this tile binds an operand of elements of this type. */
export function operandBinding(tile: Tile, type: "f32" | "vec4f" | "vec2u"): StorageBinding {
  return tile.memory === "texels" ? texels(type) : input(type);
}

/** The classic 64 x 64 x 16 tile, 8 x 8 a thread. */
export const GPU_TILE: Tile = { memory: "workgroup", rows: 8, cols: 8, lanesX: 8, lanesY: 8, depth: 16 };

/** The same for large products: four times the results from twice the loads. */
export const LARGE_TILE: Tile = { ...GPU_TILE, lanesX: 16, lanesY: 16 };

/** For results with few rows or columns: 32 x 32. */
export const SMALL_TILE: Tile = { ...GPU_TILE, rows: 4, cols: 4 };

/** Rows of the result a workgroup owns. */
export function tileRows(tile: Tile): number {
  return tile.rows * tile.lanesY;
}

/** Columns of the result a workgroup owns. */
export function tileCols(tile: Tile): number {
  return tile.cols * tile.lanesX;
}

/** How both operands lie in memory. */
export interface OperandStorage {
  readonly a: Storage;
  readonly b: Storage;
}

/** What a product needs to know of its surroundings; all values are WGSL expressions. */
export interface Product {
  readonly tile: Tile;
  readonly kind: ProductKind;
  /** True when stored rows divide by four, so that loads are vec4. With TN, k may be anything. */
  readonly vector: boolean;
  /** Names of the bindings: arrays of `quadType(storage)` when `vector`, else of f32. */
  readonly a: string;
  readonly b: string;
  /** How the operands are stored, f32 by default; 16-bit storage needs `vector`. */
  readonly storage?: OperandStorage;
  /**
   * For two products at once (NT): a u32 expression, half of `n`. The tile's first half of register columns is then
   * for columns from `n0` on, its second half for the same columns plus this.
   */
  readonly pair?: string;
  /** The steps of k to sum, as u32 expressions; all by default. The first is a multiple of four and of the depth. */
  readonly range?: { readonly first: string; readonly end: string };
  /** Of a product that adds to the registers of another one before it, with the same tile: its loads' own name. */
  readonly addend?: string;
  /** First row and column of the tile (u32 expressions), and the problem's size. */
  readonly m: string;
  readonly n: string;
  readonly k: string;
}

/**
 * Declarations outside `main` for {@link tileProduct}: loads with edges clamped or zeroed, workgroup memory.
 *
 * @param product what is multiplied
 * @param stored other storages of the kernel whose functions it needs
 */
export function tileDeclarations(product: Product, ...stored: readonly Storage[]): string {
  const { a, b } = storageOf(product);
  const loads = [loadFunction("a", product), loadFunction("b", product)];
  // What comes once in a kernel is declared with the first of its products.
  if (product.addend !== undefined) return loads.join("\n");
  return [storageFunctions(a, b, ...stored), ...loads, workgroupMemory(product.tile)].join("\n");
}

function storageOf(product: Product): OperandStorage {
  return product.storage ?? { a: "f32", b: "f32" };
}

/** Bytes of workgroup memory of a tile. */
export function tileWorkgroupBytes(tile: Tile): number {
  if (tile.memory !== "workgroup") return 0;
  return tile.depth * (tileRows(tile) + tileCols(tile)) * 4;
}

/**
 * Statements that declare `c<i>_<j>` (i < rows, j < cols / 4), and fill them for the tile at (`m0`, `n0`), u32
 * variables that must be in scope. Lane (`local_id.x`, `local_id.y`) holds rows `m0 + local_id.y * rows + i` and
 * columns {@link columnOf}. Contains barriers when the tile is in workgroup memory: control flow must be uniform.
 */
export function tileProduct(product: Product): string {
  const { tile, addend } = product;
  const registers = unroll(
    tile.rows,
    (i) => unroll(tile.cols / 4, (j) => `var c${i}_${j} = vec4f();`),
  );
  const loop = tile.memory === "workgroup" ? workgroupLoop(product) : registerLoop(product);
  return addend === undefined ? `${registers}\n${loop}` : loop;
}

/** First of the four columns that register column `j` of this lane holds. */
export function columnOf(tile: Tile, j: number): string {
  return `(n0 + ${4 * j * tile.lanesX}u + local_id.x * 4u)`;
}

/** Row that register row `i` of this lane holds. */
export function rowOf(tile: Tile, i: number): string {
  return tile.lanesY === 1 ? `(m0 + ${i}u)` : `(m0 + local_id.y * ${tile.rows}u + ${i}u)`;
}

/** The function that loads four elements of an operand. */
function loadName(operand: "a" | "b", { addend = "" }: Product): string {
  return `load_${addend}${operand}`;
}

/** Which column of op(B) the tile's column `offset` (a u32 expression) is. */
function operandColumn({ tile, pair }: Product, offset: string): string {
  if (pair === undefined) return `(n0 + ${offset})`;
  const half = tileCols(tile) / 2;
  return `(n0 + ${offset} + select(0u, ${pair} - ${half}u, ${offset} >= ${half}u))`;
}

/** The K-extent of an operand is its row length unless it is stored with k as rows. */
function storedWithKRows(operand: "a" | "b", kind: ProductKind): boolean {
  return operand === "a" ? kind === "TN" : kind !== "NT";
}

/**
 * `load_a(outer, inner)` and `load_b(outer, inner)`: four elements along a stored row. Past an edge of M or N the
 * index is clamped (that result is not stored); past the end of k the value is zero (it would be summed).
 */
function loadFunction(operand: "a" | "b", product: Product): string {
  const byK = storedWithKRows(operand, product.kind);
  const name = operand === "a" ? product.a : product.b;
  const extent = operand === "a" ? product.m : product.n;
  const [outerExtent, innerExtent] = byK ? [product.k, extent] : [extent, product.k];
  const stored = storageOf(product)[operand];
  const binding = operandBinding(product.tile, product.vector ? quadType(stored) : "f32");
  const at = (index: string) => elementOf(binding, name, index);
  if (product.vector) {
    const quads = `(${innerExtent} / 4u)`;
    const quadAt = (column: string) =>
      loadQuad(stored, at(`min(outer, ${outerExtent} - 1u) * ${quads} + ${column}`));
    return wgsl`
fn ${loadName(operand, product)}(outer: u32, inner: u32) -> vec4f {
#if ${byK && operand === "a"}
  // Tokens are k here, in any number: steps past the end add zero.
  return ${quadAt(`min(inner / 4u, ${quads} - 1u)`)} * select(0.0, 1.0, outer < ${outerExtent});
#elif ${byK}
  return ${quadAt(`min(inner / 4u, ${quads} - 1u)`)};
#else
  return ${quadAt("inner / 4u")};
#endif
}`;
  }
  const component = (index: number) =>
    byK
      ? `select(0.0, ${
        at(`min(outer, ${outerExtent} - 1u) * ${innerExtent} + min(inner + ${index}u, ${innerExtent} - 1u)`)
      }, outer < ${outerExtent})`
      : `select(0.0, ${
        at(`min(outer, ${outerExtent} - 1u) * ${innerExtent} + min(inner + ${index}u, ${innerExtent} - 1u)`)
      }, inner + ${index}u < ${innerExtent})`;
  return wgsl`
fn ${loadName(operand, product)}(outer: u32, inner: u32) -> vec4f {
  return vec4f(
    ${component(0)},
    ${component(1)},
    ${component(2)},
    ${component(3)});
}`;
}

const COMPONENTS = ["x", "y", "z", "w"] as const;

/** One rank-4 update of the registers from `a<i>` (k along components) or `ak<k>_<q>` and `bk<k>_<j>`. */
function multiplyAdd(tile: Tile, aValue: (row: number, k: number) => string): string {
  return unroll(
    tile.rows,
    (i) =>
      unroll(
        tile.cols / 4,
        (j) => unroll(4, (k) => `c${i}_${j} = fma(vec4f(${aValue(i, k)}), bk${k}_${j}, c${i}_${j});`),
      ),
  );
}

/** Loads four k-steps of B into `bk<k>_<j>` for this lane's columns. */
function loadB(product: Product): string {
  const { tile, kind } = product;
  const load = loadName("b", product);
  return unroll(tile.cols / 4, (j) => {
    const column = operandColumn(product, `${4 * j * tile.lanesX}u + local_id.x * 4u`);
    if (kind !== "NT") return unroll(4, (k) => `let bk${k}_${j} = ${load}(k + ${k}u, ${column});`);
    return unroll(4, (c) => `let bt${c}_${j} = ${load}(${column} + ${c}u, k);`) + "\n" +
      unroll(4, (k) => {
        const picked = [0, 1, 2, 3].map((c) => `bt${c}_${j}.${COMPONENTS[k]}`);
        return `let bk${k}_${j} = vec4f(${picked.join(", ")});`;
      });
  });
}

function stepsOf({ range, k }: Product): { first: string; end: string } {
  return range ?? { first: "0u", end: k };
}

function registerLoop(product: Product): string {
  const { tile } = product;
  const { first, end } = stepsOf(product);
  const { loads, value } = tile.memory === "texels" ? sharedA(product) : uniformA(product);
  return wgsl`
for (var k = ${first}; k < ${end}; k += 4u) {
${loadB(product)}
${loads}
${multiplyAdd(tile, value)}
}`;
}

/** Four k-steps of A for a lane's rows: the loads, and how the value of a row and step is called. */
interface RowsOfA {
  readonly loads: string;
  readonly value: (row: number, k: number) => string;
}

/** Every lane loads all of its rows. */
function uniformA(product: Product): RowsOfA {
  const { tile, kind } = product;
  const load = loadName("a", product);
  return kind === "TN"
    ? {
      loads: unroll(
        tile.rows / 4,
        (q) => unroll(4, (k) => `let ak${k}_${q} = ${load}(k + ${k}u, ${rowOf(tile, 4 * q)});`),
      ),
      value: (i, k) => `ak${k}_${i >> 2}.${COMPONENTS[i & 3]}`,
    }
    : {
      loads: unroll(tile.rows, (i) => `let a${i} = ${load}(${rowOf(tile, i)}, k);`),
      value: (i, k) => `a${i}.${COMPONENTS[k]}`,
    };
}

/** The lanes load a quad each, all different, and broadcast it: `rows` quads cover `rows` rows and four steps. */
function sharedA(product: Product): RowsOfA {
  const { tile, kind } = product;
  const loadA = loadName("a", product);
  const lanes = tile.lanesX;
  const quadsPerStep = tile.rows / 4;
  const item = (q: number) => `(${q * lanes}u + local_id.x)`;
  const load = (q: number) =>
    kind === "TN"
      ? `${loadA}(k + ${item(q)} / ${quadsPerStep}u, m0 + ${item(q)} % ${quadsPerStep}u * 4u)`
      : `${loadA}(m0 + ${item(q)}, k)`;
  const name = (i: number, k: number) => `s${k}_${i}`;
  const broadcast = (i: number, k: number) => {
    const [quad, component] = kind === "TN" ? [k * quadsPerStep + (i >> 2), i & 3] : [i, k];
    return `let ${name(i, k)} = subgroupBroadcast(aq${Math.floor(quad / lanes)}.${COMPONENTS[component]}, ${
      quad % lanes
    }u);`;
  };
  return {
    loads: unroll(tile.rows / lanes, (q) => `let aq${q} = ${load(q)};`) + "\n" +
      unroll(tile.rows, (i) => unroll(4, (k) => broadcast(i, k))),
    value: name,
  };
}

function workgroupMemory(tile: Tile): string {
  if (tile.memory !== "workgroup") return "";
  return wgsl`
// k-major: tile_a[k][row / 4], tile_b[k][column / 4].
var<workgroup> tile_a: array<vec4f, ${tile.depth * tileRows(tile) / 4}>;
var<workgroup> tile_b: array<vec4f, ${tile.depth * tileCols(tile) / 4}>;`;
}

/** Fills tile_a or tile_b for k in [k0, k0 + depth), four elements a lane and turn, transposing where k is inner. */
function fillWorkgroup(operand: "a" | "b", product: Product): string {
  const { tile, kind } = product;
  const extent = operand === "a" ? tileRows(tile) : tileCols(tile);
  const at = (offset: string) => operand === "a" ? `(m0 + ${offset})` : operandColumn(product, offset);
  const lanes = tile.lanesX * tile.lanesY;
  const quads = extent / 4;
  const byK = storedWithKRows(operand, kind);
  const load = loadName(operand, product);
  // Where k is the stored row, a lane moves one vec4; else it loads four rows' k..k+3 and stores the transpose.
  const items = byK ? tile.depth * quads : quads * tile.depth / 4;
  const move = byK
    ? wgsl`
  let fk = item / ${quads}u;
  let fq = item % ${quads}u;
  tile_${operand}[item] = ${load}(k0 + fk, ${at("fq * 4u")}) * select(0.0, 1.0, k0 + fk < ${product.k});`
    : wgsl`
  let fq = item / ${tile.depth / 4}u;
  let fk = (item % ${tile.depth / 4}u) * 4u;
  let inside = select(0.0, 1.0, k0 + fk < ${product.k});
  ${
      unroll(4, (c) =>
        `let f${c} = ${load}(${at("fq * 4u")} + ${c}u, min(k0 + fk, (${product.k} - 1u) & ~3u)) * inside;`)
    }
  ${
      unroll(4, (k) =>
        `tile_${operand}[(fk + ${k}u) * ${quads}u + fq] = vec4f(f0.${COMPONENTS[k]}, f1.${
          COMPONENTS[k]
        }, f2.${COMPONENTS[k]}, f3.${COMPONENTS[k]});`)
    }`;
  return wgsl`
for (var item = lane; item < ${items}u; item += ${lanes}u) {${move}
}`;
}

function workgroupLoop(product: Product): string {
  const { tile } = product;
  const { first, end } = stepsOf(product);
  const [quadsA, quadsB] = [tileRows(tile) / 4, tileCols(tile) / 4];
  const rowsA = unroll(
    tile.rows / 4,
    (q) => `let aq${q} = tile_a[kk * ${quadsA}u + local_id.y * ${tile.rows / 4}u + ${q}u];`,
  );
  const colsB = unroll(
    tile.cols / 4,
    (j) => `let bq${j} = tile_b[kk * ${quadsB}u + ${j * tile.lanesX}u + local_id.x];`,
  );
  const update = unroll(
    tile.rows,
    (i) =>
      unroll(
        tile.cols / 4,
        (j) => `c${i}_${j} = fma(vec4f(aq${i >> 2}.${COMPONENTS[i & 3]}), bq${j}, c${i}_${j});`,
      ),
  );
  const lane = product.addend === undefined ? `let lane = local_id.y * ${tile.lanesX}u + local_id.x;` : "";
  return wgsl`
${lane}
for (var k0 = ${first}; k0 < ${end}; k0 += ${tile.depth}u) {
${fillWorkgroup("a", product)}
${fillWorkgroup("b", product)}
workgroupBarrier();
for (var kk = 0u; kk < ${tile.depth}u; kk++) {
${rowsA}
${colsB}
${update}
}
workgroupBarrier();
}`;
}
