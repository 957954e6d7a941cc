/**
 * Rotary position embedding (arXiv 2104.09864) in Hugging Face's rotate-half order.
 * @module
 */
import { input, type Kernel } from "./kernel.ts";
import { LINEAR_WORKGROUP, vectorType } from "./lib.ts";
import { type OperandConstants, operands } from "./operand.ts";
import { storageFunctions } from "./storage.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup. */
export const ROPE_WORKGROUP = 64;

/** Rotates the pairs (i, i + D/2) of a row's first heads by position times frequency i, in place. */
export const ropeInPlace: Kernel<OperandConstants> = {
  name: "rope",
  doc: `For each of the first heads, i < D/2, with (cos, sin) at [position, i]:
    y[i] = x[i] cos - x[i + D/2] sin s; y[i + D/2] = x[i + D/2] cos + x[i] sin s; s = 1 forward, -1 backward.
    x [N, columns], rotated in place; positions [N]; table [P, D]: cosines, then sines. An invocation owns pair i of
    heads_each heads, so that what it reads of the table serves all of them. Nothing is saved.`,
  build({ width, storage, memory }) {
    const x = operands({ width, storage, memory });
    // Through a texture x is read from the copy that the texture is.
    const load = (index: string) => memory === "texels" ? x.load("before", index) : x.stored("x", index);
    return {
      bindings: {
        positions: input("u32"),
        table: input(vectorType(width)),
        ...(memory === "texels" ? { before: x.input } : {}),
        x: x.output,
      },
      params: {
        rows: "u32",
        columns: "u32",
        heads: "u32",
        heads_each: "u32",
        half: "u32",
        sign: "f32",
      },
      workgroupSize: [ROPE_WORKGROUP, 1],
      declarations: storageFunctions(storage),
      body: wgsl`
let index = (${LINEAR_WORKGROUP}) * ${ROPE_WORKGROUP}u + local_id.x;
let half = p.half / ${width}u;
let groups = (p.heads + p.heads_each - 1u) / p.heads_each;
let i = index % half;
let group = (index / half) % groups;
let row = index / half / groups;
if (row >= p.rows) { return; }
let angle = positions[row] * 2u * half + i;
let cosine = table[angle];
let sine = table[angle + half] * p.sign;
let first = row * (p.columns / ${width}u) + i;
for (var head = group * p.heads_each; head < min((group + 1u) * p.heads_each, p.heads); head++) {
  let low = first + head * 2u * half;
  let a = ${load("low")};
  let b = ${load("low + half")};
  ${x.store("x", "low", "a * cosine - b * sine")}
  ${x.store("x", "low + half", "b * cosine + a * sine")}
}`,
    };
  },
};
