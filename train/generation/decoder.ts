/**
 * A model with a key/value cache on the GPU: takes prompts in, then a token a sequence and step.
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import { GraphCache } from "../../engine/graph.ts";
import { createInputs, type Inputs } from "../../engine/inputs.ts";
import { argmax } from "../../engine/ops/argmax.ts";
import { gatherRows, rowIndex } from "../../engine/ops/gather_rows.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { sequenceBounds } from "../../engine/ops/sequence_bounds.ts";
import type { BufferRange } from "../../engine/queue.ts";
import { noGrad } from "../../engine/tape.ts";
import { empty, release, scope, type Tensor, upload } from "../../engine/tensor.ts";
import type { Model } from "../models/model.ts";
import { type CacheSize, createKeyValueCache, type KeyValueCache } from "./cache.ts";
import { cachedHiddenStates, type CachedTokens } from "./forward.ts";
import { commonPrefix, cutSegments, packSegments, type Segment } from "./segments.ts";

/** What is read back for a sequence: the most probable id, or all logits. */
export type Reading = "ids" | "logits";

/** A sequence whose cache is to hold `ids`. */
export interface PrefillRequest {
  /** Its place in the cache. */
  readonly slot: number;
  /** All of its tokens, at least one. */
  readonly ids: readonly number[];
  /** Whether what the slot holds already is kept as far as it is the same. */
  readonly reuse?: boolean;
}

/** A sequence that goes on with a token. */
export interface DecodeRow {
  /** Its place in the cache. */
  readonly slot: number;
  /** The token to take in. */
  readonly id: number;
}

/** Steps that one wait for the device can serve, at most. */
export const MAX_BURST = 16;
/** Tokens that are taken in together, by default. */
const PREFILL_TOKENS = 512;
/** Steps that see up to so many tokens share a graph, and each further doubling of it has one more. */
const SHORTEST_LENGTH = 64;
/** Graphs kept: sequences leave and grow, and each pair of numbers has its own. */
const MAX_GRAPHS = 24;
const PADDING_SLOT = 0xffffffff;

/**
 * Sequences of a model, token by token. Make with {@link createDecoder}; dispose when done.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { createModel } from "../models/model.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * using decoder = createDecoder(model, { sequences: 2, positions: 16 });
 * assert.deepEqual(await decoder.prefill([{ slot: 0, ids: [1, 2, 3] }]), [0]);
 * assert.deepEqual(await decoder.step([{ slot: 0, id: 0 }], 2), [[0], [0]]);
 * assert.deepEqual(decoder.cached[0], [1, 2, 3, 0, 0]);
 * ```
 */
export class Decoder implements Disposable {
  /** For each slot, the tokens whose keys and values it holds. */
  readonly cached: number[][];
  /** Whether the most probable id is found on the GPU: where the head is in one piece. */
  readonly choosesIds: boolean;
  readonly #gpu: Gpu;
  readonly #cache: KeyValueCache;
  readonly #inputs: Inputs;
  readonly #graphs: GraphCache;
  readonly #stack: DisposableStack;
  readonly #lasting: Tensor[] = [];
  /** `[S]`: the ids that the next step takes in; a step leaves its own results there. */
  readonly #current: Tensor;
  /** `[MAX_BURST, S]` */
  readonly #history: Tensor;
  /** `[S, V]`, made when logits are first asked for. */
  #logits: Tensor | undefined;

  /** Only {@link createDecoder} makes one. */
  constructor(
    private readonly model: Model,
    private readonly size: CacheSize,
    private readonly options: { prefillTokens: number },
  ) {
    const { gpu } = model;
    using stack = new DisposableStack();
    this.#gpu = gpu;
    this.#cache = stack.use(createKeyValueCache(model, size));
    const { sequences } = size;
    this.cached = Array.from({ length: sequences }, () => []);
    this.choosesIds = this.#head.length === 1;
    stack.defer(() => this.#lasting.forEach(release));
    this.#current = this.#last([sequences], "u32");
    this.#history = this.#last([MAX_BURST, sequences], "u32");
    const arrays = { slots: new Uint32Array(sequences), positions: new Uint32Array(sequences) };
    this.#inputs = stack.use(createInputs(gpu, arrays));
    this.#graphs = stack.use(new GraphCache(gpu, { maxGraphs: MAX_GRAPHS }));
    this.#stack = stack.move();
  }

  /** Graphs recorded so far. */
  get recorded(): number {
    return this.#graphs.recorded;
  }

  /** Sequences and positions that there is room for. */
  get capacity(): CacheSize {
    return this.size;
  }

  /**
   * Takes sequences in and predicts the next token of each.
   *
   * @param requests at most as many as there are slots, of different slots
   * @returns for each request the most probable id
   * @throws {RangeError} when a sequence is empty or has no room, or an id is not of the vocabulary
   */
  async prefill(requests: readonly PrefillRequest[]): Promise<number[]> {
    this.#takeIn(requests, "ids");
    this.#gpu.queue.copy(this.#current.range, this.#history.range);
    return (await this.#readHistory(1, requests.length))[0];
  }

  /**
   * Takes sequences in and gives the logits of the next token of each.
   *
   * @param requests at most as many as there are slots, of different slots
   * @returns `[V]` for each request, views of one array
   * @throws {RangeError} as {@link prefill}
   */
  async prefillLogits(requests: readonly PrefillRequest[]): Promise<Float32Array[]> {
    this.#takeIn(requests, "logits");
    return await this.#readLogits(requests.length);
  }

  /**
   * Takes a token of each sequence in and predicts the next, several times over without a wait for the device: each step
   * takes in what the step before found most probable.
   *
   * @param rows sequences of different slots
   * @param steps 1 to {@link MAX_BURST}
   * @returns for each step the most probable id of each row
   */
  async step(rows: readonly DecodeRow[], steps = 1): Promise<number[][]> {
    const { sequences } = this.size;
    this.#start(rows);
    for (let step = 0; step < steps; step++) {
      this.#run(rows, step, "ids");
      const offsetBytes = this.#history.range.offsetBytes + step * sequences * 4;
      this.#gpu.queue.copy(this.#current.range, { ...this.#history.range, offsetBytes });
    }
    const ids = await this.#readHistory(steps, rows.length);
    rows.forEach(({ slot, id }, row) =>
      this.cached[slot].push(id, ...ids.slice(0, -1).map((found) => found[row]))
    );
    return ids;
  }

  /**
   * Takes a token of each sequence in and gives the logits of the next.
   *
   * @param rows sequences of different slots
   * @returns `[V]` for each row, views of one array
   */
  async stepLogits(rows: readonly DecodeRow[]): Promise<Float32Array[]> {
    this.#start(rows);
    this.#run(rows, 0, "logits");
    const logits = await this.#readLogits(rows.length);
    rows.forEach(({ slot, id }) => this.cached[slot].push(id));
    return logits;
  }

  /** Gives the cache, the graphs and their buffers back. */
  [Symbol.dispose](): void {
    this.#stack.dispose();
  }

  get #head(): readonly Tensor[] {
    return this.model.parameters.shards(this.model.architecture.head);
  }

  #last(shape: number[], type: "u32" | "f32"): Tensor {
    const tensor = empty(this.#gpu, shape, { type, owner: "caller", category: "buffers" });
    this.#lasting.push(tensor);
    return tensor;
  }

  #segmentsOf({ slot, ids, reuse }: PrefillRequest, row: number): Segment[] {
    if (ids.length === 0) throw new RangeError("Cannot decode: expected at least one token, found none");
    this.#expectRoom(ids.length);
    this.#expectIds(ids);
    const { prefillTokens } = this.options;
    const first = reuse ? Math.min(commonPrefix(this.cached[slot], ids), ids.length - 1) : 0;
    this.cached[slot] = [];
    return cutSegments({ slot, ids }, { row, first, limit: prefillTokens });
  }

  #takeIn(requests: readonly PrefillRequest[], reading: Reading): void {
    const segments = requests.flatMap((request, row) => this.#segmentsOf(request, row));
    for (const pack of packSegments(segments, this.options.prefillTokens)) {
      scope(this.#gpu, () => noGrad(this.#gpu, () => this.#prefillPack(pack, reading)));
      this.#gpu.queue.submit();
    }
    requests.forEach(({ slot, ids }) => this.cached[slot] = [...ids]);
  }

  #expectRoom(length: number): void {
    const { positions } = this.size;
    if (length <= positions) return;
    throw new RangeError(
      `Cannot decode: expected at most ${positions} tokens a sequence, as the cache was made for, found ${length}`,
    );
  }

  #expectIds(ids: readonly number[]): void {
    const { vocab } = this.model.architecture.dimensions;
    const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocab);
    if (bad < 0) return;
    throw new RangeError(`Cannot decode: expected ids below ${vocab}, found ${ids[bad]} at position ${bad}`);
  }

  #prefillPack(pack: readonly Segment[], reading: Reading): void {
    const gpu = this.#gpu;
    const ids = Uint32Array.from(pack.flatMap((segment) => segment.ids));
    // A power of two: packs of other lengths find the same buffers.
    const capacity = { capacity: 2 ** Math.ceil(Math.log2(ids.length)) };
    const each = (of: (segment: Segment, index: number) => number) =>
      Uint32Array.from(pack.flatMap((segment) => segment.ids.map((_, index) => of(segment, index))));
    const segmentOffsets = new Uint32Array(pack.length + 1);
    pack.forEach((segment, s) => segmentOffsets[s + 1] = segmentOffsets[s] + segment.ids.length);
    const hidden = cachedHiddenStates(this.model, this.#cache, {
      ids: upload(gpu, ids, capacity),
      slots: upload(gpu, each(({ slot }) => slot), capacity),
      positions: upload(gpu, each(({ position }, index) => position + index), capacity),
      length: Math.max(...pack.map((segment) => segment.position + segment.ids.length)),
      ...(pack.every(({ position }) => position === 0)
        ? { bounds: sequenceBounds(gpu, { segmentOffsets }, capacity) }
        : {}),
    });
    const ends = pack.flatMap(({ row }, s) =>
      row === undefined ? [] : [{ row, last: segmentOffsets[s + 1] - 1 }]
    );
    if (ends.length === 0) return;
    const picked = rowIndex(gpu, Uint32Array.from(ends, ({ last }) => last), { tokens: ids.length });
    this.#keep(gatherRows(hidden, picked), { first: ends[0].row, reading });
  }

  /** Brings the ids of a burst's first step. */
  #start(rows: readonly DecodeRow[]): void {
    const { queue } = this.#gpu;
    const { range } = this.#current;
    queue.copy(queue.upload(Uint32Array.from(rows, ({ id }) => id), this.size.sequences), range);
  }

  #run(rows: readonly DecodeRow[], step: number, reading: Reading): void {
    const count = Math.min(this.size.sequences, 2 ** Math.ceil(Math.log2(rows.length)));
    const slots = new Uint32Array(count).fill(PADDING_SLOT);
    const positions = new Uint32Array(count);
    rows.forEach(({ slot }, row) => {
      slots[row] = slot;
      positions[row] = this.cached[slot].length + step;
    });
    const longest = positions.reduce((most, position) => Math.max(most, position + 1), 0);
    this.#expectRoom(longest);
    const length = Math.min(
      this.size.positions,
      Math.max(SHORTEST_LENGTH, 2 ** Math.ceil(Math.log2(longest))),
    );
    const inputs = this.#inputs.write({ slots, positions });
    const ids = { ...this.#current, shape: [count] };
    this.#graphs.run(`${count} ${length} ${reading}`, () => {
      noGrad(this.#gpu, () => this.#recordStep({ ...inputs, ids, length }, reading));
    });
  }

  #recordStep(batch: CachedTokens, reading: Reading): void {
    scope(this.#gpu, () => {
      const hidden = cachedHiddenStates(this.model, this.#cache, batch);
      this.#keep(hidden, { first: 0, reading });
    });
  }

  /** Copies what was asked for to where it is read from: results of rows from `first` on. */
  #keep(hidden: Tensor, { first, reading }: { first: number; reading: Reading }): void {
    const { queue } = this.#gpu;
    const final = this.model.architecture.finalNorm(this.model, hidden);
    const logits = this.#head.map((shard) => matmul(final, shard, { kind: "NT", type: "f32" }));
    const [rows] = final.shape;
    if (reading === "ids") {
      return queue.copy(part(argmax(logits[0]), 0, rows), part(this.#current, first, rows));
    }
    const { sequences } = this.size;
    const { vocab } = this.model.architecture.dimensions;
    this.#logits ??= this.#last([sequences, vocab], "f32");
    if (logits.length === 1) {
      return queue.copy(part(logits[0], 0, rows * vocab), part(this.#logits, first * vocab, rows * vocab));
    }
    let column = 0;
    for (const shard of logits) {
      const [, width] = shard.shape;
      for (let row = 0; row < rows; row++) {
        const target = part(this.#logits, (first + row) * vocab + column, width);
        queue.copy(part(shard, row * width, width), target);
      }
      column += width;
    }
  }

  async #readHistory(steps: number, rows: number): Promise<number[][]> {
    const { sequences } = this.size;
    // All of it, however little is wanted: staging buffers are made for sizes.
    const ids = new Uint32Array(await this.#gpu.queue.read(this.#history.range));
    return Array.from(
      { length: steps },
      (_, step) => [...ids.subarray(step * sequences, step * sequences + rows)],
    );
  }

  async #readLogits(rows: number): Promise<Float32Array[]> {
    const { vocab } = this.model.architecture.dimensions;
    const values = new Float32Array(await this.#gpu.queue.read(part(this.#logits!, 0, rows * vocab)));
    return Array.from({ length: rows }, (_, row) => values.subarray(row * vocab, (row + 1) * vocab));
  }
}

/** A range of 32-bit elements. */
function part({ range }: Tensor, first: number, count: number): BufferRange {
  return { ...range, offsetBytes: range.offsetBytes + first * 4, sizeBytes: count * 4 };
}

/**
 * Makes room for sequences of a model.
 *
 * @param model the model
 * @param size sequences decoded together, tokens of the longest; and how many tokens are taken in together
 * @returns the decoder; dispose it when done
 * @throws {RangeError} when there are more positions than the model has
 * @throws {MemoryBudgetError} when the cache does not fit the budget
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../../engine/gpu.ts";
 * import { createModel } from "../models/model.ts";
 * import { parseModelConfig } from "../models/config.ts";
 * import { ensureAdapter } from "../software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * using decoder = createDecoder(model, { sequences: 1, positions: 16 });
 * const [logits] = await decoder.prefillLogits([{ slot: 0, ids: [1, 2] }]);
 * assert.equal(logits.length, 8);
 * // What the slot holds of a longer text is kept: only ids 4 and 5 are taken in.
 * await decoder.prefill([{ slot: 0, ids: [1, 2, 4, 5], reuse: true }]);
 * ```
 */
export function createDecoder(model: Model, size: CacheSize & { prefillTokens?: number }): Decoder {
  const { sequences, positions, prefillTokens = PREFILL_TOKENS } = size;
  return new Decoder(model, { sequences, positions }, { prefillTokens });
}
