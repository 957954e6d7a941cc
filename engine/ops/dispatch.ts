/**
 * How work is laid over workgroups, in one place: elementwise grids, rows per workgroup by adapter, the tile.
 * @module
 */
import type { Gpu } from "../gpu.ts";
import {
  CPU_TILE,
  GPU_TILE,
  type ProductKind,
  TEXEL_TILE,
  type Tile,
  tileCols,
  tileRows,
  tileWorkgroupBytes,
} from "../../shaders/tile.ts";
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

/** Extents of a product. */
export interface ProductSize {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** How a product is computed. */
export interface ProductPlan {
  readonly tile: Tile;
  /** Least workgroups to aim at by splitting k where the result is small; 0 does not split. */
  readonly splitTo: number;
}

/**
 * Products that want the same plan: small results of a `deep` sum (weight gradients), `narrow` ones with few rows or
 * columns, and the rest.
 */
export type ProductClass = "deep" | "narrow" | "large";

/** Steps of k from which splitting can pay. */
const DEEP_K = 512;
/** Results below which a product has too few tiles to fill a GPU. */
const DEEP_RESULTS = 1 << 20;
const NARROW_EXTENT = 128;
/** Rows up to which a product NT goes through the kernel for decoding: a tile would be mostly empty. */
export const ROWS_KERNEL_LIMIT = 4;

/** @returns the class of a product's extents */
export function productClass({ m, n, k }: ProductSize): ProductClass {
  if (k >= DEEP_K && m * n <= DEEP_RESULTS) return "deep";
  return Math.min(m, n) <= NARROW_EXTENT ? "narrow" : "large";
}

/** Plans by kind and class, `NT large`; what is absent is built in. */
export type ProductPlans = ReadonlyMap<string, ProductPlan>;

const CHOSEN = new WeakMap<Gpu, ProductPlans>();

/** Makes a device's products follow these plans; only the tuner calls this, before a run's first product. */
export function choosePlans(gpu: Gpu, plans: ProductPlans): void {
  CHOSEN.set(gpu, plans);
}

/** Makes a device's products follow the plans of another one. */
export function followPlans(gpu: Gpu, other: Gpu): void {
  const plans = CHOSEN.get(other);
  if (plans) CHOSEN.set(gpu, plans);
}

/** The plan of a product on this adapter. */
export function productPlan(gpu: Gpu, kind: ProductKind, size: ProductSize): ProductPlan {
  const shape = productClass(size);
  return CHOSEN.get(gpu)?.get(`${kind} ${shape}`) ?? builtInPlan(gpu, shape);
}

/** The plan without tuning: measured on a software adapter, and what fits any GPU. */
export function builtInPlan(gpu: Gpu, shape: ProductClass): ProductPlan {
  const { isCpu, subgroupSize } = gpu.adapter;
  if (isCpu) return { tile: subgroupSize === TEXEL_TILE.lanesX ? TEXEL_TILE : CPU_TILE, splitTo: 0 };
  return { tile: GPU_TILE, splitTo: shape === "deep" ? 256 : 0 };
}

/** The tiling for kernels that are built around a product `[N, C] [V, C]^T`. */
export function productTile(gpu: Gpu): Tile {
  return CHOSEN.get(gpu)?.get("NT large")?.tile ?? builtInPlan(gpu, "large").tile;
}

/** Whether a device can run a tile: its invocations, workgroup memory and subgroups are within what was granted. */
export function tileFits({ device: { limits }, adapter }: Gpu, tile: Tile): boolean {
  const { memory, lanesX, lanesY } = tile;
  return lanesX * lanesY <= limits.maxComputeInvocationsPerWorkgroup &&
    lanesX <= limits.maxComputeWorkgroupSizeX && lanesY <= limits.maxComputeWorkgroupSizeY &&
    tileWorkgroupBytes(tile) <= limits.maxComputeWorkgroupStorageSize &&
    (memory !== "texels" || adapter.subgroupSize === lanesX);
}

/** Steps of k in each part of a split product: a multiple of 64, at least 128. */
export function splitSteps({ tile, splitTo }: ProductPlan, { m, n, k }: ProductSize): number {
  const tiles = Math.ceil(m / tileRows(tile)) * Math.ceil(n / tileCols(tile));
  const parts = Math.max(1, Math.min(Math.ceil(splitTo / tiles), Math.floor(k / 128)));
  return Math.ceil(k / parts / 64) * 64;
}

/** lavapipe stops an invocation silently after 65,535 loop iterations; a little is left for the kernel's own. */
export const CPU_LOOP_LIMIT = 65_000;
