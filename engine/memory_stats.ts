/**
 * What GPU memory is used for, and the counts of it.
 * @module
 */

/**
 * What memory is for: buffers are uploads, staging, uniforms, textures, metrics and tables.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { createParameters, openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * using _parameters = createParameters(gpu, new Map([["weight", [64, 64]]]), { trainable: true });
 * const { categories } = gpu.stats().memory;
 * const bytes = MEMORY_CATEGORIES.map((category) => categories[category].usedBytes);
 * assert.deepEqual(bytes, [64 * 64 * 4, 64 * 64 * 4, 0, 0, 0]);
 * ```
 */
export const MEMORY_CATEGORIES = ["parameters", "gradients", "optimizer", "activations", "buffers"] as const;

/** One of {@link MEMORY_CATEGORIES}. */
export type MemoryCategory = typeof MEMORY_CATEGORIES[number];

/** Categories whose sizes are not rounded up to a bucket: what lasts as long as the run is held once. */
export const LASTING: ReadonlySet<MemoryCategory> = new Set(["parameters", "gradients", "optimizer"]);

/** What one category holds. */
export interface CategoryStats {
  /** Bytes of its buffers that exist, in use or free: a buffer never changes its category. */
  totalBytes: number;
  /** Bytes that somebody holds; fixed buffers and textures are not among them. */
  usedBytes: number;
  /** Its part of the pool's `peakBytes`: the bytes that existed then. */
  peakBytes: number;
}

/** What the pool holds, in bytes and in buffers. */
export interface MemoryStats {
  /** Buffers created since the start; constant once a run has warmed up. */
  created: number;
  /** Bytes of all buffers that exist, in use or free. */
  totalBytes: number;
  /** Bytes that somebody holds; fixed buffers and textures are not among them. */
  usedBytes: number;
  /** Largest `totalBytes` so far. */
  peakBytes: number;
  /** The same by what it is for; each kind of bytes adds up to the pool's. */
  categories: Record<MemoryCategory, CategoryStats>;
}

/** Of a pool that holds nothing. */
export function emptyStats(): MemoryStats {
  const none = { totalBytes: 0, usedBytes: 0, peakBytes: 0 };
  const categories = Object.fromEntries(MEMORY_CATEGORIES.map((name) => [name, { ...none }]));
  return { created: 0, ...none, categories: categories as MemoryStats["categories"] };
}
