/**
 * The fused language-model head: log-probability of each row's label without the logits ever being in memory.
 * A tile of logits lives in registers; an online softmax (arXiv 1805.02867) walks the vocabulary.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP, LOG_F32, MASKED } from "./lib.ts";
import { packQuad, quadType, type Storage } from "./storage.ts";
import {
  combineStatistics,
  declareStatistics,
  joinStatistics,
  STATISTICS,
  STATISTICS_PARTIAL_SIZE,
  updateStatistics,
  writeStatistics,
} from "./token_statistics.ts";
import {
  columnOf,
  operandBinding,
  type OperandStorage,
  rowOf,
  type Tile,
  tileCols,
  tileDeclarations,
  tileProduct,
  tileRows,
  tileWorkgroupBytes,
} from "./tile.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** What the head's pipelines are specialised on. */
export interface TokenLogpsConstants {
  readonly tile: Tile;
  /** C divides by four: vec4 loads. */
  readonly vector: boolean;
  /** How hidden states (a) and the head (b) lie in memory; both f32 unless `vector`. */
  readonly storage: OperandStorage;
}

/** What the forward's pipelines are specialised on besides. */
export interface TokenLogpsForwardConstants extends TokenLogpsConstants {
  /** Whether the logits' statistics are taken along: see `token_statistics.ts`. */
  readonly statistics?: boolean;
}

/** The binding of an operand. */
function operand({ tile, vector }: TokenLogpsConstants, stored: Storage) {
  return operandBinding(tile, vector ? quadType(stored) : "f32");
}

const PRODUCT = { kind: "NT", a: "hidden", b: "weight", m: "p.rows", n: "p.vocab", k: "p.columns" } as const;

/** Floats that every row and chunk has in the partial results: running maximum, sum of exponentials, the label's logit. */
const PARTIAL_SIZE = 3;

/** Floats per row and chunk in the partial results; those of the statistics follow the others. */
export function partialSize(statistics: boolean): number {
  return PARTIAL_SIZE + (statistics ? STATISTICS_PARTIAL_SIZE : 0);
}

/** One chunk of vocabulary for a tile of rows: its maximum, sum of exponentials and label's logit. */
export const tokenLogpsPartial: Kernel<TokenLogpsForwardConstants> = {
  name: "token_logps_partial",
  doc:
    `For each row r and chunk of the vocabulary: m = max over the chunk's v of z[v], z[v] = hidden[r] . weight[v];
    s = sum over v of exp(z[v] - m); t = z[label] if the label lies in the chunk, else 0. z stays in registers.
    hidden [R, C]; weight [vocab, C], ids first_id.. of the vocabulary (a row shard); labels [R];
    partial [R, chunks, 3]. Grid: (this shard's chunks, row tiles).
    With statistics also A = sum of exp(z - m) (z - m), B = sum of exp(2 (z - m)), the sum of z, and whether the label is
    the lowest id of the largest logit: partial [R, chunks, 7].`,
  build(constants) {
    const { tile, storage, statistics = false } = constants;
    const product = { ...PRODUCT, ...constants };
    const cells = tileRows(tile) * tile.lanesX;
    return {
      bindings: {
        hidden: operand(constants, storage.a),
        weight: operand(constants, storage.b),
        labels: input("u32"),
        partial: output("f32"),
      },
      params: {
        rows: "u32",
        vocab: "u32",
        columns: "u32",
        chunk: "u32",
        chunks: "u32",
        first_chunk: "u32",
        first_id: "u32",
      },
      workgroupSize: [tile.lanesX, tile.lanesY],
      workgroupBytes: tileWorkgroupBytes(tile) + cells * PARTIAL_SIZE * 4,
      declarations: wgsl`${tileDeclarations(product)}
var<workgroup> lane_m: array<f32, ${cells}>;
var<workgroup> lane_s: array<f32, ${cells}>;
var<workgroup> lane_t: array<f32, ${cells}>;`,
      body: wgsl`
let m0 = workgroup_id.y * ${tileRows(tile)}u;
${
        unroll(tile.rows, (i) => `
var top${i} = ${MASKED};
var sum${i} = 0.0;
var own${i} = 0.0;
let label${i} = labels[min(${rowOf(tile, i)}, p.rows - 1u)] - p.first_id;${
          statistics ? declareStatistics(i) : ""
        }`)
      }
let chunk_first = workgroup_id.x * p.chunk;
let chunk_end = min(chunk_first + p.chunk, p.vocab);
for (var n0 = chunk_first; n0 < chunk_end; n0 += ${tileCols(tile)}u) {
${tileProduct(product)}
${
        unroll(tile.cols / 4, (j) => `
let id${j} = ${columnOf(tile, j)} + vec4u(0u, 1u, 2u, 3u);
let inside${j} = id${j} < vec4u(chunk_end);`)
      }
${unroll(tile.rows, (i) => updateRow(tile, i, statistics))}
}
${
        unroll(tile.rows, (i) => `
lane_m[${cellOf(tile, i)}] = top${i};
lane_s[${cellOf(tile, i)}] = sum${i};
lane_t[${cellOf(tile, i)}] = own${i};`)
      }
workgroupBarrier();
for (var r = local_id.y * ${tile.lanesX}u + local_id.x; r < ${tileRows(tile)}u; r += ${
        tile.lanesX * tile.lanesY
      }u) {
  var m = ${MASKED};
  for (var x = 0u; x < ${tile.lanesX}u; x++) { m = max(m, lane_m[r * ${tile.lanesX}u + x]); }
  var s = 0.0;
  var t = 0.0;
  for (var x = 0u; x < ${tile.lanesX}u; x++) {
    let cell = r * ${tile.lanesX}u + x;
    s += lane_s[cell] * exp(lane_m[cell] - m);
    t += lane_t[cell];
  }
  if (m0 + r < p.rows) {
    let at = ((m0 + r) * p.chunks + p.first_chunk + workgroup_id.x) * ${partialSize(statistics)}u;
    partial[at] = m;
    partial[at + 1u] = s;
    partial[at + 2u] = t;
  }
}
${statistics ? joinStatistics(tile, { cell: (i) => cellOf(tile, i), first: PARTIAL_SIZE }) : ""}`,
    };
  },
};

/** Where lane x's state of register row i lies in workgroup memory. */
function cellOf(tile: Tile, i: number): string {
  return `(local_id.y * ${tile.rows}u + ${i}u) * ${tile.lanesX}u + local_id.x`;
}

/** Folds row i's freshly computed logits into its running maximum, sum and label logit. */
function updateRow(tile: Tile, i: number, statistics: boolean): string {
  const quads = Array.from({ length: tile.cols / 4 }, (_, j) => j);
  const maximum = quads.map((j) => `z${j}`).reduce((all, z) => `max(${all}, ${z})`);
  return wgsl`{
${unroll(quads.length, (j) => `let z${j} = select(vec4f(${MASKED}), c${i}_${j}, inside${j});`)}
let z_max = ${maximum};
let m_new = max(top${i}, max(max(z_max.x, z_max.y), max(z_max.z, z_max.w)));
${statistics ? updateStatistics(i, quads.length) : ""}
var e = vec4f();
${unroll(quads.length, (j) => `e += select(vec4f(0.0), exp(z${j} - m_new), inside${j});`)}
sum${i} = sum${i} * exp(top${i} - m_new) + ((e.x + e.y) + (e.z + e.w));
top${i} = m_new;
var hit = vec4f();
${unroll(quads.length, (j) => `hit += select(vec4f(0.0), z${j}, inside${j} & (id${j} == vec4u(label${i})));`)}
own${i} += (hit.x + hit.y) + (hit.z + hit.w);
}`;
}

/** Invocations per workgroup of {@link tokenLogpsCombine}. */
export const COMBINE_WORKGROUP = 64;

/** Joins the chunks: logp = t - (m + log s). */
export const tokenLogpsCombine: Kernel<{ statistics: boolean }> = {
  name: "token_logps_combine",
  doc: `lse[r] = log sum over v of exp(z[r, v]) from the chunks' (m, s); logps[r] = z[r, label] - lse[r].
    partial [R, chunks, 3]; lse, logps [R]; lse is saved. An invocation owns a row.
    With statistics partial is [R, chunks, 7], and statistics [R, 4] = entropy, mean logit, whether the label is the
    likeliest id, log of the sum of squared probabilities.`,
  build: ({ statistics }) => ({
    bindings: {
      partial: input("f32"),
      lse: output("f32"),
      logps: output("f32"),
      ...(statistics ? { statistics: output("f32") } : {}),
    },
    params: { rows: "u32", chunks: "u32", ...(statistics ? { vocab: "u32" } as const : {}) },
    workgroupSize: [COMBINE_WORKGROUP, 1],
    declarations: LOG_F32,
    body: wgsl`
let r = (${LINEAR_WORKGROUP}) * ${COMBINE_WORKGROUP}u + local_id.x;
if (r >= p.rows) { return; }
let base = r * p.chunks * ${partialSize(statistics)}u;
var m = ${MASKED};
for (var chunk = 0u; chunk < p.chunks; chunk++) { m = max(m, partial[base + chunk * ${
      partialSize(statistics)
    }u]); }
var s = 0.0;
var t = 0.0;
${statistics ? STATISTICS : ""}
for (var chunk = 0u; chunk < p.chunks; chunk++) {
  let at = base + chunk * ${partialSize(statistics)}u;
  s += partial[at + 1u] * exp(partial[at] - m);
  t += partial[at + 2u];
  ${statistics ? combineStatistics(PARTIAL_SIZE) : ""}
}
// t - m first: both may be large, their difference is what matters.
lse[r] = m + log_f32(s);
logps[r] = (t - m) - log_f32(s);
${statistics ? writeStatistics() : ""}`,
  }),
};

/** Recomputes a slab of logits and turns it into its gradient. */
export const tokenLogpsBackward: Kernel<TokenLogpsConstants> = {
  name: "token_logps_backward",
  doc:
    `logp = z[label] - lse: d_logits[r, v] = d_logps[r] (1[v = label] - exp(z[r, v] - lse[r])), z recomputed.
    hidden [R, C]; weight [vocab, C], a slab whose first row is id first_id; labels, lse, d_logps [R];
    d_logits [R, vocab], one slab, stored as hidden is. Grid: (column tiles, row tiles).`,
  build(constants) {
    const { tile, storage } = constants;
    const product = { ...PRODUCT, ...constants };
    const isNarrow = storage.a !== "f32";
    return {
      bindings: {
        hidden: operand(constants, storage.a),
        weight: operand(constants, storage.b),
        labels: input("u32"),
        lse: input("f32"),
        d_logps: input("f32"),
        d_logits: output(isNarrow ? quadType(storage.a) : "f32"),
      },
      params: { rows: "u32", vocab: "u32", columns: "u32", first_id: "u32" },
      workgroupSize: [tile.lanesX, tile.lanesY],
      workgroupBytes: tileWorkgroupBytes(tile),
      declarations: wgsl`${tileDeclarations(product)}
fn store(row: u32, column: u32, logits: vec4f) {
  if (row >= p.rows) { return; }
  let probabilities = exp(min(logits - lse[row], vec4f(0.0)));
  let ids = column + vec4u(0u, 1u, 2u, 3u);
  let is_label = select(vec4f(0.0), vec4f(1.0), ids == vec4u(labels[row] - p.first_id));
  let d = d_logps[row] * (is_label - probabilities);
  let at = row * p.vocab + column;
#if ${isNarrow}
  if (column < p.vocab) { d_logits[at / 4u] = ${isNarrow ? packQuad(storage.a, "d") : "d"}; }
#else
  if (column < p.vocab) { d_logits[at] = d.x; }
  if (column + 1u < p.vocab) { d_logits[at + 1u] = d.y; }
  if (column + 2u < p.vocab) { d_logits[at + 2u] = d.z; }
  if (column + 3u < p.vocab) { d_logits[at + 3u] = d.w; }
#endif
}`,
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
