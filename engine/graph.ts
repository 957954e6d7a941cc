/**
 * Work that is recorded once and replayed: no op runs again, no buffer or bind group is made; only the contents of
 * its inputs and the scalars given as functions change.
 * @module
 */
import { type Allocation, BufferArena } from "./buffers.ts";
import { Scope } from "./scope.ts";
import type { Gpu } from "./gpu.ts";
import {
  type BufferRange,
  type CommandRecorder,
  type EncodedDispatch,
  type ResolvedDispatch,
  type Scalar,
  writeParams,
} from "./queue.ts";
import type { Tensor } from "./tensor.ts";

type Recorded =
  | { readonly kind: "dispatch"; readonly dispatch: ResolvedDispatch }
  | { readonly kind: "copy"; readonly source: BufferRange; readonly target: BufferRange }
  | { readonly kind: "clear"; readonly range: BufferRange };

/** A recorded command whose dispatch knows where its uniform block lies. */
type Placed = Exclude<Recorded, { kind: "dispatch" }> | {
  readonly kind: "dispatch";
  readonly dispatch: ResolvedDispatch;
  readonly offsets: number[];
};

type Command = Exclude<Recorded, { kind: "dispatch" }> | {
  readonly kind: "dispatch";
  readonly dispatch: EncodedDispatch;
};

/** A uniform block whose numbers are asked for at each replay. */
interface LiveBlock {
  readonly dispatch: ResolvedDispatch;
  readonly view: DataView;
}

/** What a body may return: tensors that stay readable between replays. */
export type GraphResult = Tensor | readonly Tensor[] | void;

/** Notes commands, and every buffer that they name. */
class Recorder implements CommandRecorder {
  readonly recorded: Recorded[] = [];
  readonly allocations = new Set<Allocation>();

  dispatch(dispatch: ResolvedDispatch): void {
    for (const range of dispatch.ranges) this.#hold(range, dispatch.pipeline.name);
    this.recorded.push({ kind: "dispatch", dispatch });
  }

  copy(source: BufferRange, target: BufferRange): void {
    this.#hold(source, "a copy");
    this.#hold(target, "a copy");
    this.recorded.push({ kind: "copy", source, target });
  }

  clear(range: BufferRange): void {
    this.#hold(range, "a clear");
    this.recorded.push({ kind: "clear", range });
  }

  #hold({ allocation, epoch }: BufferRange, action: string): void {
    if (epoch !== undefined) {
      throw new Error(
        `Cannot record ${action}: expected buffers that last, found one uploaded for one submit`,
      );
    }
    this.allocations.add(allocation);
  }
}

/**
 * Recorded work. Make with {@link recordGraph}; dispose when done. It holds every buffer that it names, so none of them
 * can be handed out to others behind its back.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { activation, fromHost, openGpu, release, toHost, writeHost } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(0), { shape: [1] });
 * {
 *   using graph = recordGraph(gpu, () => activation(x, { kind: "silu" }));
 *   release(x); // the graph still holds it
 *   writeHost(x, Float32Array.of(100));
 *   graph.replay();
 *   assert.deepEqual([...await toHost(graph.result)], [100]);
 * }
 * assert.equal(gpu.stats().memory.usedBytes, 0);
 * ```
 */
export class Graph<Result extends GraphResult = GraphResult> implements Disposable {
  /** Words of the live blocks as the device has them, and as they are now. */
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #sent: Uint32Array;
  #commands: readonly Command[] = [];
  /** Of the textures that the commands' bind groups name. */
  #generation = -1;
  /** The submit that the last replay belongs to. */
  #epoch = -1;
  #open = true;

  /** Only {@link recordGraph} makes one. */
  constructor(
    private readonly gpu: Gpu,
    /** What the body returned: overwritten by each replay. */
    readonly result: Result,
    private readonly parts: {
      placed: readonly Placed[];
      uniforms: Allocation;
      live: readonly LiveBlock[];
      words: Uint32Array<ArrayBuffer>;
      dispose: () => void;
    },
  ) {
    this.#words = parts.words;
    this.#sent = parts.words.slice();
    this.#bind();
  }

  /**
   * Encodes the work again, with the scalars' values now and what its inputs hold when it runs. Sends what was encoded
   * before first, when this graph is part of it with other scalars.
   *
   * @throws {Error} when it was disposed, or another graph is being recorded
   */
  replay(): void {
    const { gpu, parts } = this;
    if (!this.#open) throw new Error("Cannot replay a graph: expected an open one, found it disposed");
    if (gpu.queue.recorder) {
      throw new Error("Cannot replay a graph: expected none to be recorded at the same time");
    }
    for (const { dispatch, view } of parts.live) writeParams(dispatch.pipeline, dispatch.params, view);
    if (this.#words.some((word, index) => word !== this.#sent[index])) {
      if (this.#epoch === gpu.queue.epoch) gpu.queue.submit();
      gpu.device.queue.writeBuffer(parts.uniforms.buffer, 0, this.#words);
      this.#sent.set(this.#words);
    }
    this.#epoch = gpu.queue.epoch;
    if (this.#generation !== gpu.queue.texelGeneration) this.#bind();
    for (const command of this.#commands) {
      if (command.kind === "dispatch") gpu.queue.encode(command.dispatch);
      else if (command.kind === "copy") gpu.queue.copy(command.source, command.target);
      else gpu.queue.clear(command.range);
    }
  }

  /** A graph that does nothing, and takes what this one does not share with the others of its arena. */
  emptyCopy(): Graph {
    const { gpu } = this;
    const uniforms = createUniforms(gpu, this.parts.uniforms.sizeBytes);
    const dispose = () => gpu.buffers.destroyFixed(uniforms);
    return new Graph(gpu, undefined, { placed: [], uniforms, live: [], words: new Uint32Array(0), dispose });
  }

  /** Gives its buffers back. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    this.parts.dispose();
  }

  /** Makes the bind groups, once all textures that they name are as large as they must be. */
  #bind(): void {
    const { gpu: { queue }, parts: { placed, uniforms } } = this;
    for (const one of placed) if (one.kind === "dispatch") queue.reserveTexels(one.dispatch);
    const groups = new Map<string, GPUBindGroup>();
    this.#commands = placed.map((one): Command => {
      if (one.kind !== "dispatch") return one;
      const group = queue.bindGroup(one.dispatch, uniforms, groups);
      return { kind: "dispatch", dispatch: { ...one.dispatch, offsets: one.offsets, group } };
    });
    this.#generation = queue.texelGeneration;
  }
}

/**
 * Records what `body` does, without running it. Its allocations come from an arena and are reused within the recording
 * as its scopes and tapes give them back, so that buffers are shared by lifetime.
 *
 * @param gpu the device
 * @param body synchronous; what changes between replays comes in through tensors that last and scalars that are functions
 * @param options.arena where its buffers come from, shared with graphs that run before or after this one; its own by default
 * @returns the graph, not run yet
 * @throws {Error} when the body uploads, submits or reads, or a graph or a tape is being recorded
 * @throws {MemoryBudgetError} when its buffers do not fit the budget
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fromHost, openGpu, scaledSum, toHost } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const x = fromHost(gpu, Float32Array.of(1, 2), { shape: [2] });
 * let scale = 0;
 * using graph = recordGraph(gpu, () => scaledSum(x, { scale: () => scale }));
 * for (scale of [2, 3]) {
 *   graph.replay();
 *   assert.deepEqual([...await toHost(graph.result)], [scale * 3]);
 * }
 * ```
 */
export function recordGraph<Result extends GraphResult>(
  gpu: Gpu,
  body: () => Result,
  options: { arena?: BufferArena } = {},
): Graph<Result> {
  if (gpu.queue.recorder || gpu.tape) {
    throw new Error("Cannot record a graph: expected no other graph or tape to be recording");
  }
  const arena = options.arena ?? new BufferArena(gpu.buffers);
  const undo: (() => void)[] = [];
  const dispose = () => {
    undo.forEach((step) => step());
    if (!options.arena) arena[Symbol.dispose]();
  };
  const recorder = new Recorder();
  const own = new Scope();
  gpu.pushScope(own);
  [gpu.queue.recorder, gpu.arena] = [recorder, arena];
  try {
    const result = body();
    for (const { range: { allocation } } of tensorsOf(result)) {
      if (own.disown(allocation)) undo.push(() => allocation.release());
    }
    // What the arena lends stays with it; what others own must stay theirs.
    for (const allocation of recorder.allocations) {
      if (allocation.home === arena) continue;
      allocation.retain();
      undo.push(() => allocation.release());
    }
    const parts = placeParams(gpu, recorder.recorded);
    undo.push(() => gpu.buffers.destroyFixed(parts.uniforms));
    return new Graph(gpu, result, { ...parts, dispose });
  } catch (error) {
    dispose();
    throw error;
  } finally {
    [gpu.queue.recorder, gpu.arena] = [null, null];
    gpu.popScope(own);
  }
}

function tensorsOf(result: GraphResult): readonly Tensor[] {
  return result === undefined ? [] : Array.isArray(result) ? result : [result as Tensor];
}

/** Lays out the uniform blocks in one buffer, those that change first. */
function placeParams(gpu: Gpu, recorded: readonly Recorded[]) {
  const dispatches = recorded.flatMap((one) => one.kind === "dispatch" ? [one.dispatch] : []);
  const ordered = [...dispatches.filter(isLive), ...dispatches.filter((dispatch) => !isLive(dispatch))];
  const alignment = gpu.device.limits.minUniformBufferOffsetAlignment;
  const offsets = new Map<ResolvedDispatch, number>();
  let sizeBytes = 0;
  for (const dispatch of ordered) {
    const offset = Math.ceil(sizeBytes / alignment) * alignment;
    offsets.set(dispatch, offset);
    sizeBytes = offset + dispatch.pipeline.paramsBytes;
  }
  const block = new ArrayBuffer(Math.max(16, sizeBytes));
  const viewOf = (dispatch: ResolvedDispatch) =>
    new DataView(block, offsets.get(dispatch), dispatch.pipeline.paramsBytes);
  for (const dispatch of ordered) writeParams(dispatch.pipeline, dispatch.params, viewOf(dispatch));
  const uniforms = createUniforms(gpu, block.byteLength);
  gpu.device.queue.writeBuffer(uniforms.buffer, 0, block);
  const placed = recorded.map((one): Placed =>
    one.kind === "dispatch" ? { ...one, offsets: [offsets.get(one.dispatch)!] } : one
  );
  const live = dispatches.filter(isLive).map((dispatch) => ({ dispatch, view: viewOf(dispatch) }));
  const liveBytes = live.reduce((end, { view }) => Math.max(end, view.byteOffset + view.byteLength), 0);
  return { placed, uniforms, live, words: new Uint32Array(block, 0, liveBytes / 4) };
}

function createUniforms(gpu: Gpu, sizeBytes: number): Allocation {
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  return gpu.buffers.createFixed(sizeBytes, usage, "graph parameters");
}

function isLive({ params }: ResolvedDispatch): boolean {
  return Object.values<Scalar>(params).some((scalar) => typeof scalar === "function");
}

/**
 * Graphs of work that comes in several shapes, one for each, in one arena: they run one after the other.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { createInputs, openGpu, scaledSum } from "./mod.ts";
 * import { ensureAdapter } from "../train/software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * using inputs = createInputs(gpu, { x: new Float32Array(3) });
 * using graphs = new GraphCache(gpu, { maxGraphs: 2 });
 * for (const values of [[1, 2], [1, 2, 3], [4, 5]]) {
 *   const { x } = inputs.write({ x: Float32Array.from(values) });
 *   graphs.run(`${values.length}`, () => void scaledSum(x, { scale: 1 }));
 * }
 * assert.equal(graphs.recorded, 2);
 * ```
 */
export class GraphCache implements Disposable {
  /** In the order of their last use. */
  readonly #graphs = new Map<string, Graph>();
  readonly #arena: BufferArena;
  #recorded = 0;

  /**
   * An empty cache.
   *
   * @param gpu the device
   * @param options.maxGraphs graphs to keep; the one that was not used for longest goes first
   * @param options.arena of graphs that run before or after these; its own by default
   */
  constructor(
    private readonly gpu: Gpu,
    private readonly options: { maxGraphs: number; arena?: BufferArena },
  ) {
    this.#arena = options.arena ?? new BufferArena(gpu.buffers);
  }

  /** Graphs recorded so far. */
  get recorded(): number {
    return this.#recorded;
  }

  /**
   * Encodes the work of `body`: records it where no graph of this key is kept, and replays the graph.
   *
   * @param key equal only for bodies that differ in nothing but the contents of tensors and scalars that are functions
   * @param body see {@link recordGraph}
   */
  run(key: string, body: () => void): void {
    const graph = this.#graphs.get(key) ?? this.#record(body);
    this.#graphs.delete(key);
    this.#graphs.set(key, graph);
    graph.replay();
  }

  /** Gives the graphs and their buffers back. */
  [Symbol.dispose](): void {
    for (const graph of this.#graphs.values()) graph[Symbol.dispose]();
    this.#graphs.clear();
    if (!this.options.arena) this.#arena[Symbol.dispose]();
  }

  #record(body: () => void): Graph {
    if (this.#graphs.size >= this.options.maxGraphs) {
      const [[oldest, graph]] = this.#graphs;
      graph[Symbol.dispose]();
      this.#graphs.delete(oldest);
    }
    this.#recorded++;
    // Graphs of other shapes differ in numbers alone: on a planning device one of them tells what all take.
    const [like] = this.gpu.isPlanning ? this.#graphs.values() : [];
    return like?.emptyCopy() ?? recordGraph(this.gpu, body, { arena: this.#arena });
  }
}
