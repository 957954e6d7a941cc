/**
 * The key/value cache of a model: what decoding keeps of every token, layer by layer.
 * @module
 */
import { MemoryBudgetError } from "../../engine/buffers.ts";
import { elementBytes, empty, release, type Tensor } from "../../engine/tensor.ts";
import type { Model } from "../models/model.ts";

/** Sequences and positions that a cache has room for. */
export interface CacheSize {
  /** S, sequences that are decoded together. */
  readonly sequences: number;
  /** P, tokens of the longest. */
  readonly positions: number;
}

/** Keys and values on the GPU. Dispose it when done. */
export interface KeyValueCache extends CacheSize, Disposable {
  /** `[P, S, 2 K D]` for each layer: see `writeCache`. */
  readonly layers: readonly Tensor[];
  /** What all of it takes. */
  readonly sizeBytes: number;
}

/** What a cache is made for. */
type CachedModel = Pick<Model, "gpu" | "architecture" | "dtype">;

/**
 * Bytes of a cache.
 *
 * @param model whose layers, heads and type count
 * @param size sequences and positions
 * @returns bytes of the tensors; buffers may be a little larger
 */
export function cacheBytes({ architecture: { dimensions }, dtype }: CachedModel, size: CacheSize): number {
  const { layers, kvHeads, headDim } = dimensions;
  return layers * size.positions * size.sequences * 2 * kvHeads * headDim * elementBytes(dtype);
}

/**
 * Makes room for the keys and values of sequences.
 *
 * @param model whose they are
 * @param size sequences and positions
 * @returns the cache, contents undefined; dispose it when done
 * @throws {RangeError} when there are more positions than the model has
 * @throws {MemoryBudgetError} when it does not fit the budget beside what is there; nothing is allocated then
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { createModel } from "../models/model.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false });
 * using cache = createKeyValueCache(model, { sequences: 4, positions: 32 });
 * assert.deepEqual(cache.layers[0].shape, [32, 4, 16]);
 * assert.equal(cache.sizeBytes, 32 * 4 * 16 * 4);
 * ```
 */
export function createKeyValueCache(model: Model, size: CacheSize): KeyValueCache {
  const { gpu, architecture: { dimensions }, dtype, positions: longest } = model;
  const { sequences, positions } = size;
  if (positions > longest) {
    throw new RangeError(
      `Cannot make a key/value cache: expected at most ${longest} positions, as the model has, found ${positions}`,
    );
  }
  const sizeBytes = cacheBytes(model, size);
  const { memory } = gpu.stats();
  if (memory.usedBytes + sizeBytes > gpu.buffers.budgetBytes) {
    throw new MemoryBudgetError(
      `Cannot make a key/value cache: expected at most ${
        Math.floor(gpu.buffers.budgetBytes)
      } bytes of GPU memory in ` +
        `all (the budget), found ${memory.usedBytes} in use and ${sizeBytes} wanted for ${sequences} sequences of ` +
        `${positions} tokens`,
    );
  }
  const shape = [positions, sequences, 2 * dimensions.kvHeads * dimensions.headDim];
  const layers: Tensor[] = [];
  const dispose = () => layers.forEach(release);
  try {
    for (let layer = 0; layer < dimensions.layers; layer++) {
      const label = `the key/value cache of layer ${layer}`;
      layers.push(empty(gpu, shape, { type: dtype, owner: "caller", label }));
    }
  } catch (error) {
    dispose();
    throw error;
  }
  return { ...size, layers, sizeBytes, [Symbol.dispose]: dispose };
}
