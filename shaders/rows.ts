/**
 * The frame of kernels that normalise rows: one row per invocation or per workgroup, summed over its lanes.
 * @module
 */
import { rowGrid, rowSum, sumOf, vectorType } from "./lib.ts";
import { type OperandConstants, operands } from "./operand.ts";
import { storageFunctions } from "./storage.ts";

/** What a row kernel is specialised on. */
export interface RowConstants extends OperandConstants {
  /** Invocations that share a row: 1 or a power of two. */
  readonly lanes: number;
  /** Invocations of a subgroup, where the sum over a row may use subgroup operations; else 0. */
  readonly subgroup: number;
}

/**
 * What the row kernels have in common.
 *
 * @param constants of the kernel
 * @returns the type of a vector, how rows are bound, loaded and stored, the statements that set `row` and `lane`, and the
 * parts of the source that are the same in all
 */
export function rowFrame(constants: RowConstants) {
  const { lanes, subgroup, width, storage } = constants;
  const { workgroupSize, setup } = rowGrid(lanes);
  return {
    type: vectorType(width),
    rows: operands(constants),
    setup,
    frame: {
      workgroupSize,
      workgroupBytes: lanes * 4,
      declarations: rowSum(lanes, subgroup) + sumOf(width) + storageFunctions(storage),
    },
  };
}
