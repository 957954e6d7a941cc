/**
 * A model's parameters in few flat buffers: one optimizer dispatch covers many tensors, and a tensor larger than a
 * binding becomes row shards.
 * @module
 */
import type { Gpu } from "./gpu.ts";
import { type Shape, ShapeError, sizeOf } from "./shape.ts";
import { empty, release, slice, type Tensor, toHost, writeHost } from "./tensor.ts";

/** One flat buffer of parameters, with its gradients when they are trained. */
export interface ParameterBlock {
  /** `[elements]`. */
  readonly weight: Tensor;
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
}

interface Placement {
  readonly name: string;
  readonly shape: Shape;
  readonly offset: number;
}

/** Slices start on this many elements: the largest binding alignment there is. */
const ALIGNMENT = 64;

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
  readonly #shards = new Map<string, readonly Tensor[]>();

  /** Only {@link createParameters} makes one. */
  constructor(
    readonly gpu: Gpu,
    /** Names and full shapes, in the order given. */
    readonly shapes: ReadonlyMap<string, Shape>,
    readonly blocks: readonly ParameterBlock[],
    shards: ReadonlyMap<string, readonly Tensor[]>,
  ) {
    for (const [name, tensors] of shards) this.#shards.set(name, tensors);
  }

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
    const shards = this.#shards.get(name);
    if (!shards) {
      throw new ReferenceError(`Cannot find parameter ${name}: the model has ${this.shapes.size} others`);
    }
    return shards;
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
   * Overwrites rows of a parameter.
   *
   * @param name the parameter
   * @param values whole rows, from `firstRow`
   * @throws {ShapeError} when they are not whole rows inside the parameter
   */
  write(name: string, values: Float32Array<ArrayBuffer>, firstRow = 0): void {
    const rowSize = sizeOf(this.shards(name)[0].shape.slice(1));
    const total = this.shards(name).reduce((rows, shard) => rows + (shard.shape[0] ?? 1), 0);
    if (values.length % rowSize !== 0 || firstRow + values.length / rowSize > total) {
      throw new ShapeError(
        `Cannot write ${name}: expected whole rows of ${rowSize} within ${total}, found ${values.length} values at ` +
          `row ${firstRow}`,
      );
    }
    let first = 0;
    for (const shard of this.shards(name)) {
      const rows = shard.shape[0] ?? 1;
      const from = Math.max(first, firstRow);
      const to = Math.min(first + rows, firstRow + values.length / rowSize);
      if (from < to) {
        const part = values.subarray((from - firstRow) * rowSize, (to - firstRow) * rowSize);
        writeHost(
          slice(shard, { shape: [to - from, ...shard.shape.slice(1)], offset: (from - first) * rowSize }),
          part,
        );
      }
      first += rows;
    }
  }

  /** Reads a whole parameter back, row-major. */
  async read(name: string): Promise<Float32Array<ArrayBuffer>> {
    const values = new Float32Array(sizeOf(this.shapes.get(name) ?? []));
    let offset = 0;
    for (const shard of this.shards(name)) {
      values.set(await toHost(shard), offset);
      offset += sizeOf(shard.shape);
    }
    return values;
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

  /** Copies all values from parameters of the same layout. */
  copyFrom(source: Parameters): void {
    if (source.blocks.length !== this.blocks.length) {
      throw new ShapeError(
        "Cannot copy parameters: expected the same layout, found another number of blocks",
      );
    }
    this.blocks.forEach((block, index) =>
      this.gpu.queue.copy(source.blocks[index].weight.range, block.weight.range)
    );
  }

  /** Gives all buffers back. */
  [Symbol.dispose](): void {
    for (const { weight, gradient } of this.blocks) {
      release(weight);
      if (gradient) release(gradient);
    }
  }
}

/**
 * Lays parameters out in flat buffers, contents zero.
 *
 * @param gpu the device
 * @param shapes names to shapes; tensors that decay come first in each buffer
 * @param options whether they are trained, and which decay
 * @returns the parameters; dispose them when done
 * @throws {MemoryBudgetError} when they do not fit the budget
 * @throws {RangeError} when a single row is larger than a binding
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
  const decays = options.decays ?? ((_name, shape) => shape.length >= 2);
  const maxElements = Math.floor(gpu.maxBindingBytes / 4 / ALIGNMENT) * ALIGNMENT;
  const pieces = [...shapes].flatMap(([name, shape]) => cut(name, shape, maxElements));
  const ordered = [
    ...pieces.filter((piece) => decays(piece.name, piece.shape)),
    ...pieces.filter((piece) => !decays(piece.name, piece.shape)),
  ];
  const blocks: ParameterBlock[] = [];
  const shards = new Map<string, Tensor[]>([...shapes.keys()].map((name) => [name, []]));
  for (const placements of fill(ordered, maxElements)) {
    const block = allocateBlock(gpu, placements, { trainable: options.trainable, decays });
    blocks.push(block);
    for (const { name, shape, offset } of placements) {
      const grad = block.gradient && slice(block.gradient, { shape, offset });
      shards.get(name)!.push({
        ...slice(block.weight, { shape, offset }),
        requiresGrad: options.trainable,
        ...(grad ? { grad } : {}),
      });
    }
  }
  return new Parameters(gpu, shapes, blocks, shards);
}

/** Cuts a parameter into row shards that fit one binding. */
function cut(name: string, shape: Shape, maxElements: number): { name: string; shape: Shape }[] {
  const size = sizeOf(shape);
  if (size <= maxElements) return [{ name, shape }];
  const rowSize = sizeOf(shape.slice(1));
  // Shards start at multiples of 64 rows, which keeps slabs of the language-model head aligned.
  const rows = Math.floor(maxElements / rowSize / 64) * 64;
  if (rows === 0) {
    throw new RangeError(
      `Cannot place ${name}: expected 64 rows of ${rowSize} in one binding, found too large a row`,
    );
  }
  return Array.from({ length: Math.ceil(shape[0] / rows) }, (_, index) => ({
    name,
    shape: [Math.min(rows, shape[0] - index * rows), ...shape.slice(1)],
  }));
}

/** Packs pieces into blocks in order, each piece aligned. */
function fill(pieces: readonly { name: string; shape: Shape }[], maxElements: number): Placement[][] {
  const blocks: Placement[][] = [];
  let offset = Infinity;
  for (const { name, shape } of pieces) {
    const size = Math.ceil(sizeOf(shape) / ALIGNMENT) * ALIGNMENT;
    if (offset + size > maxElements) {
      blocks.push([]);
      offset = 0;
    }
    blocks[blocks.length - 1].push({ name, shape, offset });
    offset += size;
  }
  return blocks;
}

function allocateBlock(
  gpu: Gpu,
  placements: readonly Placement[],
  options: { trainable: boolean; decays: (name: string, shape: Shape) => boolean },
): ParameterBlock {
  const end = (placement: Placement) =>
    placement.offset + Math.ceil(sizeOf(placement.shape) / ALIGNMENT) * ALIGNMENT;
  const elements = end(placements[placements.length - 1]);
  const decaying = placements.filter((placement) => options.decays(placement.name, placement.shape));
  const decayElements = decaying.length === 0 ? 0 : end(decaying[decaying.length - 1]);
  const allocate = (category: "parameters" | "gradients") => {
    const tensor = empty(gpu, [elements], { label: category, category, owner: "caller" });
    gpu.queue.clear(tensor.range);
    return tensor;
  };
  const weight = allocate("parameters");
  return options.trainable
    ? { weight, gradient: allocate("gradients"), decayElements }
    : { weight, decayElements };
}
