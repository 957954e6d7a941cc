/**
 * Rows by index: the token embedding, and picking rows of hidden states.
 * @module
 */
import { type ElementType, input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP, vectorType, type VectorWidth } from "./lib.ts";
import { loadQuad, packQuad, quadType, type Storage, storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup. */
export const GATHER_WORKGROUP = 64;

/** What copying rows is specialised on. */
export interface GatherConstants {
  /** 4 where a 16-bit storage is. */
  readonly width: VectorWidth;
  /** How the table is stored. */
  readonly table: Storage;
  /** How y, or its gradient, is stored. */
  readonly y: Storage;
}

/** The binding type of rows in vectors of `width`. */
function elementType(width: VectorWidth, storage: Storage): ElementType {
  return width === 4 ? quadType(storage) : vectorType(width);
}

/** y[n] = table[ids[n] - first], for ids inside this shard of the table. */
export const embeddingForward: Kernel<GatherConstants> = {
  name: "embedding_forward",
  doc:
    `y[n, c] = table[ids[n] - first, c] where first <= ids[n] < first + table_rows; other rows are left alone
    (another shard of the table writes them). table [rows, C], ids [N], y [N, C]. An invocation owns an element of y.`,
  build({ width, table, y }) {
    const source = "table[(id - p.first) * count + i % count]";
    return {
      bindings: {
        table: input(elementType(width, table)),
        ids: input("u32"),
        y: output(elementType(width, y)),
      },
      params: { elements: "u32", columns: "u32", first: "u32", table_rows: "u32" },
      workgroupSize: [GATHER_WORKGROUP, 1],
      declarations: storageFunctions(table, y),
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${GATHER_WORKGROUP}u + local_id.x;
if (i >= p.elements) { return; }
let count = p.columns / ${width}u;
let id = ids[i / count];
if (id < p.first || id - p.first >= p.table_rows) { return; }
y[i] = ${table === y ? source : packQuad(y, loadQuad(table, source))};`,
    };
  },
};

/** dTable[id] (+)= the sum of dY over the id's places, in order: no atomics, so the same bits every time. */
export const embeddingBackward: Kernel<Pick<GatherConstants, "width" | "y">> = {
  name: "embedding_backward",
  doc:
    `y[n] = table[ids[n]]: d_table[unique[u] - first, c] (+)= sum over the places n of unique[u] of d_y[n, c].
    places[offsets[u] .. offsets[u + 1]) lists those n, ascending. An invocation owns a column of a unique id, so
    no two write the same element; ids of other shards are skipped. d_table is f32 whatever d_y is.`,
  build({ width, y }) {
    const type = vectorType(width);
    return {
      bindings: {
        unique_ids: input("u32"),
        offsets: input("u32"),
        places: input("u32"),
        d_y: input(elementType(width, y)),
        d_table: output(type),
      },
      params: { elements: "u32", columns: "u32", first: "u32", table_rows: "u32", accumulate: "u32" },
      workgroupSize: [GATHER_WORKGROUP, 1],
      declarations: storageFunctions(y),
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${GATHER_WORKGROUP}u + local_id.x;
if (i >= p.elements) { return; }
let count = p.columns / ${width}u;
let u = i / count;
let c = i % count;
let id = unique_ids[u];
if (id < p.first || id - p.first >= p.table_rows) { return; }
var total = ${type}();
for (var place = offsets[u]; place < offsets[u + 1u]; place++) {
  total += ${loadQuad(y, "d_y[places[place] * count + c]")};
}
let target_index = (id - p.first) * count + c;
if (p.accumulate != 0u) { total += d_table[target_index]; }
d_table[target_index] = total;`,
    };
  },
};

/** What a gather's pipelines are specialised on. */
export interface GatherRowsConstants {
  /** Elements a load takes; four in 16-bit storage. */
  readonly width: VectorWidth;
  /** Of x and y. */
  readonly storage: Storage;
}

/** y[r] = x[rows[r]]. */
export const gatherRowsForward: Kernel<GatherRowsConstants> = {
  name: "gather_rows_forward",
  doc:
    `y[r, c] = x[rows[r], c], as it is stored. x [N, C], rows [R], y [R, C]. An invocation owns an element of y.`,
  build(constants) {
    const type = elementType(constants.width, constants.storage);
    return {
      bindings: { x: input(type), rows: input("u32"), y: output(type) },
      params: { elements: "u32", columns: "u32" },
      workgroupSize: [GATHER_WORKGROUP, 1],
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${GATHER_WORKGROUP}u + local_id.x;
if (i >= p.elements) { return; }
let count = p.columns / ${constants.width}u;
y[i] = x[rows[i / count] * count + i % count];`,
    };
  },
};

/** dX of gathered rows: the sum over the places a row went to, in order. */
export const gatherRowsBackward: Kernel<GatherRowsConstants> = {
  name: "gather_rows_backward",
  doc:
    `y[r] = x[rows[r]]: d_x[n, c] (+)= sum over the places r of row n of d_y[r, c], zero for a row that was not picked.
    places[offsets[n] .. offsets[n + 1]) lists those r, ascending. offsets [N + 1], d_y [R, C], d_x [N, C]. An
    invocation owns an element of d_x, so no two write the same.`,
  build(constants) {
    const { width, storage } = constants;
    const type = elementType(constants.width, constants.storage);
    const load = (stored: string) => width === 4 ? loadQuad(storage, stored) : stored;
    return {
      bindings: { offsets: input("u32"), places: input("u32"), d_y: input(type), d_x: output(type) },
      params: { elements: "u32", columns: "u32", accumulate: "u32" },
      workgroupSize: [GATHER_WORKGROUP, 1],
      declarations: storageFunctions(storage),
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${GATHER_WORKGROUP}u + local_id.x;
if (i >= p.elements) { return; }
let count = p.columns / ${width}u;
let n = i / count;
var total = ${vectorType(width)}();
for (var place = offsets[n]; place < offsets[n + 1u]; place++) {
  total += ${load("d_y[places[place] * count + i % count]")};
}
if (p.accumulate != 0u) { total += ${load("d_x[i]")}; }
d_x[i] = ${width === 4 ? packQuad(storage, "total") : "total"};`,
    };
  },
};
