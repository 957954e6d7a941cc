/**
 * The parts of a low-rank adapter that are no plain product: several modules share a product, and each has its own B.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP } from "./lib.ts";
import { wgsl } from "./wgsl.ts";

/** Invocations per workgroup of both kernels. */
export const LORA_WORKGROUP = 64;

const PARAMS = { rows: "u32", rank: "u32", columns: "u32", first_row: "u32", first_column: "u32" } as const;

/** A module's B into its place in the matrix of all modules. */
export const loraSpread: Kernel<Record<string, never>> = {
  name: "lora_spread",
  doc:
    `all[first_row + o, first_column + j] = b[o, j] for j < rank, and 0 elsewhere in these rows (arXiv 2106.09685, for
    modules side by side). b [rows, rank]; all [.., columns]. An invocation owns an element of the rows.`,
  build: () => ({
    bindings: { b: input("f32"), all: output("f32") },
    params: PARAMS,
    workgroupSize: [LORA_WORKGROUP, 1],
    body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${LORA_WORKGROUP}u + local_id.x;
if (i >= p.rows * p.columns) { return; }
let row = i / p.columns;
// Wraps around for columns before the first.
let j = i % p.columns - p.first_column;
var value = 0.0;
if (j < p.rank) { value = b[row * p.rank + j]; }
all[p.first_row * p.columns + i] = value;`,
  }),
};

/** What of the gradient of that matrix is a module's. */
export const loraCollect: Kernel<Record<string, never>> = {
  name: "lora_collect",
  doc:
    `d_b[o, j] (+)= d_all[first_row + o, first_column + j]. d_all [.., columns]; d_b [rows, rank]. An invocation owns an
    element of d_b.`,
  build: () => ({
    bindings: { d_all: input("f32"), d_b: output("f32") },
    params: { ...PARAMS, accumulate: "u32" },
    workgroupSize: [LORA_WORKGROUP, 1],
    body: wgsl`
let i = (${LINEAR_WORKGROUP}) * ${LORA_WORKGROUP}u + local_id.x;
if (i >= p.rows * p.rank) { return; }
var value = d_all[(p.first_row + i / p.rank) * p.columns + p.first_column + i % p.rank];
if (p.accumulate != 0u) { value += d_b[i]; }
d_b[i] = value;`,
  }),
};
