/**
 * The device: opening it with everything the adapter offers, its memory, its queue, and what went wrong on it.
 * @module
 */
import {
  type Allocation,
  type BufferArena,
  BufferPool,
  type MemoryCategory,
  type MemoryStats,
} from "./buffers.ts";
import type { Scope } from "./scope.ts";
import { PipelineCache } from "./pipelines.ts";
import { CommandQueue, type Dispatch, type QueueStats } from "./queue.ts";
import type { Kernel } from "../shaders/kernel.ts";
import type { Tape } from "./tape.ts";

/**
 * No WebGPU adapter, or none that will open.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * Object.defineProperty(navigator, "gpu", { value: undefined }); // a platform without WebGPU
 * await assert.rejects(openGpu(), GpuUnavailableError);
 * ```
 */
export class GpuUnavailableError extends Error {
  /** The class, as messages print it. */
  override name = "GpuUnavailableError";
}

/**
 * The device was lost, ran out of memory or reported a validation error.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * const gpu = await openGpu();
 * gpu[Symbol.dispose]();
 * assert.throws(() => gpu.check(), GpuFaultError);
 * ```
 */
export class GpuFaultError extends Error {
  /** The class, as messages print it. */
  override name = "GpuFaultError";
}

/** How to open a device. */
export interface GpuOptions {
  /** Upper bound for all GPU buffers in bytes, or how to choose it for an adapter; 8 GiB by default. */
  memoryBudgetBytes?: number | ((adapter: AdapterDescription) => number);
  /** Which of several adapters to prefer. */
  powerPreference?: GPUPowerPreference;
  /** Whether the device stands in for another and computes nothing: set by `openPlanningGpu` alone. */
  isPlanning?: boolean;
  /** Fill each buffer with NaN when it is handed out, so that an element nobody wrote shows. For tests. */
  poison?: boolean;
}

/** What the adapter is and can do. */
export interface AdapterDescription {
  /** The driver's own name of the device. */
  readonly name: string;
  /** True for a software adapter: threads are CPU lanes, barriers are dear, uniform loads are cheap. */
  readonly isCpu: boolean;
  /** Optional features that were granted. */
  readonly features: readonly string[];
  /** Invocations of a subgroup, where subgroup operations were granted and the adapter has one size; else 0. */
  readonly subgroupSize: number;
  /**
   * WGSL extensions that a source must enable before it uses them: `subgroups` where it is a feature that the adapter
   * lists. Deno's compiler has those operations too, and refuses the line. None by default.
   */
  readonly wgslExtensions?: readonly string[];
}

/** Every counter of a device, for tests and profiles. */
export interface GpuStats extends QueueStats {
  /** Of the buffer pool. */
  memory: Readonly<MemoryStats>;
  /** Kernels compiled. */
  pipelines: number;
  /** Ops that tapes recorded. */
  tapeNodes: number;
}

/** Optional features worth having, where the adapter lists them. */
const LISTED_FEATURES: readonly GPUFeatureName[] = ["shader-f16", "timestamp-query"];

/** Features that Deno grants although the adapter does not list them: only asking tells. */
const UNLISTED_FEATURES: readonly GPUFeatureName[] = ["subgroups"];

/** Features that are extensions of WGSL too, under the same name. */
const WGSL_EXTENSIONS: readonly GPUFeatureName[] = ["subgroups"];

const DEFAULT_BUDGET_BYTES = 8 * 2 ** 30;

/**
 * An open device with its memory and queue. Make one with {@link openGpu}; dispose it when done.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { empty, openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu({ memoryBudgetBytes: 2 ** 26 });
 * const tensor = empty(gpu, [2, 8]);
 * assert.equal(tensor.gpu, gpu);
 * assert.equal(gpu.stats().memory.usedBytes, 256); // the smallest buffer
 * ```
 */
export class Gpu {
  /** Where all GPU memory comes from. */
  readonly buffers: BufferPool;
  /** Compiled kernels. */
  readonly pipelines: PipelineCache;
  /** Records, submits and reads back. */
  readonly queue: CommandQueue;
  /** The tape that records, if any; set by `Tape`. */
  tape: Tape | null = null;
  /** Where allocations come from while a graph is recorded; only `recordGraph` sets it. */
  arena: BufferArena | null = null;
  /** Ops that tapes recorded so far. */
  tapeNodes = 0;
  /** Aborting it ends what is under way: the next submit or readback throws its reason, but in {@link uninterrupted}. */
  signal: AbortSignal | null = null;
  /** Whether results are not computed, only counted what computing them takes. */
  readonly isPlanning: boolean;
  readonly #scopes: Scope[] = [];
  readonly #poison: boolean;
  #fault: Error | null = null;
  #disposed = false;
  #uninterrupted = 0;

  /** Wraps an open device; {@link openGpu} opens one. */
  constructor(readonly device: GPUDevice, readonly adapter: AdapterDescription, options: GpuOptions = {}) {
    const { limits } = device;
    this.buffers = new BufferPool(device, {
      budgetBytes: typeof options.memoryBudgetBytes === "function"
        ? options.memoryBudgetBytes(adapter)
        : options.memoryBudgetBytes ?? DEFAULT_BUDGET_BYTES,
      maxBufferBytes: Math.floor(Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize) / 256) *
        256,
      onTrim: () => this.queue.forgetBindGroups(),
    });
    this.pipelines = new PipelineCache(device, (error) => this.fail(error), adapter.wgslExtensions);
    this.queue = new CommandQueue(device, {
      pipelines: this.pipelines,
      buffers: this.buffers,
      check: () => this.check(),
      fail: (cause) => {
        const message = cause instanceof Error ? cause.message : String(cause);
        this.fail(new GpuFaultError(`Cannot go on: the GPU device was lost: ${message}`, { cause }));
      },
    });
    this.isPlanning = options.isPlanning ?? false;
    this.#poison = options.poison ?? false;
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      this.fail(new GpuFaultError(`Cannot go on: the GPU reported: ${error.message}`));
    });
    device.lost.then((info) => {
      if (!this.#disposed) {
        this.fail(new GpuFaultError(`Cannot go on: the GPU device was lost: ${info.message}`));
      }
    });
  }

  /** Remembers the first fault; {@link check} throws it. */
  fail(error: Error): void {
    this.#fault ??= error;
  }

  /**
   * Makes sure that the device is well, and that nobody asked to stop.
   *
   * @throws {GpuFaultError} the first fault of the device, if there was one
   * @throws the reason of {@link signal}, where it was aborted
   */
  check(): void {
    if (this.#fault) throw this.#fault;
    if (this.#disposed) {
      throw new GpuFaultError("Cannot use the GPU: expected an open device, found a disposed one");
    }
    if (this.#uninterrupted === 0) this.signal?.throwIfAborted();
  }

  /**
   * Runs what {@link signal} must not cut short, as it looks at the signal by itself or leaves something half done: a
   * training loop, saving. Faults of the device still end it.
   *
   * @param body what to run
   * @returns what it returns
   */
  async uninterrupted<Result>(body: () => Promise<Result>): Promise<Result> {
    this.#uninterrupted++;
    try {
      return await body();
    } finally {
      this.#uninterrupted--;
    }
  }

  /** Records one dispatch of a kernel. */
  dispatch<Constants>(kernel: Kernel<Constants>, dispatch: Dispatch<Constants>): void {
    this.queue.dispatch(kernel, dispatch);
  }

  /** The storage buffers' largest size for one binding, in bytes. */
  get maxBindingBytes(): number {
    return Math.floor(
      Math.min(this.device.limits.maxStorageBufferBindingSize, this.device.limits.maxBufferSize) / 256,
    ) * 256;
  }

  /**
   * Allocates bytes.
   *
   * @param sizeBytes at least so many
   * @param label names the buffer in errors
   * @param options.owner the current scope (default), or the caller, who is it anyway where no scope is open
   * @param options.category what it is for; activations by default
   * @returns the allocation, contents undefined
   * @throws {MemoryBudgetError} when the budget would be passed
   */
  allocate(
    sizeBytes: number,
    label: string,
    options: { owner?: "scope" | "caller"; category?: MemoryCategory } = {},
  ): Allocation {
    const allocation = (this.arena ?? this.buffers).acquire(sizeBytes, label, options.category);
    if (options.owner !== "caller") this.#scopes.at(-1)?.own(allocation);
    if (this.#poison) this.#fillWithNan(allocation);
    return allocation;
  }

  /** Opens a scope that owns what is allocated until it is popped. */
  pushScope(scope: Scope): void {
    this.#scopes.push(scope);
  }

  /** Closes the innermost scope, which must be this one. */
  popScope(scope: Scope): void {
    if (this.#scopes.at(-1) !== scope) throw new Error("Cannot close a scope: expected the innermost one");
    this.#scopes.pop();
    scope.end();
  }

  /** Moves an allocation from the innermost scope to the one around it (or to the caller). */
  moveOut(allocation: Allocation): void {
    if (this.#scopes.at(-1)?.disown(allocation)) this.#scopes.at(-2)?.own(allocation);
  }

  /** A copy of every counter. */
  stats(): GpuStats {
    return {
      ...this.queue.stats,
      memory: structuredClone(this.buffers.stats),
      pipelines: this.pipelines.size,
      tapeNodes: this.tapeNodes,
    };
  }

  /** Destroys all buffers and the device. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.queue.destroy();
    this.buffers.destroy();
    this.device.destroy();
  }

  #fillWithNan(allocation: Allocation): void {
    const nan = this.#nan(allocation.sizeBytes);
    this.queue.copy(
      { allocation: nan, offsetBytes: 0, sizeBytes: allocation.sizeBytes },
      { allocation, offsetBytes: 0, sizeBytes: allocation.sizeBytes },
    );
  }

  #nanBuffer: Allocation | null = null;

  #nan(sizeBytes: number): Allocation {
    if (this.#nanBuffer && this.#nanBuffer.sizeBytes >= sizeBytes) return this.#nanBuffer;
    const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    this.#nanBuffer = this.buffers.createFixed(sizeBytes, usage, "NaN");
    this.device.queue.writeBuffer(this.#nanBuffer.buffer, 0, new Uint32Array(sizeBytes / 4).fill(0x7fc00000));
    return this.#nanBuffer;
  }
}

/**
 * Opens a WebGPU device with all of the adapter's limits and those optional features that it really grants.
 *
 * @param options memory budget, adapter preference
 * @returns the open device; dispose it with `using` or `[Symbol.dispose]()`
 * @throws {GpuUnavailableError} when there is no adapter or it does not open
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * gpu.check(); // throws what went wrong on the device, if anything did
 * assert(gpu.maxBindingBytes >= 2 ** 27); // WebGPU's own minimum
 * ```
 */
export async function openGpu(options: GpuOptions = {}): Promise<Gpu> {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter({
    powerPreference: options.powerPreference,
  });
  if (!adapter) throw new GpuUnavailableError("Cannot open a GPU: expected a WebGPU adapter, found none");
  const requiredLimits = adapterLimits(adapter.limits);
  let refusal: unknown;
  for (const requiredFeatures of featureSets(adapter)) {
    try {
      const device = await adapter.requestDevice({ label: "keel", requiredLimits, requiredFeatures });
      return new Gpu(device, describe(adapter, requiredFeatures), options);
    } catch (error) {
      refusal = error;
    }
  }
  const message = refusal instanceof Error ? refusal.message : String(refusal);
  throw new GpuUnavailableError(`Cannot open a GPU: ${adapter.info.description}: ${message}`, {
    cause: refusal,
  });
}

/** Sets of features to ask for, the fullest first: an adapter that refuses one refuses the whole set. */
function featureSets(adapter: GPUAdapter): GPUFeatureName[][] {
  const listed = LISTED_FEATURES.filter((feature) => adapter.features.has(feature));
  return [[...listed, ...UNLISTED_FEATURES], listed];
}

/** All limits, as numbers that survive the trip through JavaScript. */
function adapterLimits(limits: GPUSupportedLimits): Record<string, number> {
  const names = [
    "maxBufferSize",
    "maxStorageBufferBindingSize",
    "maxStorageBuffersPerShaderStage",
    "maxComputeWorkgroupStorageSize",
    "maxComputeInvocationsPerWorkgroup",
    "maxComputeWorkgroupSizeX",
    "maxComputeWorkgroupSizeY",
    "maxTextureDimension2D",
  ] as const;
  return Object.fromEntries(names.map((name) => [name, Math.min(limits[name], Number.MAX_SAFE_INTEGER)]));
}

function describe(adapter: GPUAdapter, features: GPUFeatureName[]): AdapterDescription {
  const name = adapter.info.description || `${adapter.info.vendor} ${adapter.info.architecture}`.trim();
  const isCpu = adapter.info.isFallbackAdapter || /llvmpipe|swiftshader|software/i.test(name);
  const { subgroupMinSize, subgroupMaxSize } = adapter.info;
  const hasSubgroups = features.some((feature) => String(feature) === "subgroups");
  const subgroupSize = hasSubgroups && subgroupMinSize === subgroupMaxSize ? subgroupMinSize : 0;
  const wgslExtensions = WGSL_EXTENSIONS.filter((name) =>
    features.includes(name) && adapter.features.has(name)
  );
  return { name, isCpu, features: features.map(String), subgroupSize, wgslExtensions };
}
