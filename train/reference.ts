/**
 * Log-probs of the reference, computed once before training.
 * @module
 */
import { hostHeadEnds } from "../engine/ops/sequence_logps.ts";
import { release, toHost, upload } from "../engine/tensor.ts";
import { packSequences } from "./data/batch.ts";
import type { EncodedCompletion, EncodedPair } from "./data/encode.ts";
import { detachedSequenceSums } from "./live_reference.ts";
import { pairHeads } from "./losses/length_desensitization.ts";
import { uploadBatch } from "./models/batch_tensors.ts";
import type { Model } from "./models/model.ts";

/** A number for each side of P pairs. */
export interface SideLogps {
  /** `[P]`, in nats. */
  readonly chosen: Float32Array;
  /** `[P]`, in nats. */
  readonly rejected: Float32Array;
}

/** Summed completion log-probs of every pair. */
export interface ReferenceLogps extends SideLogps {
  /** The same with tokens past the pair's shorter answer counting `ldAlpha`, where that was asked for (LD-DPO). */
  readonly desensitized?: SideLogps & { readonly ldAlpha: number };
}

/** How to compute them. */
export interface ReferenceOptions {
  /** Tokens per forward pass. */
  readonly maxTokens?: number;
  /** Told how many of how many sequences are done. */
  readonly onProgress?: (done: number, total: number) => void;
  /** What tokens past the pair's shorter answer count, for sums under it beside the plain ones (LD-DPO). */
  readonly ldAlpha?: number;
}

/**
 * The reference's log-probs that the data brought.
 *
 * @param pairs all with them, or none
 * @returns those, or nothing
 */
export function givenReference(pairs: readonly EncodedPair[]): ReferenceLogps | undefined {
  if (pairs[0]?.referenceChosen === undefined) return undefined;
  return {
    chosen: Float32Array.from(pairs, ({ referenceChosen }) => referenceChosen!),
    rejected: Float32Array.from(pairs, ({ referenceRejected }) => referenceRejected!),
  };
}

/**
 * The model's summed log-probs of both sides of every pair.
 *
 * @param model the reference, as it is now
 * @param pairs the data
 * @param options tokens per forward pass, who is told of progress, whether under `ldAlpha` too
 * @returns `[P]` of each side, in nats, under `ldAlpha` too where that is given
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
 * const source = { file: "example" };
 * const chosen = { promptIds: [1, 2], completionIds: [3], source };
 * const rejected = { promptIds: [1, 2], completionIds: [4, 5], source };
 * const pairs = [{ chosen, rejected, source }];
 * const reference = await referenceLogps(model, pairs);
 * assert(Math.abs(reference.chosen[0] + Math.log(8)) < 1e-5);
 * assert(Math.abs(reference.rejected[0] + 2 * Math.log(8)) < 1e-5);
 * ```
 */
export async function referenceLogps(
  model: Model,
  pairs: readonly EncodedPair[],
  options: ReferenceOptions = {},
): Promise<ReferenceLogps> {
  const { ldAlpha } = options;
  const sequences = [...pairs.map((pair) => pair.chosen), ...pairs.map((pair) => pair.rejected)];
  const heads = pairHeads(sequences.map(({ completionIds }) => completionIds.length));
  const tails = ldAlpha === undefined ? undefined : { heads, weight: ldAlpha };
  const { plain, weighted } = await completionSums(model, sequences, { ...options, tails });
  return {
    ...sidesOf(plain),
    ...(ldAlpha === undefined ? {} : { desensitized: { ldAlpha, ...sidesOf(weighted) } }),
  };
}

/**
 * The model's summed log-prob of each completion given its prompt, in batches of a bounded number of tokens.
 *
 * @param model as it is now
 * @param sequences `[S]`
 * @param options tokens per forward pass, and who is told of progress
 * @returns `[S]`, in nats
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
 * const sequence = { promptIds: [1, 2], completionIds: [3, 4, 5], source: { file: "example" } };
 * const [logp] = await completionLogps(model, [sequence]);
 * assert(Math.abs(logp + 3 * Math.log(8)) < 1e-5);
 * ```
 */
export async function completionLogps(
  model: Model,
  sequences: readonly EncodedCompletion[],
  options: Omit<ReferenceOptions, "ldAlpha"> = {},
): Promise<Float32Array<ArrayBuffer>> {
  return (await completionSums(model, sequences, options)).plain;
}

/** How sequences are scored. */
interface ScoringOptions extends Pick<ReferenceOptions, "maxTokens" | "onProgress"> {
  /** Tokens of each sequence, `[S]`, that count in full, and what the rest counts; all by default. */
  readonly tails?: { readonly heads: readonly number[]; readonly weight: number };
}

/** Both sums of every sequence, `[S]` each; without tails they are the same. */
async function completionSums(
  model: Model,
  sequences: readonly EncodedCompletion[],
  options: ScoringOptions,
): Promise<Record<"plain" | "weighted", Float32Array<ArrayBuffer>>> {
  const plain = new Float32Array(sequences.length);
  const weighted = options.tails ? new Float32Array(sequences.length) : plain;
  const batches = batchesOf(sequences, options.maxTokens ?? 4096);
  const size = (batch: readonly EncodedCompletion[], of: (s: EncodedCompletion) => number) =>
    batch.reduce((total, sequence) => total + of(sequence), 0);
  const capacity = {
    tokens: Math.max(
      ...batches.map((batch) => size(batch, (s) => s.promptIds.length + s.completionIds.length)),
    ),
    labels: Math.max(...batches.map((batch) => size(batch, (s) => s.completionIds.length))),
  };
  let done = 0;
  for (const batch of model.gpu.isPlanning ? oneOfEachLength(batches) : batches) {
    const packed = packSequences(batch);
    const tails = options.tails && {
      headEnds: upload(
        model.gpu,
        hostHeadEnds(packed.completionLengths, options.tails.heads.slice(done, done + batch.length)),
        { capacity: capacity.labels },
      ),
      weight: options.tails.weight,
    };
    const sums = detachedSequenceSums(model, uploadBatch(model, packed, capacity), tails);
    plain.set(await toHost(sums.plain), done);
    if (tails) weighted.set(await toHost(sums.weighted), done);
    new Set([sums.plain, sums.weighted]).forEach(release);
    done += batch.length;
    options.onProgress?.(done, sequences.length);
  }
  return { plain, weighted };
}

/** Consecutive sequences of at most so many tokens; a longer one goes alone. */
function batchesOf(sequences: readonly EncodedCompletion[], maxTokens: number): EncodedCompletion[][] {
  const batches: EncodedCompletion[][] = [];
  let tokens = Infinity;
  for (const sequence of sequences) {
    const length = sequence.promptIds.length + sequence.completionIds.length;
    if (tokens + length > maxTokens) {
      batches.push([]);
      tokens = 0;
    }
    batches[batches.length - 1].push(sequence);
    tokens += length;
  }
  return batches;
}

/** What takes the memory that all take: the rest of their shapes is the same for all. */
function oneOfEachLength(batches: readonly EncodedCompletion[][]): EncodedCompletion[][] {
  return [...new Map(batches.map((batch) => [batch.length, batch])).values()];
}

/** The sides of `[2 P]` sums, the chosen ones first. */
export function sidesOf(sums: Float32Array): SideLogps {
  return { chosen: sums.subarray(0, sums.length / 2), rejected: sums.subarray(sums.length / 2) };
}
