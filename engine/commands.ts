/**
 * What is recorded: dispatches and the ranges that they bind, as an op asks for one, as it is encoded, and as others see it.
 * @module
 */
import type { KernelSource } from "../shaders/kernel.ts";
import type { Allocation } from "./buffers.ts";
import type { Pipeline } from "./pipelines.ts";
import type { Scalar } from "./scalar.ts";

/** A range of a buffer to bind or copy. */
export interface BufferRange {
  /** The buffer. */
  readonly allocation: Allocation;
  /** Where the range starts. */
  readonly offsetBytes: number;
  /** How long it is. */
  readonly sizeBytes: number;
  /** How much of it is values, where that is less: the rest is room. */
  readonly valueBytes?: number;
  /** For uploads: the submit they belong to; later use is an error. */
  readonly epoch?: number;
}

/** One dispatch. */
export interface Dispatch<Constants> {
  /** Which member of the kernel's family. */
  readonly constants: Constants;
  /** A range for each binding of the kernel. */
  readonly bindings: Readonly<Record<string, BufferRange>>;
  /** A number for each member of its uniform block. */
  readonly params: Readonly<Record<string, Scalar>>;
  /** Workgroups in x and y; a single number is folded into both where it passes the limit of one dimension. */
  readonly workgroups: number | readonly [number, number];
}

/** A dispatch whose kernel is compiled and whose ranges are in the order of its bindings. */
export interface ResolvedDispatch {
  /** The compiled kernel. */
  readonly pipeline: Pipeline;
  /** One for each binding, the uniform block excepted. */
  readonly ranges: readonly BufferRange[];
  /** A number for each member of its uniform block. */
  readonly params: Readonly<Record<string, Scalar>>;
  /** Workgroups in x and y, each within the limit. */
  readonly workgroups: readonly [number, number];
}

/** A dispatch with everything made that it needs. */
export interface EncodedDispatch extends ResolvedDispatch {
  /** Its buffers and textures. */
  readonly group: GPUBindGroup;
  /** Where its uniform block starts. */
  readonly offsets: number[];
}

/** Takes commands in place of the encoder. */
export interface CommandRecorder {
  /** A dispatch. */
  dispatch(dispatch: ResolvedDispatch): void;
  /** A copy of `source` to the start of `target`. */
  copy(source: BufferRange, target: BufferRange): void;
  /** Zeroing a range. */
  clear(range: BufferRange): void;
}

/** A dispatch as an observer sees it. */
export interface ObservedDispatch extends Omit<Dispatch<unknown>, "params" | "workgroups"> {
  /** A number for each member of its uniform block. */
  readonly params: Readonly<Record<string, number>>;
  /** The kernel's name. */
  readonly name: string;
  /** What it binds, and which of it is written. */
  readonly source: KernelSource;
}

/** Watches what is encoded, replays of graphs included: how `deno task profile` times kernels. */
export interface DispatchObserver {
  /**
   * Called before each dispatch.
   *
   * @returns where the GPU writes the time before and after it; the dispatch then has a compute pass of its own
   */
  onDispatch(dispatch: ObservedDispatch): GPUComputePassTimestampWrites | undefined;
  /** Called when a dispatch is recorded: dispatches that are recorded here come after it, and are not observed. */
  afterDispatch?(dispatch: ObservedDispatch): void;
  /** Called when a submit's last command is recorded: what is added here sees the times of its dispatches. */
  onSubmit(encoder: GPUCommandEncoder): void;
}
