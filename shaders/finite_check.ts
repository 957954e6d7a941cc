/**
 * Whether a buffer holds numbers that are not finite: for the diagnosis of a step.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { rowSum } from "./lib.ts";
import { wgsl } from "./wgsl.ts";

/** Lanes of the one workgroup. */
export const FINITE_CHECK_LANES = 64;

/** What the words of a buffer are. */
export interface FiniteCheckConstants {
  /** f32, or two elements of 16 bits. */
  readonly storage: "f32" | "f16" | "bf16";
}

/** Bits of the exponent, all set in infinities and NaN, in a word. */
const EXPONENTS = {
  f32: ["0x7f800000u"],
  f16: ["0x7c00u", "0x7c000000u"],
  bf16: ["0x7f80u", "0x7f800000u"],
};

/** counts[slot] = how many elements of x are not finite. */
export const finiteCheck: Kernel<FiniteCheckConstants> = {
  name: "finite_check",
  doc: `counts[slot] = number of infinities and NaN among the words of x; x [words], counts [slots].
    One workgroup: it need not be fast.`,
  build: ({ storage }) => ({
    bindings: { x: input("u32"), counts: output("f32") },
    params: { words: "u32", slot: "u32" },
    workgroupSize: [FINITE_CHECK_LANES, 1],
    workgroupBytes: FINITE_CHECK_LANES * 4,
    declarations: rowSum(FINITE_CHECK_LANES),
    body: wgsl`
var found = 0.0;
for (var i = local_id.x; i < p.words; i += ${FINITE_CHECK_LANES}u) {
  let word = x[i];
  found += ${EXPONENTS[storage].map((mask) => `select(0.0, 1.0, (word & ${mask}) == ${mask})`).join(" + ")};
}
let total = row_sum(found, local_id.x);
if (local_id.x == 0u) { counts[p.slot] = total; }`,
  }),
};
