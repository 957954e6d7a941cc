/**
 * Generation: continuations of prompts, decoded with a key/value cache.
 * @module
 */
import { checkSampling, chooseId, type SamplingOptions } from "./generation/sampling.ts";
import { cacheBytes } from "./generation/cache.ts";
import { createDecoder, type Decoder, MAX_BURST } from "./generation/decoder.ts";
import type { Model } from "./models/model.ts";
import { createRandom, deriveSeed, type Random } from "./random.ts";

/** How to generate. */
export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to add to each prompt. */
  readonly maxNewTokens: number;
  /** Of the draws; each sequence has its own, whatever is decoded beside it. 0 by default. */
  readonly seed?: number;
  /** Ids that end a sequence; kept in the result. None by default. */
  readonly stopIds?: readonly number[];
  /** Sequences that are decoded together; by default up to 256 and as many as fit half of the free memory. */
  readonly batchSize?: number;
  /** Stops after the next tokens; what is there by then is returned. */
  readonly signal?: AbortSignal;
  /** Told each token as it is known, in the order of its sequence. */
  readonly onToken?: (sequence: number, id: number) => void;
  /** Asked after each token, with all that the sequence has of them: whether it ends there. */
  readonly shouldStop?: (sequence: number, ids: readonly number[]) => boolean;
}

/** Sequences decoded together at most, where nothing was asked for. */
const MAX_BATCH = 256;
/** What a burst of steps may take, so that a stream flows and Ctrl-C is heard. */
const BURST_MS = 100;

/**
 * Continues prompts. Without a temperature each token is the most probable one, exactly as computing the whole sequence
 * again for each token would choose it.
 *
 * @param model the model
 * @param prompts token ids, at least one each
 * @param options when to stop, how to choose
 * @returns the continuations alone, in order
 * @throws {RangeError} when a prompt is empty, prompt and continuation pass the model's positions, or an option is out of
 *   range; before anything runs
 * @throws {MemoryBudgetError} when the keys and values of the sequences do not fit the budget; before anything runs
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const prompts = [[1, 2], [3]];
 * assert.deepEqual(await generate(model, prompts, { maxNewTokens: 2 }), [[0, 0], [0, 0]]);
 * assert.deepEqual(await generate(model, prompts, { maxNewTokens: 2, stopIds: [0] }), [[0], [0]]);
 * const drawn = await generate(model, prompts, { maxNewTokens: 8, temperature: 1, seed: 1 });
 * assert.deepEqual(await generate(model, prompts, { maxNewTokens: 8, temperature: 1, seed: 1, batchSize: 1 }), drawn);
 * ```
 */
export async function generate(
  model: Model,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
): Promise<number[][]> {
  const size = generationSize(model, prompts.map(({ length }) => length), options);
  if (prompts.length === 0 || options.maxNewTokens === 0) return prompts.map(() => []);
  using decoder = createDecoder(model, size);
  return await generateWith(decoder, prompts, options);
}

/**
 * Sequences and positions that a generation takes.
 *
 * @param model the model
 * @param lengths of the prompts
 * @param options when to stop, how to choose
 * @throws {RangeError} as {@link generate}
 */
export function generationSize(
  model: Pick<Model, "gpu" | "architecture" | "dtype" | "positions">,
  lengths: readonly number[],
  options: GenerateOptions,
): { sequences: number; positions: number } {
  const { maxNewTokens, batchSize } = options;
  checkGeneration(model, lengths, options);
  // The last token is not taken in.
  const positions = lengths.reduce((most, length) => Math.max(most, length + maxNewTokens - 1), 1);
  const sequences = Math.max(1, Math.min(lengths.length, batchSize ?? defaultBatch(model, positions)));
  return { sequences, positions };
}

/**
 * Checks a generation before its model is there.
 *
 * @param model how many positions it has
 * @param lengths of the prompts
 * @param options when to stop, how to choose
 * @throws {RangeError} as {@link generate}
 */
export function checkGeneration(
  model: Pick<Model, "positions">,
  lengths: readonly number[],
  options: Pick<GenerateOptions, "maxNewTokens" | "batchSize" | keyof SamplingOptions>,
): void {
  const { maxNewTokens, batchSize } = options;
  checkSampling(options);
  for (
    const [what, value, least] of [["new tokens", maxNewTokens, 0], ["sequences a batch", batchSize ?? 1, 1]]
  ) {
    if (!Number.isInteger(value) || value < least) {
      throw new RangeError(`Cannot generate: expected ${least} or more ${what}, found ${value}`);
    }
  }
  lengths.forEach((length, index) => {
    if (length === 0) {
      throw new RangeError(`Cannot generate: expected at least one token in prompt ${index}, found none`);
    }
    if (length + maxNewTokens > model.positions) throw tooLong(model, { length, index, maxNewTokens });
  });
}

function tooLong(
  { positions }: Pick<Model, "positions">,
  { length, index, maxNewTokens }: { length: number; index: number; maxNewTokens: number },
): RangeError {
  const left = positions - length;
  return new RangeError(
    `Cannot generate: expected at most ${positions} tokens, as the model has positions, found ${length} in prompt ` +
      `${index} and ${maxNewTokens} new ones (${
        left > 0 ? `${left} are left for new ones` : `the prompt alone is ${-left} too long for one`
      })`,
  );
}

/** As many sequences as fit a binding a layer, and half of the memory that is free. */
function defaultBatch(model: Pick<Model, "gpu" | "architecture" | "dtype">, positions: number): number {
  const { gpu, architecture: { dimensions: { layers } } } = model;
  const one = cacheBytes(model, { sequences: 1, positions });
  const free = (gpu.buffers.budgetBytes - gpu.stats().memory.usedBytes) / 2;
  const most = Math.min(free / one, gpu.maxBindingBytes / (one / layers));
  return Math.max(1, Math.min(MAX_BATCH, Math.floor(most)));
}

/** A sequence that is being continued. */
interface OpenSequence {
  readonly index: number;
  readonly slot: number;
  readonly ids: number[];
  readonly random: Random;
}

/**
 * {@link generate} with a decoder that is there, and stays.
 *
 * @param decoder with room for the longest prompt and its continuation
 * @param prompts token ids, at least one each
 * @param options as for {@link generate}; `batchSize` is the decoder's
 * @param options.reuse whether slots keep what they hold of a prompt: a conversation that goes on
 */
export async function generateWith(
  decoder: Decoder,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions & { reuse?: boolean },
): Promise<number[][]> {
  return await new Generation(decoder, prompts, options).run();
}

class Generation {
  readonly #results: number[][];
  readonly #free: number[];
  readonly #stopIds: ReadonlySet<number>;
  readonly #isGreedy: boolean;
  #open: OpenSequence[] = [];
  #next = 0;
  #burst = 1;

  constructor(
    private readonly decoder: Decoder,
    private readonly prompts: readonly (readonly number[])[],
    private readonly options: GenerateOptions & { reuse?: boolean },
  ) {
    this.#results = prompts.map(() => []);
    this.#free = Array.from({ length: decoder.capacity.sequences }, (_, slot) => slot);
    this.#stopIds = new Set(options.stopIds);
    const { temperature = 0, repetitionPenalty = 1 } = options;
    this.#isGreedy = decoder.choosesIds && temperature === 0 && repetitionPenalty === 1;
  }

  async run(): Promise<number[][]> {
    const { prompts, options: { signal } } = this;
    while (!signal?.aborted && (this.#open.length > 0 || this.#next < prompts.length)) {
      if (this.#next < prompts.length && this.#isRoomy()) await this.#admit();
      else await this.#advance();
    }
    return this.#results;
  }

  /** Prompts are taken in several at a time: one alone would stop the others for little. */
  #isRoomy(): boolean {
    const { sequences } = this.decoder.capacity;
    const left = this.prompts.length - this.#next;
    return this.#free.length >= Math.min(left, Math.max(1, Math.ceil(sequences / 4))) ||
      this.#open.length === 0;
  }

  async #admit(): Promise<void> {
    const { decoder, prompts, options: { seed = 0, reuse } } = this;
    const started: OpenSequence[] = [];
    while (this.#free.length > 0 && this.#next < prompts.length) {
      const index = this.#next++;
      const random = createRandom(deriveSeed(seed, "generate", index));
      started.push({ index, slot: this.#free.shift()!, ids: [...prompts[index]], random });
    }
    const requests = started.map(({ slot, ids }) => ({ slot, ids, reuse }));
    this.#open.push(...started);
    if (this.#isGreedy) this.#accept(started, await decoder.prefill(requests));
    else this.#choose(started, await decoder.prefillLogits(requests));
  }

  async #advance(): Promise<void> {
    const open = this.#open;
    const rows = open.map(({ slot, ids }) => ({ slot, id: ids.at(-1)! }));
    if (!this.#isGreedy) return this.#choose(open, await this.decoder.stepLogits(rows));
    const left = open.map(({ index }) => this.options.maxNewTokens - this.#results[index].length);
    const steps = Math.min(this.#burst, ...left);
    const start = performance.now();
    const found = await this.decoder.step(rows, steps);
    const stepMs = (performance.now() - start) / steps;
    this.#burst = Math.max(1, Math.min(MAX_BURST, this.#burst * 2, Math.floor(BURST_MS / stepMs)));
    // A sequence that ended has left the list, and what was computed past its end counts for nothing.
    found.forEach((ids) => this.#accept(open, ids));
  }

  #choose(sequences: readonly OpenSequence[], logits: readonly Float32Array[]): void {
    const chosen = sequences.map(({ ids, random }, row) => chooseId(logits[row], ids, this.options, random));
    this.#accept(sequences, chosen);
  }

  #accept(sequences: readonly OpenSequence[], chosen: readonly number[]): void {
    const ended = new Set<OpenSequence>();
    sequences.forEach((sequence, row) => {
      if (this.#open.includes(sequence) && this.#take(sequence, chosen[row])) ended.add(sequence);
    });
    if (ended.size === 0) return;
    this.#open = this.#open.filter((sequence) => !ended.has(sequence));
    for (const { slot } of ended) this.#free.push(slot);
  }

  /** @returns whether the sequence ends with this token */
  #take({ index, ids }: OpenSequence, id: number): boolean {
    const { onToken, shouldStop, maxNewTokens } = this.options;
    const result = this.#results[index];
    ids.push(id);
    result.push(id);
    onToken?.(index, id);
    const isLast = this.#stopIds.has(id) || result.length >= maxNewTokens;
    return (shouldStop?.(index, result) ?? false) || isLast;
  }
}
