/**
 * Matrices side by side in one.
 * @module
 */
import { GATHER_WORKGROUP } from "./embedding.ts";
import { input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { wgsl } from "./wgsl.ts";

/** Copies a part to its columns of the whole, or (+)= the columns to the part. */
export const moveColumns: Kernel<{ into: "packed" | "part" }> = {
  name: "move_columns",
  doc:
    `packed[n, first + c] = part[n, c], or part[n, c] (+)= packed[n, first + c]. An invocation owns an element.`,
  build({ into }) {
    const at = `n * p.columns + p.first + i % p.part_columns`;
    return {
      bindings: { source: input("f32"), target_: output("f32") },
      params: { elements: "u32", part_columns: "u32", columns: "u32", first: "u32", accumulate: "u32" },
      workgroupSize: [GATHER_WORKGROUP, 1],
      body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${GATHER_WORKGROUP}u + local_id.x;
if (i >= p.elements) { return; }
let n = i / p.part_columns;
var value = source[${into === "packed" ? "i" : at}];
let at = ${into === "packed" ? at : "i"};
if (p.accumulate != 0u) { value += target_[at]; }
target_[at] = value;`,
    };
  },
};
