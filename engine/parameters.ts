/**
 * A model's parameters in few flat buffers: one optimizer dispatch covers many tensors, and a tensor larger than a
 * binding becomes row shards.
 * @module
 */
import type { Storage } from "../shaders/storage.ts";
import { DTYPE_SIZE_BYTES, findOverflow, narrow, widen } from "./dtype.ts";
import type { Gpu } from "./gpu.ts";
import { type BlockLayout, layOut } from "./parameter_layout.ts";
import { type Shape, ShapeError, sizeOf } from "./shape.ts";
import { empty, release, slice, storageOf, type Tensor, toHost, writeHost } from "./tensor.ts";

/** One flat buffer of parameters, with its gradients when they are trained. */
export interface ParameterBlock {
  /** `[elements]`, exact: f32 where it is trained, else as it is stored. */
  readonly weight: Tensor;
  /** `[elements]` f16: what kernels read of the matrices of a model that is trained in f16. */
  readonly copy?: Tensor;
  /** `[elements]`; zero in the padding between tensors. */
  readonly gradient?: Tensor;
  /** Elements at the start that weight decay applies to. */
  readonly decayElements: number;
}

/** How parameters are laid out. */
export interface ParameterOptions {
  /** Whether gradients are wanted; all or none. */
  readonly trainable: boolean;
  /** Whether weight decay applies; by default to matrices, not to vectors such as norm weights. */
  readonly decays?: (name: string, shape: Shape) => boolean;
  /**
   * Parameters that kernels read as one, such as the query, key and value projections: ordered names of equal row
   * length. Take them with {@link Parameters.joined}.
   */
  readonly groups?: readonly (readonly string[])[];
  /**
   * How matrices are stored, f32 by default; vectors always are f32. Trained f16 has f32 masters beside it; bf16 is for
   * frozen parameters.
   */
  readonly storage?: Storage;
}

/** Rows of a parameter: what kernels read, and where its exact values are (the same but in f16 training). */
interface StoredPart {
  readonly tensor: Tensor;
  readonly exact: Tensor;
}

/** Bindings start at multiples of this: the largest alignment there is. */
const ALIGNMENT_BYTES = 256;

/** Elements that are converted at a time: few enough to stay in a cache. */
const CONVERTED_ELEMENTS = 2 ** 18;

/** Elements that are read back at a time. */
const READ_ELEMENTS = 2 ** 23;

/**
 * Named parameters on the GPU. Make with {@link createParameters}; dispose when done.
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
 * using parameters = createParameters(gpu, new Map([["weight", [2, 2]]]), { trainable: false });
 * parameters.write("weight", Float32Array.of(3, 4), 1); // the second row
 * assert.deepEqual([...await parameters.read("weight")], [0, 0, 3, 4]);
 * ```
 */
export class Parameters {
  /** Only {@link createParameters} makes one. */
  constructor(
    readonly gpu: Gpu,
    /** Names and full shapes, in the order given. */
    readonly shapes: ReadonlyMap<string, Shape>,
    readonly blocks: readonly ParameterBlock[],
    private readonly stored: {
      parts: ReadonlyMap<string, readonly StoredPart[]>;
      groups: ReadonlyMap<string, Tensor>;
    },
  ) {}

  /** Number of parameters, without padding. */
  get count(): number {
    return [...this.shapes.values()].reduce((total, shape) => total + sizeOf(shape), 0);
  }

  /**
   * A parameter, wherever it lies.
   *
   * @returns the row shards of a parameter, in order; nearly always one
   * @throws {ReferenceError} when there is no such parameter
   */
  shards(name: string): readonly Tensor[] {
    return this.#parts(name).map(({ tensor }) => tensor);
  }

  #parts(name: string): readonly StoredPart[] {
    const parts = this.stored.parts.get(name);
    if (!parts) {
      throw new ReferenceError(`Cannot find parameter ${name}: the model has ${this.shapes.size} others`);
    }
    return parts;
  }

  /**
   * A group of parameters as one tensor, with one gradient: the rows of the first, then those of the second, and so on.
   *
   * @param names a whole group, in its order
   * @returns `[sum of rows, ...]`
   * @throws {ReferenceError} when they were not laid out as a group
   */
  joined(names: readonly string[]): Tensor {
    const tensor = this.stored.groups.get(names.join());
    if (!tensor) throw new ReferenceError(`Cannot join ${names.join(", ")}: they were not made as a group`);
    return tensor;
  }

  /**
   * A parameter as one tensor.
   *
   * @returns a parameter that lies in one piece
   * @throws {ShapeError} when it was too large for one binding
   */
  get(name: string): Tensor {
    const shards = this.shards(name);
    if (shards.length !== 1) {
      throw new ShapeError(
        `Cannot use ${name}: expected it in one binding, found ${shards.length} row shards`,
      );
    }
    return shards[0];
  }

  /** Sets all gradients to zero: once before a step's first micro-batch. */
  zeroGradients(): void {
    for (const { gradient } of this.blocks) if (gradient) this.gpu.queue.clear(gradient.range);
  }

  /**
   * Overwrites rows of a parameter; they are rounded to nearest where its storage is narrower.
   *
   * @param name the parameter
   * @param values whole rows, from `firstRow`
   * @throws {ShapeError} when they are not whole rows inside the parameter
   * @throws {RangeError} when a finite value is too large for the storage
   */
  write(name: string, values: Float32Array<ArrayBuffer>, firstRow = 0): void {
    refuseOverflow(name, values, this.storage(name));
    for (const { targets, from, to } of this.#targets(name, values.length, firstRow)) {
      for (const target of targets) writeHost(target, values.subarray(from, to));
    }
  }

  /**
   * Overwrites rows of a parameter by elements as a file stores them: their bytes go to the device as they are where its
   * storage is the same. Unlike {@link Parameters.write} it leaves nothing behind in the upload arena, and submits what
   * was recorded before.
   *
   * @param name the parameter
   * @param bytes whole rows, little-endian; they may be overwritten as soon as this returns
   * @param options.dtype what the bytes hold
   * @param options.firstRow where they go; 0 by default
   * @throws {ShapeError} when they are not whole rows inside the parameter
   * @throws {RangeError} when a finite value is too large for the storage
   */
  writeStored(
    name: string,
    bytes: Uint8Array<ArrayBuffer>,
    options: { dtype: Storage; firstRow?: number },
  ): void {
    const { dtype, firstRow = 0 } = options;
    const size = DTYPE_SIZE_BYTES[dtype];
    for (const { targets, from, to } of this.#targets(name, bytes.byteLength / size, firstRow)) {
      for (const target of targets) {
        const storage = storageOf(target);
        const count = storage === dtype ? to - from : CONVERTED_ELEMENTS;
        const scratch = storage === dtype ? undefined : new Float32Array(Math.min(count, to - from));
        for (let start = from; start < to; start += count) {
          const part = bytes.subarray(start * size, Math.min(to, start + count) * size);
          const converted = scratch ? convert(name, part, { dtype, storage, scratch }) : part;
          const offsetBytes = target.range.offsetBytes + (start - from) * DTYPE_SIZE_BYTES[storage];
          const { allocation } = target.range;
          this.gpu.queue.write({ allocation, offsetBytes, sizeBytes: converted.byteLength }, converted);
        }
      }
    }
  }

  /** How the elements that kernels read of a parameter are stored. */
  storage(name: string): Storage {
    return storageOf(this.#parts(name)[0].tensor);
  }

  /** The tensors that rows of a parameter lie in, each with its range of the elements given for all rows. */
  *#targets(
    name: string,
    count: number,
    firstRow: number,
  ): Generator<{ targets: Iterable<Tensor>; from: number; to: number }> {
    const parts = this.#parts(name);
    const rowSize = sizeOf(parts[0].tensor.shape.slice(1));
    const total = parts.reduce((rows, { tensor }) => rows + (tensor.shape[0] ?? 1), 0);
    if (count % rowSize !== 0 || firstRow + count / rowSize > total) {
      throw new ShapeError(
        `Cannot write ${name}: expected whole rows of ${rowSize} within ${total}, found ${count} values at ` +
          `row ${firstRow}`,
      );
    }
    let first = 0;
    for (const { tensor, exact } of parts) {
      const rows = tensor.shape[0] ?? 1;
      const from = Math.max(first, firstRow);
      const to = Math.min(first + rows, firstRow + count / rowSize);
      if (from < to) {
        const place = { shape: [to - from, ...tensor.shape.slice(1)], offset: (from - first) * rowSize };
        const targets = [...new Set([tensor, exact])].map((target) => slice(target, place));
        yield { targets, from: (from - firstRow) * rowSize, to: (to - firstRow) * rowSize };
      }
      first += rows;
    }
  }

  /** Reads a whole parameter back, row-major, widened to f32 and exact. */
  async read(name: string): Promise<Float32Array<ArrayBuffer>> {
    const values = new Float32Array(sizeOf(this.shapes.get(name) ?? []));
    let offset = 0;
    for await (const part of this.readShards(name)) {
      values.set(part, offset);
      offset += part.length;
    }
    return values;
  }

  /** Reads a parameter back, exact, piece after piece in order: the largest do not fit the host at once. */
  async *readShards(name: string): AsyncGenerator<Float32Array<ArrayBuffer>> {
    for await (const { dtype, bytes } of this.readStored(name)) {
      yield widen(bytes, dtype) as Float32Array<ArrayBuffer>;
    }
  }

  /**
   * Reads a parameter back as its exact values are stored, piece after piece in order.
   *
   * @param name the parameter
   * @param options.elements most elements of a piece, a multiple of four
   * @returns the element type and little-endian bytes of each piece; in f16 training the masters' f32
   */
  async *readStored(
    name: string,
    options: { elements?: number } = {},
  ): AsyncGenerator<{ dtype: Storage; bytes: Uint8Array<ArrayBuffer> }> {
    for (const { exact } of this.#parts(name)) {
      const dtype = storageOf(exact);
      const size = DTYPE_SIZE_BYTES[dtype];
      const count = sizeOf(exact.shape);
      const most = options.elements ?? READ_ELEMENTS;
      for (let start = 0; start < count; start += most) {
        const elements = Math.min(most, count - start);
        const { allocation, offsetBytes } = exact.range;
        const range = { allocation, offsetBytes: offsetBytes + start * size, sizeBytes: elements * size };
        yield { dtype, bytes: new Uint8Array(await this.gpu.queue.read(range)) };
      }
    }
  }

  /** Reads a parameter's gradient back, row-major. */
  async readGradient(name: string): Promise<Float32Array<ArrayBuffer>> {
    const values = new Float32Array(sizeOf(this.shapes.get(name) ?? []));
    let offset = 0;
    for (const shard of this.shards(name)) {
      if (!shard.grad) throw new TypeError(`Cannot read the gradient of ${name}: it is not trained`);
      values.set(await toHost(shard.grad), offset);
      offset += sizeOf(shard.shape);
    }
    return values;
  }

  /** Keeps a copy of all values on the GPU, for {@link Parameters.restore}; dispose it when done. */
  snapshot(): ParameterSnapshot {
    const tensors = this.#values().map((tensor) => {
      const kept = empty(this.gpu, tensor.shape, { type: tensor.type, label: "snapshot", owner: "caller" });
      this.gpu.queue.copy(tensor.range, kept.range);
      return kept;
    });
    return { tensors, [Symbol.dispose]: () => tensors.forEach(release) };
  }

  /** Overwrites a snapshot of these parameters with their values now. */
  save(snapshot: ParameterSnapshot): void {
    this.#values().forEach((tensor, index) =>
      this.gpu.queue.copy(tensor.range, snapshot.tensors[index].range)
    );
  }

  /**
   * A frozen copy of these parameters as they are now, in buffers of the same layout and without gradients; of f16
   * training it has the f32 masters too, so that it can be moved towards other values exactly. Dispose it when done.
   *
   * @throws {MemoryBudgetError} when it does not fit the budget
   */
  frozenCopy(): Parameters {
    const twins = new Map<unknown, Tensor>();
    const twin = (source: Tensor): Tensor => {
      const { gpu } = this;
      const kept = empty(gpu, source.shape, {
        ...{ type: source.type, label: "frozen copy", owner: "caller", category: "parameters" },
      });
      gpu.queue.copy(source.range, kept.range);
      twins.set(source.range.allocation, kept);
      return kept;
    };
    const blocks = this.blocks.map(({ weight, copy, decayElements }): ParameterBlock => ({
      ...{ weight: twin(weight), decayElements },
      ...(copy ? { copy: twin(copy) } : {}),
    }));
    const moved = (tensor: Tensor): Tensor => {
      const { allocation } = twins.get(tensor.range.allocation)!.range;
      return { ...tensor, requiresGrad: false, grad: undefined, range: { ...tensor.range, allocation } };
    };
    return new Parameters(this.gpu, this.shapes, blocks, {
      parts: new Map(Array.from(this.stored.parts, ([name, parts]) => [
        name,
        parts.map(({ tensor, exact }) => ({ tensor: moved(tensor), exact: moved(exact) })),
      ])),
      groups: new Map(Array.from(this.stored.groups, ([names, tensor]) => [names, moved(tensor)])),
    });
  }

  /** Sets all values to those of a snapshot of these parameters. */
  restore(snapshot: ParameterSnapshot): void {
    this.#values().forEach((tensor, index) =>
      this.gpu.queue.copy(snapshot.tensors[index].range, tensor.range)
    );
  }

  #values(): Tensor[] {
    return this.blocks.flatMap(({ weight, copy }) => copy ? [weight, copy] : [weight]);
  }

  /** Gives all buffers back. */
  [Symbol.dispose](): void {
    for (const { weight, copy, gradient } of this.blocks) {
      for (const tensor of [weight, copy, gradient]) if (tensor) release(tensor);
    }
  }
}

/** All values of parameters at one moment. */
export interface ParameterSnapshot extends Disposable {
  /** Of each block. */
  readonly tensors: readonly Tensor[];
}

function refuseOverflow(name: string, values: Float32Array, storage: Storage): void {
  const index = findOverflow(values, storage);
  if (index >= 0) {
    throw new RangeError(
      `Cannot write ${name}: expected values that ${storage} can hold, found ${values[index]} at ${index}`,
    );
  }
}

/** Elements in another type, widened exactly, then rounded to nearest where the other is narrower. */
function convert(
  name: string,
  bytes: Uint8Array,
  options: { dtype: Storage; storage: Storage; scratch: Float32Array<ArrayBuffer> },
): Uint8Array<ArrayBuffer> {
  const { dtype, storage, scratch: into } = options;
  const values = widen(bytes, dtype, { into });
  refuseOverflow(name, values, storage);
  return narrow(values, storage) as Uint8Array<ArrayBuffer>;
}

/**
 * Lays parameters out in flat buffers, contents zero.
 *
 * @param gpu the device
 * @param shapes names to shapes; tensors that decay come first in each buffer
 * @param options whether they are trained, how they are stored, which decay and which lie together
 * @returns the parameters; dispose them when done
 * @throws {MemoryBudgetError} when they do not fit the budget
 * @throws {RangeError} when a single row, or a group, is larger than a binding
 * @throws {ShapeError} when 16-bit rows do not divide by four, or the members of a group have rows of other lengths
 * @throws {TypeError} when bf16 is to be trained
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 *
 * const shapes = new Map([["weight", [2, 3]], ["bias", [3]]]);
 * using parameters = createParameters(gpu, shapes, { trainable: true });
 * assert.equal(parameters.count, 9);
 * assert.equal(parameters.blocks.length, 1); // one flat buffer
 * assert.deepEqual([...await parameters.readGradient("bias")], [0, 0, 0]);
 * ```
 */
export function createParameters(
  gpu: Gpu,
  shapes: ReadonlyMap<string, Shape>,
  options: ParameterOptions,
): Parameters {
  const { trainable, storage = "f32", groups = [] } = options;
  if (trainable && storage === "bf16") {
    throw new TypeError("Cannot train bf16 parameters: expected f32 or f16, found frozen storage");
  }
  const isNarrow = (shape: Shape) => storage !== "f32" && shape.length >= 2;
  for (const [name, shape] of shapes) if (isNarrow(shape)) expectQuads(name, shape, storage);
  const typeOf = (shape: Shape): Storage => isNarrow(shape) ? storage : "f32";
  const unit = storage === "f32" ? 4 : 2;
  const alignment = ALIGNMENT_BYTES / unit;
  const blocks: ParameterBlock[] = [];
  const parts = new Map<string, StoredPart[]>([...shapes.keys()].map((name) => [name, []]));
  const joined = new Map<string, Tensor>();
  const layout = layOut(shapes, {
    // Trained f16 binds its f32 masters too.
    maxElements: Math.floor(gpu.maxBindingBytes / (trainable ? 4 : unit) / alignment) * alignment,
    alignment,
    groups,
    decays: options.decays ?? ((_name, shape) => shape.length >= 2),
    // Trained parameters share blocks whatever their storage: one optimizer dispatch for all.
    kind: (_name, shape) => trainable ? "f32" : typeOf(shape),
  });
  for (const blockLayout of layout) {
    const block = allocateBlock(gpu, blockLayout, { trainable, hasCopy: trainable && storage === "f16" });
    blocks.push(block);
    for (const { shape, offset, parts: members } of blockLayout.placements) {
      const hasCopy = block.copy !== undefined && isNarrow(shape);
      const whole = takeSlice(block, { shape, offset, hasCopy });
      if (members.length > 1) joined.set(members.map(({ name }) => name).join(), whole);
      for (const member of members) {
        const place = { shape: member.shape, offset: offset + member.offset };
        parts.get(member.name)!.push({
          tensor: takeSlice(block, { ...place, hasCopy }),
          exact: slice(block.weight, place),
        });
      }
    }
  }
  return new Parameters(gpu, shapes, blocks, { parts, groups: joined });
}

/** @throws {ShapeError} when 16-bit rows do not divide by four */
function expectQuads(name: string, shape: Shape, storage: Storage): void {
  if (sizeOf(shape.slice(1)) % 4 !== 0) {
    throw new ShapeError(
      `Cannot store ${name} as ${storage}: expected rows that divide by four, found [${shape.join(", ")}]`,
    );
  }
}

/** What kernels read of a block, with its gradient. */
function takeSlice(
  block: ParameterBlock,
  { hasCopy, ...place }: { shape: Shape; offset: number; hasCopy: boolean },
): Tensor {
  const { weight, copy, gradient } = block;
  const tensor = slice(hasCopy ? copy! : weight, place);
  return gradient ? { ...tensor, requiresGrad: true, grad: slice(gradient, place) } : tensor;
}

function allocateBlock(
  gpu: Gpu,
  { kind, elements, decayElements }: BlockLayout<Storage>,
  options: { trainable: boolean; hasCopy: boolean },
): ParameterBlock {
  const allocate = (category: "parameters" | "gradients", type: Storage) => {
    const tensor = empty(gpu, [elements], { label: `${type} ${category}`, category, type, owner: "caller" });
    gpu.queue.clear(tensor.range);
    return tensor;
  };
  return {
    weight: allocate("parameters", kind),
    ...(options.hasCopy ? { copy: allocate("parameters", "f16") } : {}),
    ...(options.trainable ? { gradient: allocate("gradients", "f32") } : {}),
    decayElements,
  };
}
