/**
 * Attention in tiles, for GPUs: see `attention.ts` for the maths. A workgroup owns 32 query rows (forward, dQ) or key
 * rows (dK, dV) and walks the other side 32 rows at a time. Scores of a tile pair are a product like any other: both
 * operands go through workgroup memory in chunks of the head dimension, so that what they take there does not grow
 * with it, and each invocation holds 4 rows x 32 / lanesX columns of the scores and 4 rows x D / lanesX of the results.
 * @module
 */
import { attentionBindings, type AttentionKernels, type AttentionShape } from "./attention.ts";
import { DOCS, headLayout, MASKED, PARAMS } from "./attention.ts";
import { input, type Kernel } from "./kernel.ts";
import { LOG_F32 } from "./lib.ts";
import { loadQuad, packQuad, quadType, storageFunctions } from "./storage.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** What a tile kernel's pipelines are specialised on. */
export interface AttentionTilesConstants extends AttentionShape {
  /** Invocations beside each other; 8 of these lie below each other. More of them hold less of a wide head each. */
  readonly lanesX: 8 | 16;
}

/** Rows of a tile on either side. */
export const TILE_ROWS = 32;

/** Rows an invocation holds, as the components of a vector. */
const ROWS = ["x", "y", "z", "w"] as const;
const LANES_Y = TILE_ROWS / ROWS.length;

/** From one quad of a tile's row to the next, and of scores from one column to the next: one more, against bank conflicts. */
const QUAD_STRIDE = TILE_ROWS + 1;
const SCORE_STRIDE = LANES_Y + 1;

/** Bytes of workgroup memory that the kernels take, whatever the head dimension beyond the chunk. */
export function tileBytes({ headDim, lanesX }: Pick<AttentionTilesConstants, "headDim" | "lanesX">): number {
  const chunkQuads = Math.min(lanesX, headDim / 4);
  return 16 * (2 * chunkQuads * QUAD_STRIDE + (TILE_ROWS + lanesX) * SCORE_STRIDE) + 4 * TILE_ROWS;
}

/** Loop iterations of an invocation for one pair of tiles, at most. */
export function tileIterations(
  { headDim, lanesX }: Pick<AttentionTilesConstants, "headDim" | "lanesX">,
): number {
  const chunks = Math.ceil(headDim / 4 / lanesX);
  // Two scores (staging both sides, then the quads) and two products with 32 rows.
  return 2 * chunks * (2 * 4 + lanesX) + 2 * chunks * (4 + TILE_ROWS) + lanesX + 1;
}

/** The text that writes a tile kernel of these constants. */
function writer({ headDim, lanesX, storage }: AttentionTilesConstants) {
  const quads = headDim / 4;
  const chunkQuads = Math.min(lanesX, quads);
  const chunks = Math.ceil(quads / chunkQuads);
  const columns = TILE_ROWS / lanesX;
  const load = (stored: string) => loadQuad(storage, stored);
  const whole = quads % chunkQuads === 0;
  /** Fills a tile: `at` is where the row `r` of the tile starts in the array, in quads. */
  const stage = (tile: "tile_a" | "tile_b", array: string, at: (r: string) => string, chunk: string) => {
    const value = load(`${array}[${at("r")} + ${whole ? "quad" : `min(quad, ${quads - 1}u)`}]`);
    return `for (var item = lane; item < ${TILE_ROWS * chunkQuads}u; item += ${lanesX * LANES_Y}u) {
  let r = item / ${chunkQuads}u;
  let d = item % ${chunkQuads}u;
  let quad = ${chunk} * ${chunkQuads}u + d;
  ${tile}[d * ${QUAD_STRIDE}u + r] = ${whole ? value : `select(vec4f(), ${value}, quad < ${quads}u)`};
}`;
  };
  return {
    quads,
    chunks,
    columns,
    load,
    pack: (value: string) => packQuad(storage, value),
    eachRow: (fragment: (row: string, r: number) => string) =>
      unroll(ROWS.length, (r) => fragment(ROWS[r], r)),
    eachColumn: (fragment: (n: number) => string) => unroll(columns, fragment),
    eachChunk: (fragment: (c: number) => string) => unroll(chunks, fragment),
    /** Column n of the invocation, among those of the tile. */
    column: (n: number) => `(local_id.x + ${n * lanesX}u)`,
    /** `<name><n>`: for column n, the dot products of the invocation's rows of a with the row of b. */
    product: (
      name: string,
      a: { array: string; at: (r: string) => string },
      b: { array: string; at: (r: string) => string },
    ) =>
      `${unroll(columns, (n) => `var ${name}${n} = vec4f();`)}
for (var chunk = 0u; chunk < ${chunks}u; chunk++) {
${stage("tile_a", a.array, a.at, "chunk")}
${stage("tile_b", b.array, b.at, "chunk")}
workgroupBarrier();
for (var d = 0u; d < ${chunkQuads}u; d++) {
${
        unroll(
          ROWS.length,
          (r) => `  let a${r} = tile_a[d * ${QUAD_STRIDE}u + local_id.y * ${ROWS.length}u + ${r}u];`,
        )
      }
${
        unroll(columns, (n) => `
  let b${n} = tile_b[d * ${QUAD_STRIDE}u + local_id.x + ${n * lanesX}u];
  ${name}${n} += vec4f(dot(a0, b${n}), dot(a1, b${n}), dot(a2, b${n}), dot(a3, b${n}));`)
      }
}
workgroupBarrier();
}`,
    /** Adds to `<name><r>_<c>` the scores in tile_s times the rows of b. */
    apply: (name: string, b: { array: string; at: (r: string) => string }) =>
      unroll(chunks, (c) => `
${stage("tile_b", b.array, b.at, `${c}u`)}
workgroupBarrier();
for (var n = 0u; n < ${TILE_ROWS}u; n++) {
  let weight = tile_s[n * ${SCORE_STRIDE}u + local_id.y];
  let value = tile_b[${
        lanesX === chunkQuads ? "local_id.x" : `min(local_id.x, ${chunkQuads - 1}u)`
      } * ${QUAD_STRIDE}u + n];
${unroll(ROWS.length, (r) => `  ${name}${r}_${c} += weight.${ROWS[r]} * value;`)}
}
workgroupBarrier();`),
    /** Statement: scores of column n for {@link apply}. */
    keep: (n: number, value: string) =>
      `tile_s[(local_id.x + ${n * lanesX}u) * ${SCORE_STRIDE}u + local_id.y] = ${value};`,
    /** Runs a statement for each quad of the results that this invocation holds: `quad`, within the head. */
    eachResult: (fragment: (c: number) => string) =>
      unroll(chunks, (c) => `
{
  let quad = ${c * chunkQuads}u + local_id.x;
  if (local_id.x < ${chunkQuads}u && quad < ${quads}u) {
${fragment(c)}
  }
}`),
    source: {
      workgroupSize: [lanesX, LANES_Y] as const,
      workgroupBytes: tileBytes({ headDim, lanesX }),
      declarations: `${storageFunctions(storage)}
// [quad of the chunk][row]; scores [column][row / 4]; row statistics [lane][row / 4].
var<workgroup> tile_a: array<vec4f, ${chunkQuads * QUAD_STRIDE}>;
var<workgroup> tile_b: array<vec4f, ${chunkQuads * QUAD_STRIDE}>;
var<workgroup> tile_s: array<vec4f, ${TILE_ROWS * SCORE_STRIDE}>;`,
    },
    first: `let lane = local_id.y * ${lanesX}u + local_id.x;
let first_row = workgroup_id.x * ${TILE_ROWS}u;
let last_row = min(first_row + ${TILE_ROWS - 1}u, p.tokens - 1u);
${unroll(ROWS.length, (r) => `let own${r} = first_row + local_id.y * ${ROWS.length}u + ${r}u;`)}`,
  };
}

/** The workgroup's token `first + r`, clamped to the last. */
const token = (first: string) => (r: string) => `min(${first} + ${r}, p.tokens - 1u)`;

/** Where a token's rows start, in quads: of q, k, v and of out. */
function operands(quads: number, first: string) {
  const at = token(first);
  return {
    q: { array: "qkv", at: (r: string) => `${at(r)} * row_quads + h * ${quads}u` },
    k: { array: "qkv", at: (r: string) => `${at(r)} * row_quads + k_first` },
    v: { array: "qkv", at: (r: string) => `${at(r)} * row_quads + v_first` },
    dOut: { array: "d_out", at: (r: string) => `(${at(r)} * p.heads + h) * ${quads}u` },
  };
}

/** Declares h, g, the query rows i<r>, what they see, and the range of keys that some row of the tile sees. */
function queryRows({ quads, first, eachRow }: ReturnType<typeof writer>): string {
  return `${first}
let h = workgroup_id.y;
let g = h * p.kv_heads / p.heads;
${headLayout(quads)}
${
    eachRow((_, r) => `
let i${r} = min(own${r}, p.tokens - 1u);
let seen${r} = bounds[i${r}];`)
  }
let first_seen = bounds[first_row];
let prefix_end = min(bounds[last_row].z, first_seen.x);`;
}

/** Walks the tiles of keys: those of the prefix that some row sees, then those from the first row's own start. */
function keyLoop(body: string): string {
  return `
var first_key = select(first_seen.x, first_seen.y, first_seen.y < prefix_end);
while (first_key <= last_row) {
${body}
  first_key += ${TILE_ROWS}u;
  if (first_key >= prefix_end) { first_key = max(first_key, first_seen.x); }
}`;
}

/** Declares, for each column, which of the invocation's rows see that key. */
function visible({ eachColumn, column }: ReturnType<typeof writer>): string {
  const sees = (r: number, n: number) =>
    `(j${n} >= seen${r}.x && j${n} <= i${r}) || (j${n} >= seen${r}.y && j${n} < seen${r}.z)`;
  return eachColumn((n) => `
let j${n} = first_key + ${column(n)};
let visible${n} = vec4<bool>(${[0, 1, 2, 3].map((r) => sees(r, n)).join(", ")});`);
}

const results = ({ chunks }: { chunks: number }, name: string) =>
  unroll(ROWS.length, (r) => unroll(chunks, (c) => `var ${name}${r}_${c} = vec4f();`));

/** out = softmax(q k^T scale) v. */
export const attentionTilesForward: Kernel<AttentionTilesConstants> = {
  name: "attention_tiles_forward",
  doc: DOCS.forward,
  build(constants) {
    const w = writer(constants);
    const { quads, chunks, columns, pack, eachRow, eachColumn, eachChunk } = w;
    const { lanesX } = constants;
    const [own, other] = [operands(quads, "first_row"), operands(quads, "first_key")];
    return {
      bindings: attentionBindings(constants.storage, input(quadType(constants.storage))).forward,
      params: PARAMS,
      ...w.source,
      declarations: `${w.source.declarations}
var<workgroup> tile_m: array<vec4f, ${lanesX * SCORE_STRIDE}>;${LOG_F32}`,
      body: wgsl`
${queryRows(w)}
var m = vec4f(${MASKED});
var l = vec4f();
${results({ chunks }, "o")}
${
        keyLoop(`
${visible(w)}
${w.product("s", own.q, other.k)}
${eachColumn((n) => `s${n} = select(vec4f(${MASKED}), s${n} * p.scale, visible${n});`)}
tile_m[local_id.x * ${SCORE_STRIDE}u + local_id.y] = ${
          Array.from({ length: columns }, (_, n) => `s${n}`).reduce((all, one) => `max(${all}, ${one})`)
        };
workgroupBarrier();
var m_new = m;
for (var x = 0u; x < ${lanesX}u; x++) { m_new = max(m_new, tile_m[x * ${SCORE_STRIDE}u + local_id.y]); }
let rescale = exp(m - m_new);
m = m_new;
${eachColumn((n) => w.keep(n, `select(vec4f(), exp(s${n} - m), visible${n})`))}
l *= rescale;
${eachRow((row, r) => eachChunk((c) => `o${r}_${c} *= rescale.${row};`))}
workgroupBarrier();
for (var n = 0u; n < ${TILE_ROWS}u; n++) { l += tile_s[n * ${SCORE_STRIDE}u + local_id.y]; }
${w.apply("o", other.v)}`)
      }
${
        eachRow((row, r) => `
if (own${r} < p.tokens) {
  let row = own${r} * p.heads + h;
  if (local_id.x == 0u) { lse[row] = m.${row} + log_f32(l.${row}); }
${w.eachResult((c) => `    out[row * ${quads}u + quad] = ${pack(`o${r}_${c} / l.${row}`)};`)}
}`)
      }`,
    };
  },
};

/** dQ, and delta = dOut . out, which dK needs. */
export const attentionTilesBackwardQ: Kernel<AttentionTilesConstants> = {
  name: "attention_tiles_backward_q",
  doc: DOCS.backwardQ,
  build(constants) {
    const w = writer(constants);
    const { quads, chunks, load, pack, eachRow, eachColumn } = w;
    const [own, other] = [operands(quads, "first_row"), operands(quads, "first_key")];
    return {
      bindings: attentionBindings(constants.storage, input(quadType(constants.storage))).backwardQ,
      params: { ...PARAMS, accumulate: "u32" },
      ...w.source,
      declarations: `${w.source.declarations}
var<workgroup> row_delta: array<f32, ${TILE_ROWS}>;`,
      body: wgsl`
${queryRows(w)}
if (lane < ${TILE_ROWS}u) {
  let at = (min(first_row + lane, p.tokens - 1u) * p.heads + h) * ${quads}u;
  var sum = 0.0;
  for (var d = 0u; d < ${quads}u; d++) { sum += dot(${load("d_out[at + d]")}, ${load("out[at + d]")}); }
  row_delta[lane] = sum;
  if (first_row + lane < p.tokens) { delta[(first_row + lane) * p.heads + h] = sum; }
}
workgroupBarrier();
let delta_rows = vec4f(${
        [0, 1, 2, 3].map((r) => `row_delta[local_id.y * ${ROWS.length}u + ${r}u]`).join(", ")
      });
let lse_rows = vec4f(${[0, 1, 2, 3].map((r) => `lse[i${r} * p.heads + h]`).join(", ")});
${results({ chunks }, "dq")}
${
        keyLoop(`
${visible(w)}
${w.product("s", own.q, other.k)}
${w.product("d_prob", own.dOut, other.v)}
${
          eachColumn((n) => `
let prob${n} = select(vec4f(), exp(min(s${n} * p.scale - lse_rows, vec4f())), visible${n});
${w.keep(n, `prob${n} * (d_prob${n} - delta_rows)`)}`)
        }
workgroupBarrier();
${w.apply("dq", other.k)}`)
      }
${
        eachRow((_, r) => `
if (own${r} < p.tokens) {
${
          w.eachResult((c) => `
    let at = own${r} * row_quads + h * ${quads}u + quad;
    dq${r}_${c} *= p.scale;
    if (p.accumulate != 0u) { dq${r}_${c} += ${load("d_qkv[at]")}; }
    d_qkv[at] = ${pack(`dq${r}_${c}`)};`)
        }
}`)
      }`,
    };
  },
};

/** dK and dV: over all query rows and heads that read a key row, in a fixed order. */
export const attentionTilesBackwardKv: Kernel<AttentionTilesConstants> = {
  name: "attention_tiles_backward_kv",
  doc: DOCS.backwardKv,
  build(constants) {
    const w = writer(constants);
    const { quads, chunks, load, pack, eachRow, eachColumn, column } = w;
    const [own, other] = [operands(quads, "first_row"), operands(quads, "first_query")];
    const readBy = (r: number, n: number) => `(i${n} >= j${r}) && (i${n} < readers_end${r})`;
    return {
      bindings: attentionBindings(constants.storage, input(quadType(constants.storage))).backwardKv,
      params: { ...PARAMS, accumulate: "u32" },
      ...w.source,
      body: wgsl`
${w.first}
let g = workgroup_id.y;
let group = p.heads / p.kv_heads;
${headLayout(quads)}
${
        eachRow((_, r) => `
let j${r} = min(own${r}, p.tokens - 1u);
let readers_end${r} = bounds[j${r}].w;`)
      }
var end = 0u;
for (var j = first_row; j <= last_row; j++) { end = max(end, bounds[j].w); }
${results({ chunks }, "dk")}
${results({ chunks }, "dv")}
for (var h = g * group; h < (g + 1u) * group; h++) {
for (var first_query = first_row; first_query < end; first_query += ${TILE_ROWS}u) {
${w.product("s", own.k, other.q)}
${w.product("d_prob", own.v, other.dOut)}
${
        eachColumn((n) => `
let i${n} = first_query + ${column(n)};
let row${n} = min(i${n}, p.tokens - 1u) * p.heads + h;
let read_by${n} = vec4<bool>(${[0, 1, 2, 3].map((r) => readBy(r, n)).join(", ")});
let prob${n} = select(vec4f(), exp(min(s${n} * p.scale - vec4f(lse[row${n}]), vec4f())), read_by${n});
let d_s${n} = prob${n} * (d_prob${n} - vec4f(delta[row${n}]));
${w.keep(n, `prob${n}`)}`)
      }
workgroupBarrier();
${w.apply("dv", other.dOut)}
${eachColumn((n) => w.keep(n, `d_s${n}`))}
workgroupBarrier();
${w.apply("dk", other.q)}
}
}
${
        eachRow((_, r) => `
if (own${r} < p.tokens) {
${
          w.eachResult((c) => `
    let at_k = own${r} * row_quads + k_first + quad;
    let at_v = own${r} * row_quads + v_first + quad;
    dk${r}_${c} *= p.scale;
    if (p.accumulate != 0u) { dk${r}_${c} += ${load("d_qkv[at_k]")}; dv${r}_${c} += ${load("d_qkv[at_v]")}; }
    d_qkv[at_k] = ${pack(`dk${r}_${c}`)};
    d_qkv[at_v] = ${pack(`dv${r}_${c}`)};`)
        }
}`)
      }`,
    };
  },
};

/** The three of them. */
export const ATTENTION_TILES: AttentionKernels<AttentionTilesConstants> = {
  forward: attentionTilesForward,
  backwardQ: attentionTilesBackwardQ,
  backwardKv: attentionTilesBackwardKv,
};
