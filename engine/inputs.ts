/**
 * What changes from batch to batch, brought to the GPU: ids, positions, offsets, lengths.
 * @module
 */
import type { Allocation } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";
import { ShapeError } from "./shape.ts";
import { type Tensor, type TensorType, upload } from "./tensor.ts";

/** An array that becomes a tensor. */
export type HostArray = Uint32Array | Int32Array | Float32Array;

/** Arrays by name, or groups of them. */
interface HostArrays {
  readonly [name: string]: HostArray | HostArrays;
}

/** The same names, with a tensor `[length]` for each array. */
export type DeviceTensors<Arrays> = {
  readonly [Name in keyof Arrays]: NonNullable<Arrays[Name]> extends HostArray ? Tensor
    : DeviceTensors<Arrays[Name]>;
};

/**
 * Makes arrays tensors for this submit only.
 *
 * @param gpu the device
 * @param arrays by name
 * @param options.capacity rows to reserve for each
 * @returns `[length]` for each, gone after the next submit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu, toHost } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const { group } = uploadAll(gpu, { group: { ids: Uint32Array.of(3, 1) } });
 * assert.deepEqual([...await toHost(group.ids)], [3, 1]);
 * ```
 */
export function uploadAll<Arrays extends object>(
  gpu: Gpu,
  arrays: Arrays,
  options: { capacity?: number } = {},
): DeviceTensors<Arrays> {
  return eachArray(arrays, (array) => upload(gpu, array, options));
}

/** Replaces each array; paths join the names with dots. */
function eachArray<Arrays extends object>(
  arrays: Arrays,
  place: (array: HostArray, path: string) => Tensor,
  prefix = "",
): DeviceTensors<Arrays> {
  const placed = Object.entries(arrays).map(([name, value]) => [
    name,
    ArrayBuffer.isView(value)
      ? place(value as HostArray, prefix + name)
      : eachArray(value, place, `${prefix}${name}.`),
  ]);
  return Object.fromEntries(placed);
}

/**
 * Equal for arrays of equal names and lengths.
 *
 * @param arrays by name
 * @returns lengths in order
 */
export function shapeKey(arrays: object): string {
  return Object.values(arrays).map((value) =>
    ArrayBuffer.isView(value) ? (value as HostArray).length : `(${shapeKey(value)})`
  ).join();
}

/**
 * Tensors whose place on the GPU stays while their contents change. Make with {@link createInputs}; dispose when done.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu, toHost } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * using inputs = createInputs(gpu, { ids: new Uint32Array(8) });
 * const { ids } = inputs.write({ ids: Uint32Array.of(1, 2) });
 * inputs.write({ ids: Uint32Array.of(3, 4) });
 * assert.deepEqual([...await toHost(ids)], [3, 4]);
 * ```
 */
export class Inputs implements Disposable {
  readonly #mirror: Uint32Array<ArrayBuffer>;

  /** Only {@link createInputs} makes one. */
  constructor(
    private readonly gpu: Gpu,
    private readonly allocation: Allocation,
    private readonly slots: ReadonlyMap<string, { first: number; length: number }>,
    words: number,
  ) {
    this.#mirror = new Uint32Array(words);
  }

  /**
   * Overwrites the tensors, in the order of the recorded work.
   *
   * @param arrays names and groups as on creation, none longer than then
   * @returns `[length]` for each array, with room for the largest: the same places every time
   * @throws {ShapeError} when there is no such place, or an array is too long for it
   */
  write<Arrays extends object>(arrays: Arrays): DeviceTensors<Arrays> {
    const { gpu, allocation } = this;
    const tensors = eachArray(arrays, (array, path): Tensor => {
      const slot = this.slots.get(path);
      if (!slot || array.length > slot.length) {
        throw new ShapeError(
          `Cannot write input ${path}: expected at most ${slot?.length ?? 0} elements, found ${array.length}`,
        );
      }
      this.#mirror.set(new Uint32Array(array.buffer, array.byteOffset, array.length), slot.first);
      return {
        gpu,
        shape: [array.length],
        type: typeOf(array),
        range: {
          allocation,
          offsetBytes: slot.first * 4,
          sizeBytes: Math.max(16, slot.length * 4),
        },
        capacity: slot.length,
        requiresGrad: false,
      };
    });
    const source = gpu.queue.upload(this.#mirror, this.#mirror.length);
    gpu.queue.copy(source, { allocation, offsetBytes: 0, sizeBytes: this.#mirror.byteLength });
    return tensors;
  }

  /** Gives the buffer back. */
  [Symbol.dispose](): void {
    this.allocation.release();
  }
}

function typeOf(array: HostArray): TensorType {
  return array instanceof Float32Array ? "f32" : array instanceof Int32Array ? "i32" : "u32";
}

/** Bindings start at multiples of this many words: the largest alignment there is. */
const SLOT_WORDS = 64;

/**
 * Reserves room for arrays that change from batch to batch, in one buffer.
 *
 * @param gpu the device
 * @param largest by name, each as long as it will ever be; the contents do not matter
 * @returns the inputs; dispose them when done
 * @throws {MemoryBudgetError} when they do not fit the budget
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * using inputs = createInputs(gpu, { batch: { ids: new Uint32Array(8), weights: new Float32Array(2) } });
 * const { batch } = inputs.write({ batch: { ids: Uint32Array.of(5), weights: Float32Array.of(0.5) } });
 * assert.deepEqual([batch.ids.shape, batch.ids.capacity], [[1], 8]);
 * ```
 */
export function createInputs(gpu: Gpu, largest: object): Inputs {
  const slots = new Map<string, { first: number; length: number }>();
  let words = 0;
  const lay = (arrays: object, prefix: string): void =>
    Object.entries(arrays).forEach(([name, value]) => {
      if (!ArrayBuffer.isView(value)) return lay(value, `${prefix}${name}.`);
      const { length } = value as HostArray;
      slots.set(prefix + name, { first: words, length });
      words += Math.max(1, Math.ceil(length / SLOT_WORDS)) * SLOT_WORDS;
    });
  lay(largest, "");
  return new Inputs(
    gpu,
    gpu.allocate(words * 4, "inputs", { owner: "caller", category: "buffers" }),
    slots,
    words,
  );
}
