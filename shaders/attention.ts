/**
 * Causal grouped-query attention over packed sequences with an online softmax (arXiv 1805.02867, 2205.14135): no
 * [T, T] matrix exists. Each invocation owns one query row (forward, dQ) or one key row (dK, dV); the lanes of a
 * workgroup walk the other rows together, so those loads are uniform.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LOG_F32 } from "./lib.ts";
import { unroll, wgsl } from "./wgsl.ts";

/** What an attention pipeline is specialised on. */
export interface AttentionConstants {
  /** D, a multiple of four; rows live in D / 4 registers. */
  readonly headDim: number;
  /** Query (or key) rows per workgroup. */
  readonly lanes: number;
}

const PARAMS = { tokens: "u32", heads: "u32", kv_heads: "u32", scale: "f32" } as const;

/** Finite stand-in for minus infinity: differences of infinities fold to nonsense. */
const MASKED = "-1e30";

/** Keys handled between two rescalings of the running sums. */
const KEYS_PER_STEP = 4;

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

/** The rows of a workgroup; the last tile may overhang, so loads clamp a row and stores test it. */
function rowTile(lanes: number): string {
  return `let first_row = workgroup_id.x * ${lanes}u;
let last_row = min(first_row + ${lanes - 1}u, p.tokens - 1u);`;
}

/** The query row i and head h of an invocation, the kv head g that h reads, and where i's sequence starts. */
function queryRow(lanes: number): string {
  return `${rowTile(lanes)}
let i = min(first_row + local_id.x, p.tokens - 1u);
let h = workgroup_id.y;
let g = h * p.kv_heads / p.heads;
let start = starts[i];`;
}

const SUM4 = "fn sum4(v: vec4f) -> f32 { return (v.x + v.y) + (v.z + v.w); }\n";

/** out = softmax(q k^T scale) v. */
export const attentionForward: Kernel<AttentionConstants> = {
  name: "attention_forward",
  doc:
    `out[i, h] = sum over j of softmax_j(q[i, h] . k[j, g] scale) v[j, g], j from the sequence's start to i,
    g = h K / H. lse[i, h] = log sum over j of exp(q . k scale), saved.
    q, out [N, H * D]; k, v [N, K * D]; starts [N]: first token of i's sequence. Grid: (row tiles, H).`,
  build({ headDim, lanes }) {
    const quads = headDim / 4;
    return {
      bindings: {
        q: input("vec4f"),
        k: input("vec4f"),
        v: input("vec4f"),
        starts: input("u32"),
        lse: output("f32"),
        out: output("vec4f"),
      },
      params: PARAMS,
      workgroupSize: [lanes, 1],
      declarations: SUM4 + LOG_F32,
      body: wgsl`
${queryRow(lanes)}
let q_base = (i * p.heads + h) * ${quads}u;
${unroll(quads, (d) => `let q${d} = q[q_base + ${d}u] * p.scale; var o${d} = vec4f();`)}
var m = ${MASKED};
var l = 0.0;
for (var j0 = starts[first_row]; j0 <= last_row; j0 += ${KEYS_PER_STEP}u) {
${
        unroll(KEYS_PER_STEP, (n) => `
  let j${n} = min(j0 + ${n}u, last_row);
  let kv${n} = (j${n} * p.kv_heads + g) * ${quads}u;
  let seen${n} = j0 + ${n}u <= i && j0 + ${n}u >= start;
  let s${n} = select(${MASKED}, ${dotProduct(quads, (d) => `q${d}`, (d) => `k[kv${n} + ${d}u]`)}, seen${n});`)
      }
  let m_new = max(m, max(max(s0, s1), max(s2, s3)));
  let rescale = exp(m - m_new);
${unroll(KEYS_PER_STEP, (n) => `  let e${n} = select(0.0, exp(s${n} - m_new), seen${n});`)}
  l = l * rescale + ((e0 + e1) + (e2 + e3));
  m = m_new;
${
        unroll(quads, (d) =>
          `  o${d} = o${d} * rescale + ((e0 * v[kv0 + ${d}u] + e1 * v[kv1 + ${d}u]) + (e2 * v[kv2 + ${d}u] + e3 * v[kv3 + ${d}u]));`)
      }
}
if (first_row + local_id.x >= p.tokens) { return; }
lse[i * p.heads + h] = m + log_f32(l);
${unroll(quads, (d) => `out[q_base + ${d}u] = o${d} / l;`)}`,
    };
  },
};

/** dQ, and delta = dOut . out, which dK needs. */
export const attentionBackwardQ: Kernel<AttentionConstants> = {
  name: "attention_backward_q",
  doc: `out = softmax(s) v, s = q . k scale: with prob = exp(s - lse), delta[i, h] = d_out[i, h] . out[i, h],
    d_s = prob (d_out[i] . v[j] - delta[i]), d_q[i, h] (+)= scale sum over j of d_s k[j, g]. delta [N, H] is saved for dK.
    Shapes and grid as the forward's.`,
  build({ headDim, lanes }) {
    const quads = headDim / 4;
    return {
      bindings: {
        q: input("vec4f"),
        k: input("vec4f"),
        v: input("vec4f"),
        starts: input("u32"),
        lse: input("f32"),
        out: input("vec4f"),
        d_out: input("vec4f"),
        delta: output("f32"),
        d_q: output("vec4f"),
      },
      params: { ...PARAMS, accumulate: "u32" },
      workgroupSize: [lanes, 1],
      declarations: SUM4,
      body: wgsl`
${queryRow(lanes)}
let row = i * p.heads + h;
let q_base = row * ${quads}u;
${
        unroll(quads, (d) =>
          `let q${d} = q[q_base + ${d}u] * p.scale; let do${d} = d_out[q_base + ${d}u]; var dq${d} = vec4f();`)
      }
let row_delta = ${dotProduct(quads, (d) => `do${d}`, (d) => `out[q_base + ${d}u]`)};
let row_lse = lse[row];
for (var j = starts[first_row]; j <= last_row; j++) {
  let kv = (j * p.kv_heads + g) * ${quads}u;
${unroll(quads, (d) => `  let k${d} = k[kv + ${d}u];`)}
  let s = ${dotProduct(quads, (d) => `q${d}`, (d) => `k${d}`)};
  let d_prob = ${dotProduct(quads, (d) => `do${d}`, (d) => `v[kv + ${d}u]`)};
  let prob = select(0.0, exp(min(s - row_lse, 0.0)), j <= i && j >= start);
  let d_s = prob * (d_prob - row_delta);
${unroll(quads, (d) => `  dq${d} += d_s * k${d};`)}
}
if (first_row + local_id.x >= p.tokens) { return; }
delta[row] = row_delta;
${
        unroll(quads, (d) => `
var out${d} = dq${d} * p.scale;
if (p.accumulate != 0u) { out${d} += d_q[q_base + ${d}u]; }
d_q[q_base + ${d}u] = out${d};`)
      }`,
    };
  },
};

/** dK and dV: one key row an invocation, over all query rows and heads that read it. */
export const attentionBackwardKv: Kernel<AttentionConstants> = {
  name: "attention_backward_kv",
  doc: `With prob and d_s as in attention_backward_q: d_k[j, g] (+)= scale sum over i, h of d_s q[i, h];
    d_v[j, g] (+)= sum over i, h of prob d_out[i, h]; h over the group of g, i from j to the end of the sequence.
    ends [N]: one past the last token of j's sequence. Grid: (row tiles, K). The sum's order is fixed.`,
  build({ headDim, lanes }) {
    const quads = headDim / 4;
    return {
      bindings: {
        q: input("vec4f"),
        k: input("vec4f"),
        v: input("vec4f"),
        ends: input("u32"),
        lse: input("f32"),
        delta: input("f32"),
        d_out: input("vec4f"),
        d_k: output("vec4f"),
        d_v: output("vec4f"),
      },
      params: { ...PARAMS, accumulate_k: "u32", accumulate_v: "u32" },
      workgroupSize: [lanes, 1],
      declarations: SUM4,
      body: wgsl`
${rowTile(lanes)}
let j = min(first_row + local_id.x, p.tokens - 1u);
let g = workgroup_id.y;
let group = p.heads / p.kv_heads;
let end = ends[j];
let kv = (j * p.kv_heads + g) * ${quads}u;
${
        unroll(quads, (d) =>
          `let k${d} = k[kv + ${d}u] * p.scale; let v${d} = v[kv + ${d}u]; var dk${d} = vec4f(); var dv${d} = vec4f();`)
      }
for (var h = g * group; h < (g + 1u) * group; h++) {
  for (var i = first_row; i < ends[last_row]; i++) {
    let row = i * p.heads + h;
    let q_base = row * ${quads}u;
${unroll(quads, (d) => `    let q${d} = q[q_base + ${d}u]; let do${d} = d_out[q_base + ${d}u];`)}
    let s = ${dotProduct(quads, (d) => `q${d}`, (d) => `k${d}`)};
    let prob = select(0.0, exp(min(s - lse[row], 0.0)), i >= j && i < end);
    let d_s = prob * (${dotProduct(quads, (d) => `do${d}`, (d) => `v${d}`)} - delta[row]);
${unroll(quads, (d) => `    dk${d} += d_s * q${d}; dv${d} += prob * do${d};`)}
  }
}
if (first_row + local_id.x >= p.tokens) { return; }
${
        unroll(quads, (d) => `
var out_k${d} = dk${d} * p.scale;
var out_v${d} = dv${d};
if (p.accumulate_k != 0u) { out_k${d} += d_k[kv + ${d}u]; }
if (p.accumulate_v != 0u) { out_v${d} += d_v[kv + ${d}u]; }
d_k[kv + ${d}u] = out_k${d};
d_v[kv + ${d}u] = out_v${d};`)
      }`,
    };
  },
};
