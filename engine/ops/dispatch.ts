/**
 * How work is laid over workgroups, in one place: elementwise grids, rows per workgroup by adapter, the tile.
 * @module
 */
import type { Gpu } from "../gpu.ts";
import { CPU_TILE, GPU_TILE, TEXEL_TILE, type Tile } from "../../shaders/tile.ts";
import { ELEMENTWISE_WORKGROUP } from "../../shaders/elementwise.ts";
import { vectorWidth } from "../../shaders/lib.ts";
import type { InputMemory, OperandConstants } from "../../shaders/operand.ts";
import { ShapeError } from "../shape.ts";
import { expectQuads, storageOf, type Tensor } from "../tensor.ts";

/** Grid of a kernel that handles four elements an invocation. Buffers are padded, so the last quad may overhang. */
export function elementwiseWorkgroups(elements: number): { elements: number; workgroups: number } {
  return { elements, workgroups: Math.ceil(elements / 4 / ELEMENTWISE_WORKGROUP) };
}

/** Where kernels read their inputs: software adapters fetch texels much faster than elements of buffers. */
export function inputMemory(gpu: Gpu): InputMemory {
  return gpu.adapter.isCpu ? "texels" : "buffer";
}

/**
 * The storage of a tensor that a kernel also writes the like of.
 *
 * @throws {ShapeError} when it holds indices, or bf16, which is read only
 */
export function activationStorage(operation: string, tensor: Tensor): OperandConstants["storage"] {
  const storage = storageOf(tensor);
  if (storage === "bf16") {
    throw new ShapeError(`Cannot run ${operation}: expected f32 or f16 elements, found bf16`);
  }
  return storage;
}

/**
 * How a kernel sees rows of elements, four at a time where their length allows.
 *
 * @param operation names the op in errors
 * @param x f32 or f16
 * @param length what the vectors must divide: the row's length, or a part of it
 * @throws {ShapeError} when sixteen-bit rows do not divide by four
 */
export function rowOperands(operation: string, x: Tensor, length: number): OperandConstants {
  const storage = activationStorage(operation, x);
  expectQuads(operation, length, [storage]);
  return { width: vectorWidth(length), storage, memory: inputMemory(x.gpu) };
}

/**
 * Invocations that share a row in kernels that reduce over it: one on CPU adapters, where a barrier costs more than
 * the row, else 64, and the subgroups they form.
 */
export function rowLanes({ adapter }: Gpu): { lanes: number; subgroup: number } {
  if (adapter.isCpu) return { lanes: 1, subgroup: 0 };
  const { subgroupSize } = adapter;
  // Smaller subgroups gain nothing over a tree, larger ones are more than the row's.
  return { lanes: 64, subgroup: subgroupSize >= 8 && subgroupSize <= 64 ? subgroupSize : 0 };
}

/** The tiling for matrix products on this adapter. */
export function productTile(gpu: Gpu): Tile {
  const { isCpu, subgroupSize } = gpu.adapter;
  if (!isCpu) return GPU_TILE;
  return subgroupSize === TEXEL_TILE.lanesX ? TEXEL_TILE : CPU_TILE;
}

/** lavapipe stops an invocation silently after 65,535 loop iterations; a little is left for the kernel's own. */
export const CPU_LOOP_LIMIT = 65_000;
