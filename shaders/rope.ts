/**
 * Rotary position embedding (arXiv 2104.09864) in Hugging Face's rotate-half order.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP, vectorType, type VectorWidth } from "./lib.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup. */
export const ROPE_WORKGROUP = 64;

/** Rotates each head's (i, i + D/2) pairs by position times frequency i; the gradient rotates back. */
export const ropeForward: Kernel<{ width: VectorWidth }> = {
  name: "rope",
  doc: `For each head, i < D/2, with (cos, sin) at [position, i]:
    y[i] (+)= x[i] cos - x[i + D/2] sin s; y[i + D/2] (+)= x[i + D/2] cos + x[i] sin s; s = 1 forward, -1 backward.
    x, y [N, H * D]; positions [N]; table [P, D]: cosines, then sines. An invocation owns a pair. Nothing is saved.`,
  build({ width }) {
    const type = vectorType(width);
    return {
      bindings: { x: input(type), positions: input("u32"), table: input(type), y: output(type) },
      params: { pairs: "u32", heads: "u32", half: "u32", sign: "f32", accumulate: "u32" },
      workgroupSize: [ROPE_WORKGROUP, 1],
      body: wgsl`
let pair = (${LINEAR_WORKGROUP}) * ${ROPE_WORKGROUP}u + local_id.x;
if (pair >= p.pairs) { return; }
let half = p.half / ${width}u;
let i = pair % half;
let head = pair / half;
let first = head * 2u * half + i;
let angle = positions[head / p.heads] * 2u * half + i;
let cosine = table[angle];
let sine = table[angle + half] * p.sign;
let a = x[first];
let b = x[first + half];
var low = a * cosine - b * sine;
var high = b * cosine + a * sine;
if (p.accumulate != 0u) { low += y[first]; high += y[first + half]; }
y[first] = low;
y[first + half] = high;`,
    };
  },
};
