/**
 * How work is laid over workgroups, in one place: elementwise grids, rows per workgroup by adapter, the tile.
 * @module
 */
import type { Gpu } from "../gpu.ts";
import { CPU_TILE, GPU_TILE, TEXEL_TILE, type Tile } from "../../shaders/tile.ts";
import { ELEMENTWISE_WORKGROUP } from "../../shaders/elementwise.ts";

/** Grid of a kernel that handles four elements an invocation. Buffers are padded, so the last quad may overhang. */
export function elementwiseWorkgroups(elements: number): { elements: number; workgroups: number } {
  return { elements, workgroups: Math.ceil(elements / 4 / ELEMENTWISE_WORKGROUP) };
}

/**
 * Invocations that share a row in kernels that reduce over it: one on CPU adapters, where a barrier costs more than
 * the row, else 64.
 */
export function rowLanes(gpu: Gpu): number {
  return gpu.adapter.isCpu ? 1 : 64;
}

/** The tiling for matrix products on this adapter. */
export function productTile(gpu: Gpu): Tile {
  const { isCpu, subgroupSize } = gpu.adapter;
  if (!isCpu) return GPU_TILE;
  return subgroupSize === TEXEL_TILE.lanesX ? TEXEL_TILE : CPU_TILE;
}

/** lavapipe stops an invocation silently after 65,535 loop iterations; a little is left for the kernel's own. */
export const CPU_LOOP_LIMIT = 65_000;
