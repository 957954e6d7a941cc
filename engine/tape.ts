/**
 * The autograd tape: ops record how to send a gradient back; `backward` walks the record from its end.
 * @module
 */
import type { Allocation } from "./buffers.ts";
import { Scope } from "./scope.ts";
import { accumulateInto } from "./ops/accumulate.ts";
import type { Gpu } from "./gpu.ts";
import { expectShape, ShapeError } from "./shape.ts";
import { byteLength, emptyLike, expectType, type Tensor } from "./tensor.ts";

/** Where an op's backward writes one input's gradient. */
export interface GradientTarget {
  /** As large as the input. */
  readonly tensor: Tensor;
  /** True when the kernel must add to what is there, false when it must overwrite. */
  readonly accumulate: boolean;
}

/** What an op's backward may do with the gradients of its inputs. */
export interface GradientSink {
  /** Where to write the gradient of `input`, or null when nobody wants it. */
  into(input: Tensor): GradientTarget | null;
  /** Hands `gradient` on unchanged as (a part of) the gradient of `input`, without a copy where possible. */
  pass(input: Tensor, gradient: Tensor): void;
  /** A tensor with the values of `gradient` that may be overwritten: itself where nobody else reads it, else a copy. */
  own(gradient: Tensor): Tensor;
}

/** One recorded operation. */
export interface Recording {
  /** Of the op, for whoever inspects a tape. */
  readonly name: string;
  /** Tensors whose gradients the op can give. */
  readonly inputs: readonly Tensor[];
  /** What it computed; owned by the tape until its gradient has been handed on. */
  readonly output: Tensor;
  /** Called once with the output's gradient, `[same shape as output]`. */
  readonly backward: (gradient: Tensor, sink: GradientSink) => void;
  /** True when `backward` does not read the output's values, so that an op in place may {@link overwrite} them. */
  readonly isOutputFree?: boolean;
  /** True for an op in place: its output is the one input's storage, which stays the property of who made it. */
  readonly isInPlace?: boolean;
}

/** A tensor whose gradient is given: where `backward` starts. */
export interface GradientSeed {
  /** Recorded on this tape. */
  readonly tensor: Tensor;
  /** dL/d(tensor), the same shape. */
  readonly gradient: Tensor;
}

/**
 * Records the ops of one forward pass and owns what they allocate until `backward` or disposal.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, scaledSum, toHost } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const grad = fromHost(gpu, Float32Array.of(0, 0), { shape: [2] });
 * const x = { ...fromHost(gpu, Float32Array.of(1, 2), { shape: [2], requiresGrad: true }), grad };
 * const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
 * using tape = new Tape(gpu);
 * const loss = scaledSum(x, { scale: 3 });
 * tape.backward([{ tensor: loss, gradient: one }]);
 * assert.deepEqual([...await toHost(grad)], [3, 3]);
 * ```
 */
export class Tape implements GradientSink {
  readonly #nodes: Recording[] = [];
  readonly #recorded = new Map<Tensor, Recording>();
  /** Storage that the backward of a recorded op may read. */
  readonly #read = new Set<Allocation>();
  /** One reference each to the gradients whose consumers are still to come. */
  readonly #gradients = new Map<Tensor, Tensor>();
  readonly #scope = new Scope();
  #open = true;

  /**
   * Starts recording.
   *
   * @param gpu the device
   * @param outer takes the gradients of tensors that this tape did not record: the tape whose backward this is part of
   * @throws {Error} when another tape of this device is recording
   */
  constructor(private readonly gpu: Gpu, private readonly outer?: GradientSink) {
    if (gpu.tape) throw new Error("Cannot start a tape: expected no other recording on this device");
    gpu.tape = this;
    gpu.pushScope(this.#scope);
  }

  /** Adds a node; only `record` calls this. */
  add(recording: Recording): void {
    this.#nodes.push(recording);
    this.gpu.tapeNodes++;
    this.#recorded.set(recording.output, recording);
    if (recording.isInPlace) return;
    for (const input of recording.inputs) this.#read.add(input.range.allocation);
  }

  /** Whether a recorded op may need the values of `tensor` for its backward. */
  needs(tensor: Tensor): boolean {
    const producer = this.#recorded.get(tensor);
    return this.#read.has(tensor.range.allocation) || (producer !== undefined && !producer.isOutputFree);
  }

  /**
   * Sends gradients from the seeds back to every tensor that requires them. Parameters' gradients accumulate in
   * their `grad`. Activations are given back as soon as their last reader is done.
   *
   * @param seeds tensors of this tape with dL/d(tensor), same shape
   * @throws {ShapeError} when a seed's gradient has another shape
   * @throws {Error} when a seed was not recorded, so no gradient could reach anything
   */
  backward(seeds: readonly GradientSeed[]): void {
    if (!this.#open) {
      throw new Error("Cannot run backward: expected a recording tape, found one already used");
    }
    this.gpu.tape = null;
    for (const { tensor, gradient } of seeds) {
      expectShape("backward", "the seed's gradient", gradient.shape, tensor.shape);
      if (!this.#recorded.has(tensor)) {
        throw new Error(
          "Cannot run backward: expected a tensor that depends on a trainable one, found one that does not",
        );
      }
      this.pass(tensor, gradient);
    }
    for (let index = this.#nodes.length - 1; index >= 0; index--) this.#visit(this.#nodes[index]);
    this[Symbol.dispose]();
  }

  /** See {@link GradientSink.into}. */
  into(input: Tensor): GradientTarget | null {
    if (!input.requiresGrad) return null;
    if (input.grad) return { tensor: input.grad, accumulate: true };
    if (this.outer && !this.#recorded.has(input)) return this.outer.into(input);
    const existing = this.#gradients.get(input);
    if (!existing) {
      const tensor = this.#allocate(input);
      this.#gradients.set(input, tensor);
      return { tensor, accumulate: false };
    }
    if (!existing.range.allocation.isShared) return { tensor: existing, accumulate: true };
    // Someone else still reads this buffer as their gradient: write to a copy.
    const copy = this.#allocate(input);
    this.#copy(existing, copy);
    existing.range.allocation.release();
    this.#gradients.set(input, copy);
    return { tensor: copy, accumulate: true };
  }

  /** See {@link GradientSink.pass}. */
  pass(input: Tensor, gradient: Tensor): void {
    if (!input.requiresGrad) return;
    if (this.outer && !input.grad && !this.#recorded.has(input)) return this.outer.pass(input, gradient);
    if (!input.grad && !this.#gradients.has(input)) {
      expectType("backward", "a gradient that is handed on", gradient, input.type);
      gradient.range.allocation.retain();
      this.#gradients.set(input, gradient);
      return;
    }
    const target = this.into(input);
    if (target) accumulateInto(target.tensor, gradient);
  }

  /** See {@link GradientSink.own}. */
  own(gradient: Tensor): Tensor {
    if (!gradient.range.allocation.isShared) return gradient;
    const copy = emptyLike(gradient, gradient.shape, { type: gradient.type });
    this.#copy(gradient, copy);
    return copy;
  }

  /** Ends the recording and gives back everything it owns. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    if (this.gpu.tape === this) this.gpu.tape = null;
    this.#nodes.length = 0;
    this.#read.clear();
    for (const gradient of this.#gradients.values()) gradient.range.allocation.release();
    this.#gradients.clear();
    this.gpu.popScope(this.#scope);
  }

  /** Hands a tensor of this tape to the caller, who must release it: to read a result after `backward`. */
  keep(tensor: Tensor): Tensor {
    this.#scope.disown(tensor.range.allocation);
    return tensor;
  }

  #visit(node: Recording): void {
    const gradient = this.#gradients.get(node.output);
    if (gradient) {
      node.backward(gradient, this);
      this.#gradients.delete(node.output);
      gradient.range.allocation.release();
    }
    // Storage worked on in place still has its first owner further down: that node gives it back.
    if (!node.isInPlace) this.#scope.releaseEarly(node.output.range.allocation);
  }

  /** Only the elements: the source may have room for more rows than the target. Copies are whole words. */
  #copy(source: Tensor, target: Tensor): void {
    const sizeBytes = Math.ceil(byteLength(target) / 4) * 4;
    this.gpu.queue.copy({ ...source.range, sizeBytes }, target.range);
  }

  /** A gradient belongs to its slot, not to whatever scope is open. */
  #allocate(input: Tensor): Tensor {
    return emptyLike(input, input.shape, { owner: "caller", type: input.type });
  }
}

/**
 * Records an op on the device's tape, if one records and an input wants a gradient.
 *
 * @param gpu the device
 * @param recording inputs, output, and how its gradient goes back
 * @returns the output, marked as requiring a gradient when it was recorded
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { add, fromHost, openGpu, scaledSum, toHost, type Tensor } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const grad = fromHost(gpu, Float32Array.of(0, 0), { shape: [2] });
 * const x = { ...fromHost(gpu, Float32Array.of(1, 2), { shape: [2], requiresGrad: true }), grad };
 * const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
 * const twice = (x: Tensor) => record(gpu, {
 *   name: "twice",
 *   inputs: [x],
 *   output: noGrad(gpu, () => add(x, x)),
 *   backward: (dY, sink) => [dY, dY].forEach((part) => sink.pass(x, part)),
 * });
 * using tape = new Tape(gpu);
 * tape.backward([{ tensor: scaledSum(twice(x), { scale: 1 }), gradient: one }]);
 * assert.deepEqual([...await toHost(grad)], [2, 2]);
 * ```
 */
export function record(gpu: Gpu, recording: Recording): Tensor {
  for (const input of recording.isInPlace ? [] : recording.inputs) {
    if (OVERWRITTEN.has(input)) {
      throw new Error(
        `Cannot run ${recording.name}: expected values, found a tensor that was overwritten in place`,
      );
    }
  }
  if (!gpu.tape || !recording.inputs.some((input) => input.requiresGrad)) return recording.output;
  const output: Tensor = { ...recording.output, requiresGrad: true };
  gpu.tape.add({ ...recording, output });
  return output;
}

/**
 * Runs `body` without recording.
 *
 * @param gpu the device
 * @param body synchronous
 * @returns what `body` returned
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { add, fromHost, openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const x = fromHost(gpu, Float32Array.of(1, 2), { shape: [2], requiresGrad: true });
 * using _tape = new Tape(gpu);
 * assert.equal(add(x, x).requiresGrad, true);
 * assert.equal(noGrad(gpu, () => add(x, x)).requiresGrad, false);
 * ```
 */
export function noGrad<Result>(gpu: Gpu, body: () => Result): Result {
  const { tape } = gpu;
  gpu.tape = null;
  try {
    return body();
  } finally {
    gpu.tape = tape;
  }
}

/** Tensors whose storage holds another tensor's values by now. */
const OVERWRITTEN = new WeakSet<Tensor>();

/**
 * Claims a tensor's storage for an op that works in place, before it writes. The rule: the op's input is read by
 * nothing else, neither before nor after it, and the op that made the input does without its values. Then no backward
 * can meet values of the wrong time. Ask for the tensor that the op returns instead.
 *
 * @param operation names the op in errors
 * @param x what will be overwritten
 * @throws {Error} when x is a parameter, was overwritten before, or its values are needed by a recorded op
 */
export function overwrite(operation: string, x: Tensor): void {
  const found = x.grad
    ? "a parameter"
    : OVERWRITTEN.has(x)
    ? "one that was overwritten before"
    : x.gpu.tape?.needs(x)
    ? "one whose values a recorded op needs"
    : null;
  if (found) {
    throw new Error(
      `Cannot run ${operation} in place: expected a tensor that nothing else reads, found ${found}`,
    );
  }
  OVERWRITTEN.add(x);
}

/** @throws {ShapeError} when an op that cannot differentiate would be recorded */
export function refuseGradient(operation: string, ...inputs: readonly Tensor[]): void {
  if (inputs.some((input) => input.gpu.tape && input.requiresGrad)) {
    throw new ShapeError(`Cannot run ${operation}: it has no gradient`);
  }
}
