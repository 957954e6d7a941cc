/**
 * Compiled kernels. Pipelines are never freed by the platform, so each (kernel, constants) is made once, and shapes
 * are uniforms rather than constants.
 * @module
 */
import { type ElementType, type Kernel, type KernelSource, kernelWgsl } from "../shaders/kernel.ts";

/** A kernel ready to dispatch. */
export interface Pipeline {
  /** Unique in its cache; keys bind groups. */
  readonly id: number;
  /** Kernel and constants, as error messages show them. */
  readonly name: string;
  /** The kernel's name alone. */
  readonly kernelName: string;
  /** What it was specialised on. */
  readonly constants: unknown;
  /** What it binds and takes. */
  readonly source: KernelSource;
  /** The compiled kernel. */
  readonly pipeline: GPUComputePipeline;
  /** Storage buffers in order, then the uniform block. */
  readonly layout: GPUBindGroupLayout;
  /** Size of the uniform block. */
  readonly paramsBytes: number;
  /** The bindings that are read through textures. */
  readonly texels: readonly { readonly binding: number; readonly type: ElementType }[];
}

/**
 * A WGSL source that did not compile, with its lines.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu, type Kernel } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const broken: Kernel<Record<string, never>> = {
 *   name: "broken",
 *   doc: "Not WGSL.",
 *   build: () => ({ bindings: {}, params: { n: "u32" }, workgroupSize: [1, 1], body: "let" }),
 * };
 * const error = await new Promise((resolve) => new PipelineCache(gpu.device, resolve).get(broken, {}));
 * assert(error instanceof ShaderError);
 * ```
 */
export class ShaderError extends Error {
  /** The class, as messages print it. */
  override name = "ShaderError";
}

/**
 * Creates and keeps pipelines.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./gpu.ts";
 * import { addForward } from "../shaders/elementwise.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const constants = { storage: "f32", memory: "buffer" } as const;
 * const pipeline = gpu.pipelines.get(addForward, constants);
 * assert(gpu.pipelines.get(addForward, { ...constants }) === pipeline); // compiled once
 * assert.equal(gpu.pipelines.size, 1);
 * ```
 */
export class PipelineCache {
  readonly #pipelines = new Map<string, Pipeline>();

  /** An empty cache. */
  constructor(
    private readonly device: GPUDevice,
    /** Told of a compile error, which the platform reports only later. */
    private readonly onError: (error: Error) => void,
    /** What its compiler wants enabled. */
    private readonly wgslExtensions: readonly string[] = [],
  ) {}

  /** Pipelines created so far. */
  get size(): number {
    return this.#pipelines.size;
  }

  /**
   * Compiles a kernel, once.
   *
   * @returns the pipeline of a kernel with these constants, compiled on first use
   * @throws {RangeError} when it needs more workgroup memory or invocations than the device has
   */
  get<Constants>(kernel: Kernel<Constants>, constants: Constants): Pipeline {
    const key = `${kernel.name} ${JSON.stringify(constants)}`;
    const cached = this.#pipelines.get(key);
    if (cached) return cached;
    const source = kernel.build(constants);
    checkLimits(key, source, this.device.limits);
    const compiled = this.#compile(key, kernelWgsl(kernel, constants, this.wgslExtensions), source);
    const pipeline = { ...compiled, kernelName: kernel.name, constants };
    this.#pipelines.set(key, pipeline);
    return pipeline;
  }

  #compile(label: string, code: string, source: KernelSource): Omit<Pipeline, "kernelName" | "constants"> {
    const { device } = this;
    device.pushErrorScope("validation");
    const layout = device.createBindGroupLayout({ label, entries: layoutEntries(source) });
    const pipeline = device.createComputePipeline({
      label,
      layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ label, code }), entryPoint: "main" },
    });
    device.popErrorScope().then((error) => {
      if (error) {
        this.onError(
          new ShaderError(`Cannot compile ${label}: ${error.message}\n${numberLines(code, error.message)}`),
        );
      }
    }, (cause) => this.onError(new ShaderError(`Cannot compile ${label}: the device was lost`, { cause })));
    const paramsBytes = Math.max(16, Math.ceil(Object.keys(source.params).length / 4) * 16);
    const texels = Object.values(source.bindings).flatMap(({ access, type }, binding) =>
      access === "texels" ? [{ binding, type }] : []
    );
    return { id: this.#pipelines.size, name: label, source, pipeline, layout, paramsBytes, texels };
  }
}

function layoutEntries(source: KernelSource): GPUBindGroupLayoutEntry[] {
  const visibility = GPUShaderStage.COMPUTE;
  const storage = Object.values(source.bindings).map(({ access, type }, binding): GPUBindGroupLayoutEntry =>
    access === "texels"
      ? { binding, visibility, texture: { sampleType: type === "vec2u" ? "uint" : "unfilterable-float" } }
      : { binding, visibility, buffer: { type: access === "read" ? "read-only-storage" : "storage" } }
  );
  return [...storage, {
    binding: storage.length,
    visibility,
    buffer: { type: "uniform", hasDynamicOffset: true },
  }];
}

function checkLimits(label: string, source: KernelSource, limits: GPUSupportedLimits): void {
  const bytes = source.workgroupBytes ?? 0;
  if (bytes > limits.maxComputeWorkgroupStorageSize) {
    throw new RangeError(
      `Cannot compile ${label}: expected at most ${limits.maxComputeWorkgroupStorageSize} bytes of workgroup ` +
        `memory on this adapter, found ${bytes}`,
    );
  }
  const invocations = source.workgroupSize[0] * source.workgroupSize[1];
  if (invocations > limits.maxComputeInvocationsPerWorkgroup) {
    throw new RangeError(
      `Cannot compile ${label}: expected at most ${limits.maxComputeInvocationsPerWorkgroup} invocations per ` +
        `workgroup on this adapter, found ${invocations}`,
    );
  }
  const buffers = Object.values(source.bindings).filter(({ access }) => access !== "texels").length;
  if (buffers > limits.maxStorageBuffersPerShaderStage) {
    throw new RangeError(
      `Cannot compile ${label}: expected at most ${limits.maxStorageBuffersPerShaderStage} storage buffers on this ` +
        `adapter, found ${buffers}`,
    );
  }
}

/** The lines around the place that the compiler names, numbered; the whole source when it names none. */
function numberLines(code: string, message: string): string {
  const lines = code.split("\n").map((line, index) => `${String(index + 1).padStart(4)} ${line}`);
  const place = /wgsl:(\d+):\d+/.exec(message);
  if (!place) return lines.join("\n");
  const line = Number(place[1]);
  return lines.slice(Math.max(0, line - 6), line + 5).join("\n");
}
