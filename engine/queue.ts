/**
 * Recording and submitting GPU work: one encoder and one submit per micro-batch. Uniforms and small uploads go to
 * arenas that are written once, just before the submit.
 * @module
 */
import type { Kernel } from "../shaders/kernel.ts";
import { type Allocation, bucketBytes, type BufferPool } from "./buffers.ts";
import type { Pipeline, PipelineCache } from "./pipelines.ts";
import { type Scalar, valueOf } from "./scalar.ts";
import type {
  BufferRange,
  CommandRecorder,
  Dispatch,
  DispatchObserver,
  EncodedDispatch,
  ObservedDispatch,
  ResolvedDispatch,
} from "./commands.ts";
import { TexelStage, type TexelTexture } from "./texels.ts";
import { type Page, UploadArena } from "./upload_arena.ts";

export type {
  BufferRange,
  CommandRecorder,
  Dispatch,
  DispatchObserver,
  EncodedDispatch,
  ObservedDispatch,
  ResolvedDispatch,
} from "./commands.ts";
export { derive, type Flag, flagScalar, type Scalar, valueOf } from "./scalar.ts";

/** Counters that tests and the profiler read. */
export interface QueueStats {
  /** Kernels sent, those of replayed graphs included. */
  dispatches: number;
  /** Command buffers sent. */
  submits: number;
  /** Waits for the device. */
  readbacks: number;
  /** Bind groups created; the rest came from the cache. */
  bindGroups: number;
}

const MAX_WORKGROUPS = 65535;
const MAX_BIND_GROUPS = 16384;
const MAX_UNSENT_BYTES = 2 ** 24;

/**
 * Records dispatches and copies, submits them, reads results back.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const { queue } = gpu;
 * const source = queue.upload(Float32Array.of(1, 2, 3, 4), 4);
 * const target = { allocation: gpu.allocate(16, "target"), offsetBytes: 0, sizeBytes: 16 };
 * queue.copy(source, target); // recorded; nothing runs before a submit
 * assert.equal(queue.stats.submits, 0);
 * assert.deepEqual(new Float32Array(await queue.read(target)), Float32Array.of(1, 2, 3, 4));
 * ```
 */
export class CommandQueue {
  /** Counts since the start. */
  readonly stats: QueueStats = { dispatches: 0, submits: 0, readbacks: 0, bindGroups: 0 };
  /** Grows with each submit; uploads of an earlier epoch are gone. */
  epoch = 0;
  /** Takes the commands while a graph is recorded; only `recordGraph` sets it. */
  recorder: CommandRecorder | null = null;
  /** Watches every dispatch and submit while it is set. */
  observer: DispatchObserver | null = null;
  readonly #uniforms: UploadArena;
  readonly #uploads: UploadArena;
  readonly #bindGroups = new Map<string, GPUBindGroup>();
  readonly #staging = new Map<number, Allocation[]>();
  readonly #texels: TexelStage;
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #unsentBytes = 0;

  /**
   * A queue with nothing recorded.
   *
   * @param device the device
   * @param options.buffers where arena pages and staging buffers come from
   * @param options.check throws when the device is lost or reported an error
   */
  constructor(
    private readonly device: GPUDevice,
    private readonly options: {
      pipelines: PipelineCache;
      buffers: BufferPool;
      check: () => void;
      /** Told of a readback that the device refused. */
      fail: (cause: unknown) => void;
    },
  ) {
    this.#texels = new TexelStage(device, options.buffers);
    const { minUniformBufferOffsetAlignment, minStorageBufferOffsetAlignment } = device.limits;
    const makePage = (usage: number) => (sizeBytes: number): Page => {
      const allocation = options.buffers.createFixed(
        sizeBytes,
        usage | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
        "arena page",
      );
      return { buffer: allocation.buffer, allocation, mirror: new Uint8Array(sizeBytes), used: 0 };
    };
    this.#uniforms = new UploadArena(
      makePage(GPUBufferUsage.UNIFORM),
      65536,
      minUniformBufferOffsetAlignment,
    );
    this.#uploads = new UploadArena(
      makePage(GPUBufferUsage.STORAGE),
      1 << 20,
      Math.max(16, minStorageBufferOffsetAlignment),
    );
  }

  /** Records one dispatch. Nothing runs before {@link submit}. */
  dispatch<Constants>(kernel: Kernel<Constants>, dispatch: Dispatch<Constants>): void {
    const workgroups = foldWorkgroups(kernel.name, dispatch.workgroups);
    if (workgroups[0] === 0 || workgroups[1] === 0) return;
    const pipeline = this.options.pipelines.get(kernel, dispatch.constants);
    const { params } = dispatch;
    const ranges = this.#ranges(pipeline, dispatch.bindings);
    if (this.recorder) return this.recorder.dispatch({ pipeline, ranges, params, workgroups });
    const { page, offsetBytes } = this.#uniforms.take(pipeline.paramsBytes);
    writeParams(pipeline, params, new DataView(page.mirror.buffer, offsetBytes, pipeline.paramsBytes));
    const resolved = { pipeline, ranges, params, workgroups };
    if (this.#bindGroups.size >= MAX_BIND_GROUPS) this.#bindGroups.clear();
    const group = this.bindGroup(resolved, page.allocation, this.#bindGroups);
    this.encode({ ...resolved, group, offsets: [offsetBytes] });
  }

  /** Encodes a dispatch that is ready: of {@link dispatch}, or of a graph. */
  encode(dispatch: EncodedDispatch): void {
    const { pipeline, ranges, group, offsets, workgroups: [x, y] } = dispatch;
    for (const place of pipeline.texels) this.#texels.copy(this.#endPass(), ranges[place.binding], place);
    const { observer } = this;
    const timestampWrites = observer?.onDispatch(observed(dispatch));
    if (timestampWrites) this.#endPass();
    this.#pass ??= this.#openEncoder().beginComputePass({ label: "keel", timestampWrites });
    this.#pass.setPipeline(pipeline.pipeline);
    this.#pass.setBindGroup(0, group, offsets);
    this.#pass.dispatchWorkgroups(x, y);
    if (timestampWrites) this.#endPass();
    this.stats.dispatches++;
    if (!observer?.afterDispatch) return;
    this.observer = null;
    observer.afterDispatch(observed(dispatch));
    this.observer = observer;
  }

  /** Grows with each texture that was replaced by a larger one: bind groups that name it are of no use then. */
  get texelGeneration(): number {
    return this.#texels.generation;
  }

  /** Makes the textures that a dispatch reads operands through, where they are not there or too small. */
  reserveTexels({ pipeline, ranges }: ResolvedDispatch): void {
    for (const place of pipeline.texels) this.#texels.texture(ranges[place.binding], place);
  }

  /** A dispatch's bind group, from the cache where one like it was made before. */
  bindGroup(
    { pipeline, ranges }: ResolvedDispatch,
    uniforms: Allocation,
    cache: Map<string, GPUBindGroup>,
  ): GPUBindGroup {
    const resources: (BufferRange | TexelTexture)[] = [...ranges];
    for (const place of pipeline.texels) {
      resources[place.binding] = this.#texels.texture(ranges[place.binding], place);
    }
    const key = `${pipeline.id}|${uniforms.id}|` +
      resources.map((one) =>
        "view" in one ? `t${one.id}` : `${one.allocation.id}:${one.offsetBytes}:${one.sizeBytes}`
      ).join("|");
    const cached = cache.get(key);
    if (cached) return cached;
    const group = this.device.createBindGroup({
      label: pipeline.name,
      layout: pipeline.layout,
      entries: [
        ...resources.map((one, binding) => ({
          binding,
          resource: "view" in one ? one.view : {
            buffer: one.allocation.buffer,
            offset: one.offsetBytes,
            size: Math.ceil(one.sizeBytes / 16) * 16,
          },
        })),
        { binding: resources.length, resource: { buffer: uniforms.buffer, size: pipeline.paramsBytes } },
      ],
    });
    this.stats.bindGroups++;
    cache.set(key, group);
    return group;
  }

  /** Records a copy of `source` to the start of `target`. */
  copy(source: BufferRange, target: BufferRange): void {
    this.#requireCurrent(source, "copy: the source");
    if (this.recorder) return this.recorder.copy(source, target);
    this.#endPass().copyBufferToBuffer(
      source.allocation.buffer,
      source.offsetBytes,
      target.allocation.buffer,
      target.offsetBytes,
      source.sizeBytes,
    );
  }

  /** Records zeroing a range. */
  clear(range: BufferRange): void {
    if (this.recorder) return this.recorder.clear(range);
    this.#endPass().clearBuffer(range.allocation.buffer, range.offsetBytes, range.sizeBytes);
  }

  /**
   * Makes host data visible to this submit's kernels. Valid until the next submit.
   *
   * @param data the values
   * @param capacity elements to reserve, so that later, larger batches find the same place
   * @throws {Error} while a graph is recorded: the data would be that of the recording for ever
   */
  upload(data: Uint32Array | Int32Array | Float32Array, capacity: number): BufferRange {
    this.#refuseInGraph("upload");
    const sizeBytes = Math.max(16, Math.max(data.length, capacity) * 4);
    const { page, offsetBytes } = this.#uploads.take(Math.ceil(sizeBytes / 16) * 16);
    page.mirror.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offsetBytes);
    return { allocation: page.allocation, offsetBytes, sizeBytes, epoch: this.epoch };
  }

  /**
   * Writes host bytes at once, after everything recorded so far, which is submitted first. It keeps nothing: no place in
   * an arena, as {@link upload} does, and the bytes may change as soon as it returns. For weights.
   *
   * @param range a multiple of four bytes
   * @param bytes as many
   * @throws {RangeError} when they are more, or fewer
   * @throws {Error} while a graph is recorded
   */
  write({ allocation, offsetBytes, sizeBytes }: BufferRange, bytes: Uint8Array<ArrayBuffer>): void {
    this.#refuseInGraph("write");
    if (bytes.byteLength !== sizeBytes || sizeBytes % 4 !== 0) {
      throw new RangeError(
        `Cannot write: expected ${sizeBytes} bytes, a multiple of four, found ${bytes.byteLength}`,
      );
    }
    this.submit();
    this.device.queue.writeBuffer(allocation.buffer, offsetBytes, bytes);
    this.#unsentBytes += sizeBytes;
    if (this.#unsentBytes < MAX_UNSENT_BYTES) return;
    // The platform keeps a copy of all that is written until the next submit.
    this.device.queue.submit([]);
    this.#unsentBytes = 0;
  }

  /** Sends everything recorded to the device. */
  submit(): void {
    this.options.check();
    this.#refuseInGraph("submit");
    if (!this.#encoder) return;
    const encoder = this.#endPass();
    this.observer?.onSubmit(encoder);
    this.#uniforms.write(this.device.queue);
    this.#uploads.write(this.device.queue);
    this.device.queue.submit([encoder.finish()]);
    this.options.buffers.destroyTrimmed();
    this.#texels.destroyOutgrown();
    this.#encoder = null;
    this.epoch++;
    this.stats.submits++;
  }

  /**
   * Reads a range back after everything recorded so far. This is the only place that waits for the device.
   *
   * @throws when the device was lost or reported an error
   */
  async read(range: BufferRange): Promise<ArrayBuffer> {
    this.#refuseInGraph("read");
    this.#requireCurrent(range, "read: the range");
    const size = bucketBytes(range.sizeBytes);
    const staging = this.#staging.get(size)?.pop() ?? this.options.buffers.createFixed(
      size,
      GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      "staging",
    );
    const length = Math.ceil(range.sizeBytes / 4) * 4;
    this.#endPass().copyBufferToBuffer(range.allocation.buffer, range.offsetBytes, staging.buffer, 0, length);
    this.submit();
    this.stats.readbacks++;
    const bytes = await this.#map(staging.buffer, range.sizeBytes);
    this.#staging.set(size, [...(this.#staging.get(size) ?? []), staging]);
    this.options.check();
    return bytes;
  }

  /** Destroys what the queue made outside the buffer pool. */
  destroy(): void {
    this.#texels.destroy();
  }

  /** Forgets cached bind groups; called when buffers were destroyed. */
  forgetBindGroups(): void {
    this.#bindGroups.clear();
  }

  /** A device that was lost, or refused the copy, says so in an event of its own: that is the cause to report. */
  async #map(buffer: GPUBuffer, sizeBytes: number): Promise<ArrayBuffer> {
    try {
      await buffer.mapAsync(GPUMapMode.READ);
      const bytes = buffer.getMappedRange().slice(0, sizeBytes);
      buffer.unmap();
      return bytes;
    } catch (error) {
      // Its own event, where there is one, says more.
      await new Promise((resolve) => setTimeout(resolve, 0));
      this.options.fail(error);
      this.options.check();
      throw error;
    }
  }

  #requireCurrent(range: BufferRange, action: string): void {
    if (range.epoch !== undefined && range.epoch !== this.epoch) {
      throw new Error(`Cannot ${action} was uploaded for an earlier submit`);
    }
  }

  #refuseInGraph(action: string): void {
    if (this.recorder) {
      throw new Error(`Cannot ${action}: expected commands that can be replayed, while a graph is recorded`);
    }
  }

  #openEncoder(): GPUCommandEncoder {
    return this.#encoder ??= this.device.createCommandEncoder({ label: "keel" });
  }

  #endPass(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = null;
    return this.#openEncoder();
  }

  #ranges(pipeline: Pipeline, bindings: Readonly<Record<string, BufferRange>>): readonly BufferRange[] {
    return Object.keys(pipeline.source.bindings).map((name) => {
      const range = bindings[name];
      if (!range) {
        throw new TypeError(`Cannot dispatch ${pipeline.name}: expected binding ${name}, found none`);
      }
      this.#requireCurrent(range, `dispatch ${pipeline.name}: ${name}`);
      return range;
    });
  }
}

function observed({ pipeline, ranges, params }: ResolvedDispatch): ObservedDispatch {
  const { kernelName, constants, source } = pipeline;
  const names = Object.keys(source.bindings);
  return {
    ...{ name: kernelName, constants, source },
    bindings: Object.fromEntries(names.map((name, index) => [name, ranges[index]])),
    params: Object.fromEntries(Object.entries(params).map(([name, scalar]) => [name, valueOf(scalar)])),
  };
}

/**
 * Writes a uniform block.
 *
 * @param pipeline whose block it is
 * @param params a number for each member
 * @param view the block
 * @throws {TypeError} when a number is missing
 */
export function writeParams(
  pipeline: Pipeline,
  params: Readonly<Record<string, Scalar>>,
  view: DataView,
): void {
  Object.entries(pipeline.source.params).forEach(([name, type], index) => {
    const scalar = params[name];
    if (scalar === undefined) {
      throw new TypeError(`Cannot dispatch ${pipeline.name}: expected parameter ${name}, found none`);
    }
    if (type === "u32") view.setUint32(index * 4, valueOf(scalar), true);
    else view.setFloat32(index * 4, valueOf(scalar), true);
  });
}

function foldWorkgroups(
  name: string,
  workgroups: number | readonly [number, number],
): readonly [number, number] {
  const [x, y] = typeof workgroups !== "number"
    ? workgroups
    : workgroups <= MAX_WORKGROUPS
    ? [workgroups, 1]
    : [MAX_WORKGROUPS, Math.ceil(workgroups / MAX_WORKGROUPS)];
  if (x > MAX_WORKGROUPS || y > MAX_WORKGROUPS) {
    throw new RangeError(
      `Cannot dispatch ${name}: expected at most ${MAX_WORKGROUPS} workgroups a dimension, found ${x} x ${y}`,
    );
  }
  return [x, y];
}
