/**
 * Attention in rows, for CPU adapters: see `attention.ts` for the maths. An invocation owns a few query rows (forward,
 * dQ) or key rows (dK, dV) in registers; the lanes of a workgroup walk the other side together, in tiles of as many rows
 * as lanes. A load costs more than tens of multiply-adds there, so each lane loads one row of the tile, through a
 * texture, and all lanes read it from that lane's registers.
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
  texelType,
} from "./attention.ts";
import { elementOf, type Kernel, texels } from "./kernel.ts";
import { LOG_F32 } from "./lib.ts";
import { loadQuad, packQuad, storageFunctions } from "./storage.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** What a row kernel's pipelines are specialised on. */
export interface AttentionRowsConstants extends AttentionShape {
  /** Rows an invocation owns. */
  readonly rows: number;
}

/** Invocations of a workgroup, which must be one subgroup; as many rows of the other side make a tile. */
export const ROW_LANES = 8;

/** Rows of a workgroup. */
export function rowsPerWorkgroup({ rows }: AttentionRowsConstants): number {
  return ROW_LANES * rows;
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
function writer({ headDim, rows, storage }: AttentionRowsConstants) {
  const quads = headDim / 4;
  const staged = texels(texelType(storage));
  return {
    quads,
    /** The quad at `index` of an input. */
    read: (array: string, index: string) => loadQuad(storage, elementOf(staged, array, index)),
    /** The quad at `index` of the gradient that is added to. */
    load: (stored: string) => loadQuad(storage, stored),
    pack: (value: string) => packQuad(storage, value),
    /** For each row that the invocation owns, each quad of it, each row of the tile of the other side. */
    eachRow: (fragment: (r: number) => string) => unroll(rows, fragment),
    eachQuad: (fragment: (d: number) => string) => unroll(quads, fragment),
    eachOther: (fragment: (n: number) => string) => unroll(ROW_LANES, fragment),
    /** `<name>_<d>`: the quads of this lane's row of the tile. */
    stage: (name: string, array: string, base: string) =>
      unroll(
        quads,
        (d) => `let ${name}_${d} = ${loadQuad(storage, elementOf(staged, array, `${base} + ${d}u`))};`,
      ),
    /** `<name><n>_<d>`: the quads of the tile's row n. */
    fetch: (name: string, n: number) =>
      unroll(quads, (d) => `let ${name}${n}_${d} = subgroupBroadcast(${name}_${d}, ${n}u);`),
    first: `let first_row = workgroup_id.x * ${ROW_LANES * rows}u;
let last_row = min(first_row + ${ROW_LANES * rows - 1}u, p.tokens - 1u);
${unroll(rows, (r) => `let own${r} = first_row + ${r * ROW_LANES}u + local_id.x;`)}`,
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
function keyLoop(body: string): string {
  return `
var j0 = select(first_seen.x, first_seen.y, first_seen.y < prefix_end);
while (j0 <= last_row) {
${body}
  j0 += ${ROW_LANES}u;
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
    const { quads, read, pack, eachRow, eachQuad, eachOther } = w;
    return {
      bindings: attentionBindings(constants.storage, texels(texelType(constants.storage))).forward,
      params: PARAMS,
      workgroupSize: [ROW_LANES, 1],
      declarations: storageFunctions(constants.storage) + SUM4 + LOG_F32,
      body: wgsl`
${queryRows(w)}
${
        eachRow((r) => `
${
          eachQuad((d) =>
            `let q${r}_${d} = ${read("qkv", `q_base${r} + ${d}u`)} * p.scale; var o${r}_${d} = vec4f();`
          )
        }
var m${r} = ${MASKED};
var l${r} = 0.0;`)
      }
${
        keyLoop(`
let kv = min(j0 + local_id.x, last_row) * row_quads;
${w.stage("k", "qkv", "kv + k_first")}
${
          eachOther((n) => `
${w.fetch("k", n)}
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
let m_new${r} = max(m${r}, ${maxOf(range(ROW_LANES, (n) => `s${r}_${n}`))});
let rescale${r} = exp(m${r} - m_new${r});
${eachOther((n) => `let e${r}_${n} = select(0.0, exp(s${r}_${n} - m_new${r}), ${visible(r, n)});`)}
l${r} = l${r} * rescale${r} + ${sumOf(range(ROW_LANES, (n) => `e${r}_${n}`))};
m${r} = m_new${r};
${eachQuad((d) => `o${r}_${d} *= rescale${r};`)}`)
        }
${w.stage("v", "qkv", "kv + v_first")}
${
          eachOther((n) => `
${w.fetch("v", n)}
${eachRow((r) => eachQuad((d) => `o${r}_${d} += e${r}_${n} * v${n}_${d};`))}`)
        }`)
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
    const { quads, read, load, pack, eachRow, eachQuad, eachOther } = w;
    return {
      bindings: attentionBindings(constants.storage, texels(texelType(constants.storage))).backwardQ,
      params: { ...PARAMS, accumulate: "u32" },
      workgroupSize: [ROW_LANES, 1],
      declarations: storageFunctions(constants.storage) + SUM4,
      body: wgsl`
${queryRows(w)}
${
        eachRow((r) => `
${
          eachQuad((d) =>
            `let q${r}_${d} = ${read("qkv", `q_base${r} + ${d}u`)} * p.scale;
let do${r}_${d} = ${read("d_out", `out_base${r} + ${d}u`)}; var dq${r}_${d} = vec4f();`
          )
        }
let delta${r} = ${dotProduct(quads, (d) => `do${r}_${d}`, (d) => read("out", `out_base${r} + ${d}u`))};
let lse${r} = lse[row${r}];`)
      }
${
        keyLoop(`
let kv = min(j0 + local_id.x, last_row) * row_quads;
${w.stage("k", "qkv", "kv + k_first")}
${w.stage("v", "qkv", "kv + v_first")}
${
          eachOther((n) => `
${w.fetch("k", n)}
${w.fetch("v", n)}
${
            eachRow((r) => `
let s${r}_${n} = ${dotProduct(quads, (d) => `q${r}_${d}`, (d) => `k${n}_${d}`)};
let d_prob${r}_${n} = ${dotProduct(quads, (d) => `do${r}_${d}`, (d) => `v${n}_${d}`)};
let prob${r}_${n} = select(0.0, exp(min(s${r}_${n} - lse${r}, 0.0)), ${visible(r, n)});
let d_s${r}_${n} = prob${r}_${n} * (d_prob${r}_${n} - delta${r});
${eachQuad((d) => `dq${r}_${d} += d_s${r}_${n} * k${n}_${d};`)}`)
          }`)
        }`)
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
    const { quads, read, load, pack, eachRow, eachQuad, eachOther } = w;
    return {
      bindings: attentionBindings(constants.storage, texels(texelType(constants.storage))).backwardKv,
      params: { ...PARAMS, accumulate: "u32" },
      workgroupSize: [ROW_LANES, 1],
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
let k${r}_${d} = ${read("qkv", `kv${r} + k_first + ${d}u`)} * p.scale;
let v${r}_${d} = ${read("qkv", `kv${r} + v_first + ${d}u`)};
var dk${r}_${d} = vec4f(); var dv${r}_${d} = vec4f();`)
        }`)
      }
let end = ${
        // The same for all lanes, and seen to be: what a lane takes from the others needs all of them in the loop.
        maxOf(range(ROW_LANES * constants.rows, (n) => `bounds[min(first_row + ${n}u, p.tokens - 1u)].w`))};
for (var h = g * group; h < (g + 1u) * group; h++) {
  for (var i0 = first_row; i0 < end; i0 += ${ROW_LANES}u) {
let query = min(i0 + local_id.x, p.tokens - 1u);
let row = query * p.heads + h;
let own_lse = lse[row];
let own_delta = delta[row];
${w.stage("q", "qkv", `query * row_quads + h * ${quads}u`)}
${w.stage("do", "d_out", `row * ${quads}u`)}
${
        eachOther((n) => `
${w.fetch("q", n)}
${w.fetch("do", n)}
let lse${n} = subgroupBroadcast(own_lse, ${n}u);
let delta${n} = subgroupBroadcast(own_delta, ${n}u);
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
