/**
 * Attention in rows, for CPU adapters: see `attention.ts` for the maths. An invocation owns `rows` query rows
 * (forward, dQ) or key rows (dK, dV) in registers; the lanes of a workgroup walk the other side together, a tile of a
 * few rows at a time. There a load costs more than tens of multiply-adds, so with `broadcast` each lane loads another
 * row of the tile and all lanes read it from that lane's registers.
 * @module
 */
import {
  attentionBindings,
  type AttentionKernels,
  type AttentionShape,
  DOCS,
  headLayout,
  MASKED,
  PARAMS,
  SUM4,
} from "./attention.ts";
import type { Kernel } from "./kernel.ts";
import { LOG_F32 } from "./lib.ts";
import { loadQuad, packQuad, storageFunctions } from "./storage.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** What a row kernel's pipelines are specialised on. */
export interface AttentionRowsConstants extends AttentionShape {
  /** Invocations per workgroup, and rows of the other side in a tile. */
  readonly lanes: number;
  /** Rows an invocation owns. */
  readonly rows: number;
  /** Whether the lanes share their loads by `subgroupBroadcast`: they must be of one subgroup. */
  readonly broadcast: boolean;
}

/** Rows of a workgroup. */
export function rowsPerWorkgroup({ lanes, rows }: { lanes: number; rows: number }): number {
  return lanes * rows;
}

/** Sums of products in two chains, to shorten the dependency. */
function dotProduct(quads: number, left: (d: number) => string, right: (d: number) => string): string {
  const terms = (parity: number) =>
    Array.from({ length: quads }, (_, d) => d).filter((d) => d % 2 === parity).map((d) =>
      `${left(d)} * ${right(d)}`
    );
  const odd = terms(1);
  const sum = odd.length === 0 ? terms(0).join(" + ") : `(${terms(0).join(" + ")}) + (${odd.join(" + ")})`;
  return `sum4(${sum})`;
}

/** The text that writes a row kernel of these constants. */
function writer(constants: AttentionRowsConstants) {
  const { headDim, lanes, rows, storage, broadcast } = constants;
  const quads = headDim / 4;
  const load = (at: string) => loadQuad(storage, at);
  /** Rows of a tile of the other side: as many as lanes that load them, or a few that all lanes load. */
  const tile = broadcast ? lanes : 4;
  return {
    quads,
    tile,
    load,
    pack: (value: string) => packQuad(storage, value),
    /** For each row that the invocation owns. */
    eachRow: (fragment: (r: number) => string) => unroll(rows, fragment),
    eachQuad: (fragment: (d: number) => string) => unroll(quads, fragment),
    eachOther: (fragment: (n: number) => string) => unroll(tile, fragment),
    /** The tile's rows as `<name><n>`: `index` is what one row's is, `at` the expression of a row's first quad. */
    base: (name: string, at: (index: string) => string, index: (offset: string) => string) =>
      broadcast
        ? `let ${name} = ${at(index("local_id.x"))};`
        : unroll(tile, (n) => `let ${name}${n} = ${at(index(`${n}u`))};`),
    /** Loads that all of the tile's rows need beforehand; none without broadcast. */
    stage: (name: string, array: string, base: string) =>
      broadcast ? unroll(quads, (d) => `let ${name}_${d} = ${load(`${array}[${base} + ${d}u]`)};`) : "",
    /** `<name><n>_<d>`: quad d of the tile's row n. */
    fetch: (name: string, array: string, base: string, n: number) =>
      unroll(
        quads,
        (d) =>
          `let ${name}${n}_${d} = ${
            broadcast ? `subgroupBroadcast(${name}_${d}, ${n}u)` : load(`${array}[${base}${n} + ${d}u]`)
          };`,
      ),
    /** A scalar of the tile's row n. */
    scalar: (name: string, array: string, base: string, n: number) =>
      broadcast ? `subgroupBroadcast(${name}_own, ${n}u)` : `${array}[${base}${n}]`,
    first: `let first_row = workgroup_id.x * ${lanes * rows}u;
let last_row = min(first_row + ${lanes * rows - 1}u, p.tokens - 1u);
${unroll(rows, (r) => `let own${r} = first_row + ${r * lanes}u + local_id.x;`)}`,
  };
}

/** Declares h, g, the query rows i<r>, and the range of keys that some row of the workgroup sees. */
function queryRows({ quads, first, eachRow }: ReturnType<typeof writer>): string {
  return `${first}
let h = workgroup_id.y;
let g = h * p.kv_heads / p.heads;
${headLayout(quads)}
${
    eachRow((r) => `
let i${r} = min(own${r}, p.tokens - 1u);
let seen${r} = bounds[i${r}];
let q_base${r} = i${r} * row_quads + h * ${quads}u;
let row${r} = i${r} * p.heads + h;
let out_base${r} = row${r} * ${quads}u;`)
  }
let first_seen = bounds[first_row];
let prefix_end = min(bounds[last_row].z, first_seen.x);`;
}

/** Walks the tiles of keys: those of the prefix that some row sees, then those from the first row's own start. */
function keyLoop({ tile }: ReturnType<typeof writer>, body: string): string {
  return `
var j0 = select(first_seen.x, first_seen.y, first_seen.y < prefix_end);
while (j0 <= last_row) {
${body}
  j0 += ${tile}u;
  if (j0 >= prefix_end) { j0 = max(j0, first_seen.x); }
}`;
}

const visible = (r: number, n: number) =>
  `((j0 + ${n}u >= seen${r}.x && j0 + ${n}u <= i${r}) || (j0 + ${n}u >= seen${r}.y && j0 + ${n}u < seen${r}.z))`;

const sumOf = (terms: readonly string[]): string =>
  terms.length === 1
    ? terms[0]
    : `(${sumOf(terms.slice(0, terms.length / 2))} + ${sumOf(terms.slice(terms.length / 2))})`;

const maxOf = (terms: readonly string[]): string =>
  terms.length === 1
    ? terms[0]
    : `max(${maxOf(terms.slice(0, terms.length / 2))}, ${maxOf(terms.slice(terms.length / 2))})`;

const range = (count: number, text: (index: number) => string) =>
  Array.from({ length: count }, (_, i) => text(i));

/** out = softmax(q k^T scale) v. */
export const attentionRowsForward: Kernel<AttentionRowsConstants> = {
  name: "attention_rows_forward",
  doc: DOCS.forward,
  build(constants) {
    const w = writer(constants);
    const { quads, tile, load, pack, eachRow, eachQuad, eachOther } = w;
    return {
      bindings: attentionBindings(constants.storage).forward,
      params: PARAMS,
      workgroupSize: [constants.lanes, 1],
      declarations: storageFunctions(constants.storage) + SUM4 + LOG_F32,
      body: wgsl`
${queryRows(w)}
${
        eachRow((r) => `
${eachQuad((d) => `let q${r}_${d} = ${load(`qkv[q_base${r} + ${d}u]`)} * p.scale; var o${r}_${d} = vec4f();`)}
var m${r} = ${MASKED};
var l${r} = 0.0;`)
      }
${
        keyLoop(
          w,
          `
${w.base("kv", (j) => `${j} * row_quads`, (offset) => `min(j0 + ${offset}, last_row)`)}
${w.stage("k", "qkv", "kv + k_first")}
${
            eachOther((n) => `
${w.fetch("k", "qkv", `k_first + kv`, n)}
${
              eachRow((r) =>
                `let s${r}_${n} = select(${MASKED}, ${
                  dotProduct(quads, (d) => `q${r}_${d}`, (d) => `k${n}_${d}`)
                }, ${visible(r, n)});`
              )
            }`)
          }
${
            eachRow((r) => `
let m_new${r} = max(m${r}, ${maxOf(range(tile, (n) => `s${r}_${n}`))});
let rescale${r} = exp(m${r} - m_new${r});
${eachOther((n) => `let e${r}_${n} = select(0.0, exp(s${r}_${n} - m_new${r}), ${visible(r, n)});`)}
l${r} = l${r} * rescale${r} + ${sumOf(range(tile, (n) => `e${r}_${n}`))};
m${r} = m_new${r};
${eachQuad((d) => `o${r}_${d} *= rescale${r};`)}`)
          }
${w.stage("v", "qkv", "kv + v_first")}
${
            eachOther((n) => `
${w.fetch("v", "qkv", `v_first + kv`, n)}
${eachRow((r) => eachQuad((d) => `o${r}_${d} += e${r}_${n} * v${n}_${d};`))}`)
          }`,
        )
      }
${
        eachRow((r) => `
if (own${r} < p.tokens) {
  lse[row${r}] = m${r} + log_f32(l${r});
${eachQuad((d) => `  out[out_base${r} + ${d}u] = ${pack(`o${r}_${d} / l${r}`)};`)}
}`)
      }`,
    };
  },
};

/** dQ, and delta = dOut . out, which dK needs. */
export const attentionRowsBackwardQ: Kernel<AttentionRowsConstants> = {
  name: "attention_rows_backward_q",
  doc: DOCS.backwardQ,
  build(constants) {
    const w = writer(constants);
    const { quads, load, pack, eachRow, eachQuad, eachOther } = w;
    return {
      bindings: attentionBindings(constants.storage).backwardQ,
      params: { ...PARAMS, accumulate: "u32" },
      workgroupSize: [constants.lanes, 1],
      declarations: storageFunctions(constants.storage) + SUM4,
      body: wgsl`
${queryRows(w)}
${
        eachRow((r) => `
${
          eachQuad((d) =>
            `let q${r}_${d} = ${load(`qkv[q_base${r} + ${d}u]`)} * p.scale;
let do${r}_${d} = ${load(`d_out[out_base${r} + ${d}u]`)}; var dq${r}_${d} = vec4f();`
          )
        }
let delta${r} = ${dotProduct(quads, (d) => `do${r}_${d}`, (d) => load(`out[out_base${r} + ${d}u]`))};
let lse${r} = lse[row${r}];`)
      }
${
        keyLoop(
          w,
          `
${w.base("kv", (j) => `${j} * row_quads`, (offset) => `min(j0 + ${offset}, last_row)`)}
${w.stage("k", "qkv", "kv + k_first")}
${w.stage("v", "qkv", "kv + v_first")}
${
            eachOther((n) => `
${w.fetch("k", "qkv", `k_first + kv`, n)}
${w.fetch("v", "qkv", `v_first + kv`, n)}
${
              eachRow((r) => `
let s${r}_${n} = ${dotProduct(quads, (d) => `q${r}_${d}`, (d) => `k${n}_${d}`)};
let d_prob${r}_${n} = ${dotProduct(quads, (d) => `do${r}_${d}`, (d) => `v${n}_${d}`)};
let prob${r}_${n} = select(0.0, exp(min(s${r}_${n} - lse${r}, 0.0)), ${visible(r, n)});
let d_s${r}_${n} = prob${r}_${n} * (d_prob${r}_${n} - delta${r});
${eachQuad((d) => `dq${r}_${d} += d_s${r}_${n} * k${n}_${d};`)}`)
            }`)
          }`,
        )
      }
${
        eachRow((r) => `
if (own${r} < p.tokens) {
  delta[row${r}] = delta${r};
${
          eachQuad((d) => `
  dq${r}_${d} *= p.scale;
  if (p.accumulate != 0u) { dq${r}_${d} += ${load(`d_qkv[q_base${r} + ${d}u]`)}; }
  d_qkv[q_base${r} + ${d}u] = ${pack(`dq${r}_${d}`)};`)
        }
}`)
      }`,
    };
  },
};

/** dK and dV: over all query rows and heads that read a key row, in a fixed order. */
export const attentionRowsBackwardKv: Kernel<AttentionRowsConstants> = {
  name: "attention_rows_backward_kv",
  doc: DOCS.backwardKv,
  build(constants) {
    const w = writer(constants);
    const { quads, tile, load, pack, eachRow, eachQuad, eachOther } = w;
    return {
      bindings: attentionBindings(constants.storage).backwardKv,
      params: { ...PARAMS, accumulate: "u32" },
      workgroupSize: [constants.lanes, 1],
      declarations: storageFunctions(constants.storage) + SUM4,
      body: wgsl`
${w.first}
let g = workgroup_id.y;
let group = p.heads / p.kv_heads;
${headLayout(quads)}
${
        eachRow((r) => `
let j${r} = min(own${r}, p.tokens - 1u);
let readers_end${r} = bounds[j${r}].w;
let kv${r} = j${r} * row_quads;
${
          eachQuad((d) => `
let k${r}_${d} = ${load(`qkv[kv${r} + k_first + ${d}u]`)} * p.scale;
let v${r}_${d} = ${load(`qkv[kv${r} + v_first + ${d}u]`)};
var dk${r}_${d} = vec4f(); var dv${r}_${d} = vec4f();`)
        }`)
      }
var end = 0u;
for (var j = first_row; j <= last_row; j++) { end = max(end, bounds[j].w); }
for (var h = g * group; h < (g + 1u) * group; h++) {
  for (var i0 = first_row; i0 < end; i0 += ${tile}u) {
${w.base("query", (i) => i, (offset) => `min(i0 + ${offset}, p.tokens - 1u)`)}
${
        constants.broadcast
          ? `let row = query * p.heads + h; let q_base = query * row_quads + h * ${quads}u; let out_base = row * ${quads}u;
let lse_own = lse[row]; let delta_own = delta[row];`
          : eachOther((n) =>
            `let row${n} = query${n} * p.heads + h; let q_base${n} = query${n} * row_quads + h * ${quads}u;
let out_base${n} = row${n} * ${quads}u;`
          )
      }
${w.stage("q", "qkv", "q_base")}
${w.stage("do", "d_out", "out_base")}
${
        eachOther((n) => `
${w.fetch("q", "qkv", "q_base", n)}
${w.fetch("do", "d_out", "out_base", n)}
let lse${n} = ${w.scalar("lse", "lse", "row", n)};
let delta${n} = ${w.scalar("delta", "delta", "row", n)};
${
          eachRow((r) => `
let s${r}_${n} = ${dotProduct(quads, (d) => `q${n}_${d}`, (d) => `k${r}_${d}`)};
let prob${r}_${n} = select(0.0, exp(min(s${r}_${n} - lse${n}, 0.0)), i0 + ${n}u >= j${r} && i0 + ${n}u < readers_end${r});
let d_s${r}_${n} = prob${r}_${n} * (${
            dotProduct(quads, (d) => `do${n}_${d}`, (d) => `v${r}_${d}`)
          } - delta${n});
${eachQuad((d) => `dk${r}_${d} += d_s${r}_${n} * q${n}_${d}; dv${r}_${d} += prob${r}_${n} * do${n}_${d};`)}`)
        }`)
      }
  }
}
${
        eachRow((r) => `
if (own${r} < p.tokens) {
${
          eachQuad((d) => `
  dk${r}_${d} *= p.scale;
  if (p.accumulate != 0u) {
    dk${r}_${d} += ${load(`d_qkv[kv${r} + k_first + ${d}u]`)};
    dv${r}_${d} += ${load(`d_qkv[kv${r} + v_first + ${d}u]`)};
  }
  d_qkv[kv${r} + k_first + ${d}u] = ${pack(`dk${r}_${d}`)};
  d_qkv[kv${r} + v_first + ${d}u] = ${pack(`dv${r}_${d}`)};`)
        }
}`)
      }`,
    };
  },
};

/** The three of them. */
export const ATTENTION_ROWS: AttentionKernels<AttentionRowsConstants> = {
  forward: attentionRowsForward,
  backwardQ: attentionRowsBackwardQ,
  backwardKv: attentionRowsBackwardKv,
};
