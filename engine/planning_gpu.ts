/**
 * A device that computes nothing: code that runs on it allocates, and is refused, as it would be on the real one, so the
 * memory and the limits of a run are known before it starts.
 * @module
 */
import { type AdapterDescription, Gpu } from "./gpu.ts";
import { followPlans } from "./ops/dispatch.ts";

/** The limits that decide what is allocated, and what is refused. */
export type DeviceLimits = Readonly<
  Record<
    | "maxBufferSize"
    | "maxStorageBufferBindingSize"
    | "maxStorageBuffersPerShaderStage"
    | "maxComputeWorkgroupStorageSize"
    | "maxComputeInvocationsPerWorkgroup"
    | "minUniformBufferOffsetAlignment"
    | "minStorageBufferOffsetAlignment"
    | "maxTextureDimension2D",
    number
  >
>;

/** What stands in for what. */
export interface PlanningOptions {
  /** Of the device that the plan is for; those of an open one are in `gpu.device.limits`. */
  readonly limits: DeviceLimits;
  /** The adapter that the plan is for: how work is laid out depends on it. */
  readonly adapter: AdapterDescription;
  /** Upper bound for all GPU buffers in bytes; none by default. */
  readonly memoryBudgetBytes?: number;
  /** A device whose tuner's choice of products is followed: what they allocate depends on it. */
  readonly tunedAs?: Gpu;
}

/**
 * Opens a device for planning. No adapter is needed: no buffer, texture or pipeline is made, and nothing is sent. What
 * is read back is zero. Its `stats().memory` after some work is what the real device's would be.
 *
 * @param options limits and adapter
 * @returns the device; dispose it with `using`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { empty, matmul, toHost } from "./mod.ts";
 *
 * const limits = {
 *   maxBufferSize: 2 ** 38,
 *   maxStorageBufferBindingSize: 2 ** 38,
 *   maxStorageBuffersPerShaderStage: 10,
 *   maxComputeWorkgroupStorageSize: 2 ** 15,
 *   maxComputeInvocationsPerWorkgroup: 256,
 *   minUniformBufferOffsetAlignment: 256,
 *   minStorageBufferOffsetAlignment: 256,
 *   maxTextureDimension2D: 2 ** 14,
 * };
 * const adapter = { name: "imagined", isCpu: false, features: [], subgroupSize: 0 };
 * using gpu = openPlanningGpu({ limits, adapter });
 * const square = empty(gpu, [2 ** 16, 2 ** 16]); // 16 GiB
 * matmul(square, square, { kind: "NN" });
 * assert.equal(gpu.stats().memory.categories.activations.peakBytes, 2 ** 35);
 * assert.deepEqual([...await toHost(empty(gpu, [2]))], [0, 0]);
 * ```
 */
export function openPlanningGpu(options: PlanningOptions): Gpu {
  const { limits, adapter, memoryBudgetBytes = Infinity, tunedAs } = options;
  const gpu = new Gpu(standIn(limits), adapter, { memoryBudgetBytes, isPlanning: true });
  if (tunedAs) followPlans(gpu, tunedAs);
  return gpu;
}

/** As much of a GPUDevice as the engine uses. */
function standIn(limits: DeviceLimits): GPUDevice {
  const nothing = () => {};
  const made = () => ({ destroy: nothing });
  const pass = { setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, end: nothing };
  const encoder = {
    beginComputePass: () => pass,
    copyBufferToBuffer: nothing,
    copyBufferToTexture: nothing,
    clearBuffer: nothing,
    resolveQuerySet: nothing,
    finish: made,
  };
  const device = {
    limits,
    lost: new Promise<never>(nothing),
    queue: { submit: nothing, writeBuffer: nothing },
    addEventListener: nothing,
    pushErrorScope: nothing,
    popErrorScope: () => Promise.resolve(null),
    createBuffer: standInBuffer,
    createTexture: () => ({ ...made(), createView: made }),
    createBindGroup: made,
    createBindGroupLayout: made,
    createPipelineLayout: made,
    createShaderModule: made,
    createComputePipeline: made,
    createQuerySet: made,
    createCommandEncoder: () => encoder,
    destroy: nothing,
  };
  return device as unknown as GPUDevice;
}

function standInBuffer() {
  return {
    destroy() {},
    mapAsync: () => Promise.resolve(),
    // Not the size of the buffer: only what is read costs host memory.
    getMappedRange: () => ({ slice: (start: number, end: number) => new ArrayBuffer(end - start) }),
    unmap() {},
  };
}
