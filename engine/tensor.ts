/**
 * Tensors: a shape over a range of a GPU buffer.
 * @module
 */
import { Scope } from "./scope.ts";
import type { Allocation, MemoryCategory } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";
import { DTYPE_SIZE_BYTES, narrow, widen } from "./dtype.ts";
import type { BufferRange } from "./queue.ts";
import { type Shape, ShapeError, sizeOf } from "./shape.ts";
import type { Storage } from "../shaders/storage.ts";

/** Element types that live on the GPU: what kernels compute with, and indices. */
export type TensorType = Storage | "u32" | "i32";

/** A dense row-major array on the GPU. */
export interface Tensor {
  /** The device it lives on. */
  readonly gpu: Gpu;
  /** Extents, outermost first. */
  readonly shape: Shape;
  /** Of its elements. */
  readonly type: TensorType;
  /** Where it lies; `sizeBytes` covers the capacity, so that bindings do not change from batch to batch. */
  readonly range: BufferRange;
  /**
   * Rows (first extent) that the storage was sized for. Results derived from this tensor reserve as many, so a run
   * whose batches differ in tokens asks for the same buffers every step.
   */
  readonly capacity: number;
  /** Whether `backward` is to reach it. */
  readonly requiresGrad: boolean;
  /** For parameters: where gradients accumulate, `[same shape]`. */
  readonly grad?: Tensor;
}

/** Bytes of one element. */
export function elementBytes(type: TensorType): number {
  return type === "u32" || type === "i32" ? 4 : DTYPE_SIZE_BYTES[type];
}

/** Bytes of a tensor's elements, without the room it reserves. */
export function byteLength({ shape, type }: Tensor): number {
  return sizeOf(shape) * elementBytes(type);
}

/**
 * The storage of a floating-point tensor.
 *
 * @throws {ShapeError} when it holds indices
 */
export function storageOf({ type, shape }: Tensor): Storage {
  if (type === "u32" || type === "i32") {
    throw new ShapeError(
      `Cannot compute with [${shape.join(", ")}]: expected floating-point elements, found ${type}`,
    );
  }
  return type;
}

/** @throws {ShapeError} when a tensor has another element type than expected */
export function expectType(operation: string, what: string, { type }: Tensor, expected: TensorType): void {
  if (type === expected) return;
  throw new ShapeError(`Cannot run ${operation}: expected ${what} of type ${expected}, found ${type}`);
}

/**
 * Checks that rows can be stored: 16-bit storage takes four elements at once.
 *
 * @param operation for the error
 * @param columns elements of a row
 * @param storages that rows are read from and written to
 * @throws {ShapeError} when one has 16 bits and `columns` does not divide by four
 */
export function expectQuads(operation: string, columns: number, storages: readonly Storage[]): void {
  const narrow = storages.find((storage) => storage !== "f32");
  if (narrow === undefined || columns % 4 === 0) return;
  throw new ShapeError(
    `Cannot run ${operation}: expected rows that divide by four for ${narrow}, found rows of ${columns}`,
  );
}

/** What a new tensor may differ in from a plain f32 one. */
export interface TensorOptions {
  /** f32 by default. */
  type?: TensorType;
  /** Rows to reserve; at least the first extent. */
  capacity?: number;
  /** Whether `backward` is to reach it. */
  requiresGrad?: boolean;
  /** Names the buffer in errors. */
  label?: string;
  /** Who releases it: the current scope (default) or the caller. */
  owner?: "scope" | "caller";
  /** What its memory is for; activations by default. */
  category?: MemoryCategory;
}

/**
 * Allocates a tensor, contents undefined, in the current scope.
 *
 * @param gpu the device
 * @param shape extents, each a non-negative integer
 * @param options element type, rows to reserve, owner
 * @returns the tensor; without an open scope the caller releases it
 * @throws {ShapeError} on an extent that is not
 * @throws {MemoryBudgetError} when the budget would be passed
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const tensor = empty(gpu, [2, 3], { capacity: 8 });
 * assert.deepEqual(tensor.shape, [2, 3]);
 * assert.equal(tensor.range.sizeBytes, 8 * 3 * 4); // room for eight rows
 * ```
 */
export function empty(gpu: Gpu, shape: Shape, options: TensorOptions = {}): Tensor {
  if (shape.some((extent) => !Number.isInteger(extent) || extent < 0)) {
    throw new ShapeError(
      `Cannot allocate a tensor: expected non-negative integers, found [${shape.join(", ")}]`,
    );
  }
  const rows = shape[0] ?? 1;
  const capacity = Math.max(options.capacity ?? rows, rows);
  const type = options.type ?? "f32";
  const sizeBytes = Math.max(16, sizeOf([capacity, ...shape.slice(1)]) * elementBytes(type));
  const allocation = gpu.allocate(sizeBytes, options.label ?? `tensor [${shape.join(", ")}]`, options);
  return {
    gpu,
    shape,
    type,
    range: { allocation, offsetBytes: 0, sizeBytes, valueBytes: sizeOf(shape) * elementBytes(type) },
    capacity,
    requiresGrad: options.requiresGrad ?? false,
  };
}

/**
 * Allocates a result `shape` whose rows are those of `source`: it inherits the capacity.
 *
 * @param source whose capacity counts
 * @param shape the result's; that of `source` by default
 * @param options as for {@link empty}
 * @returns the tensor, owned as by {@link empty}
 * @throws {ShapeError} on an extent that is not a non-negative integer
 * @throws {MemoryBudgetError} when the budget would be passed
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const hidden = empty(gpu, [5, 4], { capacity: 16 });
 * const logits = emptyLike(hidden, [5, 32]);
 * assert.equal(logits.capacity, 16);
 * ```
 */
export function emptyLike(source: Tensor, shape: Shape = source.shape, options: TensorOptions = {}): Tensor {
  return empty(source.gpu, shape, { capacity: source.capacity, ...options });
}

/**
 * Makes a tensor of host values that lives until it is released (or its scope ends).
 *
 * @param gpu the device
 * @param values row-major, as many as the shape says
 * @param options its shape, whether `backward` is to reach it, how it is stored (f32 by default), and what its memory is
 *   for (buffers by default)
 * @returns `options.shape`; without an open scope the caller releases it
 * @throws {ShapeError} when their number differs
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const identity = fromHost(gpu, Float32Array.of(1, 0, 0, 1), { shape: [2, 2] });
 * assert.deepEqual([...await toHost(identity)], [1, 0, 0, 1]);
 * ```
 */
export function fromHost(
  gpu: Gpu,
  values: Float32Array<ArrayBuffer>,
  options: { shape: Shape; requiresGrad?: boolean; type?: Storage; category?: MemoryCategory },
): Tensor {
  if (values.length !== sizeOf(options.shape)) {
    throw new ShapeError(
      `Cannot make a tensor: expected ${sizeOf(options.shape)} values for [${options.shape.join(", ")}], ` +
        `found ${values.length}`,
    );
  }
  const { shape, requiresGrad, type, category = "buffers" } = options;
  const tensor = empty(gpu, shape, { requiresGrad, type, category });
  // Through the arena and a copy: in the order of the other work, also where the buffer was in use before.
  writeHost(tensor, values);
  return tensor;
}

/**
 * Overwrites a tensor with host values, in the order of the recorded work.
 *
 * @param tensor `[...]`, of floating-point elements
 * @param values row-major, from its first element on; rounded to nearest where the tensor's type is narrower
 * @throws {ShapeError} when it holds indices, or 16-bit elements in an odd number
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const weight = fromHost(gpu, Float32Array.of(1, 2), { shape: [2] });
 * writeHost(weight, Float32Array.of(3, 4));
 * assert.deepEqual([...await toHost(weight)], [3, 4]);
 * ```
 */
export function writeHost(tensor: Tensor, values: Float32Array<ArrayBuffer>): void {
  const { gpu, range: { allocation, offsetBytes } } = tensor;
  const storage = storageOf(tensor);
  const chunk = 1 << 22;
  for (let start = 0; start < values.length; start += chunk) {
    const part = values.subarray(start, Math.min(values.length, start + chunk));
    const stored = narrow(part, storage);
    if (stored.byteLength % 4 !== 0) {
      throw new ShapeError(`Cannot write ${storage} values: expected an even number, found ${part.length}`);
    }
    const words = new Uint32Array(stored.buffer, stored.byteOffset, stored.byteLength / 4);
    const source = gpu.queue.upload(words, words.length);
    const target = {
      allocation,
      offsetBytes: offsetBytes + start * elementBytes(storage),
      sizeBytes: stored.byteLength,
    };
    gpu.queue.copy({ ...source, sizeBytes: stored.byteLength }, target);
    if (values.length > chunk) gpu.queue.submit();
  }
}

/**
 * Makes a tensor of host values for this submit only: token ids, labels, offsets.
 *
 * @param gpu the device
 * @param values row-major; their array's type is the tensor's
 * @param options.shape `[values.length]` by default
 * @param options.capacity rows to reserve in the upload
 * @returns a tensor that is gone after the next submit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const ids = upload(gpu, Uint32Array.of(7, 0, 7), { capacity: 16 });
 * assert.equal(ids.type, "u32");
 * assert.deepEqual([...await toHost(ids)], [7, 0, 7]); // which submits: ids are gone now
 * ```
 */
export function upload(
  gpu: Gpu,
  values: Uint32Array | Int32Array | Float32Array,
  options: { shape?: Shape; capacity?: number } = {},
): Tensor {
  const shape = options.shape ?? [values.length];
  const rowSize = sizeOf(shape.slice(1));
  const capacity = Math.max(options.capacity ?? shape[0], shape[0]);
  const type = values instanceof Float32Array ? "f32" : values instanceof Int32Array ? "i32" : "u32";
  return {
    gpu,
    shape,
    type,
    range: gpu.queue.upload(values, capacity * rowSize),
    capacity,
    requiresGrad: false,
  };
}

/**
 * A part of a tensor under a shape of its own, in the same storage.
 *
 * @param tensor row-major
 * @param options the part's shape, and its first element; a part that kernels bind must start at a multiple of 256 bytes
 * @returns a view that is given back with `tensor`
 * @throws {ShapeError} when the part reaches past the storage
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const matrix = fromHost(gpu, Float32Array.of(1, 2, 3, 4), { shape: [2, 2] });
 * assert.deepEqual([...await toHost(slice(matrix, { shape: [2], offset: 2 }))], [3, 4]);
 * ```
 */
export function slice(tensor: Tensor, options: { shape: Shape; offset: number }): Tensor {
  const bytes = elementBytes(tensor.type);
  const sizeBytes = sizeOf(options.shape) * bytes;
  if (options.offset * bytes + sizeBytes > tensor.range.sizeBytes) {
    throw new ShapeError(
      `Cannot take a slice: expected [${options.shape.join(", ")}] at ${options.offset} inside ` +
        `[${tensor.shape.join(", ")}]`,
    );
  }
  const offsetBytes = tensor.range.offsetBytes + options.offset * bytes;
  return {
    ...tensor,
    shape: options.shape,
    capacity: options.shape[0] ?? 1,
    range: { ...tensor.range, offsetBytes, sizeBytes, valueBytes: sizeBytes },
  };
}

/**
 * Reads a tensor's values back; waits for the device.
 *
 * @param tensor `[...]` of any type
 * @returns as many values as the shape says, widened to f32 (unsigned and signed tensors too are returned as numbers)
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const values = await toHost(fromHost(gpu, Float32Array.of(0.5, -2), { shape: [2] }));
 * assert.deepEqual([...values], [0.5, -2]);
 * ```
 */
export async function toHost(tensor: Tensor): Promise<Float32Array<ArrayBuffer>> {
  const { type } = tensor;
  const bytes = await tensor.gpu.queue.read({ ...tensor.range, sizeBytes: byteLength(tensor) });
  if (type === "u32") return Float32Array.from(new Uint32Array(bytes));
  if (type === "i32") return Float32Array.from(new Int32Array(bytes));
  return widen(new Uint8Array(bytes), type) as Float32Array<ArrayBuffer>;
}

/**
 * Frees a tensor made outside any scope.
 *
 * @param tensor one that no scope or tape owns
 * @throws {Error} when it was released before
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const tensor = empty(gpu, [64]);
 * assert.equal(gpu.stats().memory.usedBytes, 256);
 * release(tensor);
 * assert.equal(gpu.stats().memory.usedBytes, 0);
 * ```
 */
export function release(tensor: Tensor): void {
  tensor.range.allocation.release();
}

/**
 * Runs `body` and gives back every buffer it allocated, except those of the tensors it returns.
 *
 * @param gpu the device
 * @param body synchronous; while a tape records, the tape owns everything instead
 * @returns what `body` returned; its tensors belong to the scope around, or to the caller
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const kept = scope(gpu, () => {
 *   empty(gpu, [1024]); // given back at the end of the scope
 *   return empty(gpu, [64]);
 * });
 * assert.equal(gpu.stats().memory.usedBytes, 256);
 * release(kept);
 * ```
 */
export function scope<Result extends Tensor | readonly Tensor[] | void>(
  gpu: Gpu,
  body: () => Result,
): Result {
  // A recording tape owns everything until its backward: freeing earlier would pull saved tensors from under it.
  if (gpu.tape) return body();
  const own = new Scope();
  gpu.pushScope(own);
  try {
    const result = body();
    const kept: readonly Tensor[] = result === undefined
      ? []
      : Array.isArray(result)
      ? result
      : [result as Tensor];
    for (const allocation of new Set<Allocation>(kept.map((tensor) => tensor.range.allocation))) {
      gpu.moveOut(allocation);
    }
    return result;
  } finally {
    gpu.popScope(own);
  }
}
