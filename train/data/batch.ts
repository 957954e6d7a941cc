/**
 * Encoded texts laid end to end for the engine: no padding, so no work on tokens that do not count, and the prompt of a
 * pair once.
 * @module
 */
import type { EncodedCompletion, EncodedPair } from "./encoded.ts";

/** S sequences in G segments of N tokens together, one after the other; R of the tokens are completion tokens that are learnt. */
export interface PackedSequences {
  /** `[N]` token ids. */
  inputIds: Uint32Array;
  /** `[N]` position within the sequence, from 0. */
  positions: Uint32Array;
  /** `[G + 1]` where each segment starts; the last entry is N. */
  segmentOffsets: Uint32Array;
  /** `[G]` the segment that each continues: the shared prompt of a completion, or itself. */
  prefixSegments: Uint32Array;
  /** `[R]` for each completion token, sequence by sequence, the token before it, whose hidden state predicts it. */
  rows: Uint32Array;
  /** `[R]` the completion tokens' ids. */
  labels: Uint32Array;
  /** `[S]` completion tokens per sequence, of those that are learnt. */
  completionLengths: Uint32Array;
  /** `[P]` of pairs packed with `promptLabels`: further labels after those of the sequences, prompt by prompt. */
  promptLengths?: Uint32Array;
}

/** What a batch takes. */
export interface BatchSize {
  /** N. */
  readonly tokens: number;
  /** R. */
  readonly labels: number;
}

/** How pairs are packed. */
export interface PackPairsOptions {
  /** Whether a pair whose sides have the same prompt has it once; true by default. */
  readonly sharePrompts?: boolean;
  /** Whether the tokens of the chosen sides' prompts are labels too, all but the first, which nothing predicts. */
  readonly promptLabels?: boolean;
}

/** Tokens that follow each other. */
interface Segment {
  readonly ids: readonly number[];
  /** Position of the first. */
  readonly position: number;
  /** The segment that it continues: an index. */
  readonly prefix: number;
}

/** Where a sequence's completion lies. */
interface Sequence {
  readonly completionIds: readonly number[];
  /** Places in it of the tokens that are learnt. */
  readonly learnt: readonly number[];
  /** Token that predicts the first completion token, and the first completion token itself. */
  readonly promptEnd: number;
  readonly start: number;
  /** Its prompt, which ends at `promptEnd`. */
  readonly promptIds: readonly number[];
}

/**
 * Pack pairs: pair after pair in memory, with one prompt where both sides have the same. As sequences, all chosen come
 * in order, then all rejected, so that pair p is sequences p and P + p.
 *
 * @param pairs `[P]`
 * @param options whether prompts are shared
 * @returns 2 P sequences
 * @throws {RangeError} no pairs, or a sequence without prompt or completion tokens
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "a.jsonl", line: 1 };
 * const chosen = { promptIds: [1, 5], completionIds: [6, 2], source };
 * const rejected = { promptIds: [1, 5], completionIds: [7], source };
 * const packed = packPairs([{ chosen, rejected, source }]);
 * assert.deepEqual([...packed.inputIds], [1, 5, 6, 2, 7]);
 * assert.deepEqual([...packed.positions], [0, 1, 2, 3, 2]); // both completions follow the prompt
 * assert.deepEqual([...packed.rows], [1, 2, 1]); // token 1 predicts the first token of both
 * assert.deepEqual([...packed.labels], [6, 2, 7]);
 * ```
 */
export function packPairs(pairs: readonly EncodedPair[], options: PackPairsOptions = {}): PackedSequences {
  const layout = new Layout();
  const chosen: Sequence[] = [];
  const rejected: Sequence[] = [];
  for (const pair of pairs) {
    const shared = sharesPrompt(pair, options);
    if (shared) layout.prompt(pair.chosen.promptIds);
    chosen.push(layout.add(pair.chosen, { shared }));
    rejected.push(layout.add(pair.rejected, { shared }));
  }
  return layout.pack([...chosen, ...rejected], options.promptLabels ? chosen : undefined);
}

/**
 * What pairs take when packed.
 *
 * @param pairs `[P]`
 * @param options as for {@link packPairs}
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "a.jsonl", line: 1 };
 * const chosen = { promptIds: [1, 5], completionIds: [6, 2], source };
 * const rejected = { promptIds: [1, 5], completionIds: [7], source };
 * assert.deepEqual(pairsSize([{ chosen, rejected, source }]), { tokens: 5, labels: 3 });
 * ```
 */
export function pairsSize(pairs: readonly EncodedPair[], options: PackPairsOptions = {}): BatchSize {
  const both = completionsSize(pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]));
  const saved = pairs.filter((pair) => sharesPrompt(pair, options))
    .reduce((tokens, { chosen }) => tokens + chosen.promptIds.length, 0);
  const prompts = options.promptLabels
    ? pairs.reduce((labels, { chosen }) => labels + chosen.promptIds.length - 1, 0)
    : 0;
  return { tokens: both.tokens - saved, labels: both.labels + prompts };
}

/**
 * Pack completions in order, each with its prompt.
 *
 * @param completions `[S]`
 * @returns S sequences
 * @throws {RangeError} no completions, or one without prompt or completion tokens
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const source = { file: "a.jsonl", line: 1 };
 * const packed = packSequences([
 *   { promptIds: [1], completionIds: [5, 2], source },
 *   { promptIds: [1, 4], completionIds: [2], source },
 * ]);
 * assert.deepEqual([...packed.labels], [5, 2, 2]);
 * assert.deepEqual([...packed.rows], [0, 1, 4]); // the tokens before them
 * assert.deepEqual([...packed.segmentOffsets], [0, 3, 6]);
 * ```
 */
export function packSequences(completions: readonly EncodedCompletion[]): PackedSequences {
  const layout = new Layout();
  return layout.pack(completions.map((completion) => layout.add(completion, { shared: false })));
}

/**
 * What completions take when packed.
 *
 * @param completions `[S]`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const completion = { promptIds: [1, 4], completionIds: [2], source: { file: "a.jsonl" } };
 * assert.deepEqual(completionsSize([completion, completion]), { tokens: 6, labels: 2 });
 * ```
 */
export function completionsSize(completions: readonly EncodedCompletion[]): BatchSize {
  let [tokens, labels] = [0, 0];
  for (const { promptIds, completionIds, labelMask } of completions) {
    tokens += promptIds.length + completionIds.length;
    labels += labelMask ? labelMask.filter(Boolean).length : completionIds.length;
  }
  return { tokens, labels };
}

function sharesPrompt({ chosen, rejected }: EncodedPair, { sharePrompts = true }: PackPairsOptions): boolean {
  return sharePrompts && chosen.promptIds.length > 0 &&
    chosen.promptIds.length === rejected.promptIds.length &&
    chosen.promptIds.every((id, i) => id === rejected.promptIds[i]);
}

/** Labels and the tokens that predict them: of completions, then of prompts. */
function labelled(
  sequences: readonly Sequence[],
  prompted: readonly Sequence[],
): Pick<PackedSequences, "rows" | "labels"> {
  const completionRows = sequences.flatMap(({ learnt, promptEnd, start }) =>
    learnt.map((i) => (i === 0 ? promptEnd : start + i - 1))
  );
  const promptRows = prompted.flatMap(({ promptIds, promptEnd }) =>
    promptIds.slice(1).map((_, i) => promptEnd + 1 - promptIds.length + i)
  );
  const labels = [
    ...sequences.flatMap(({ completionIds, learnt }) => learnt.map((i) => completionIds[i])),
    ...prompted.flatMap(({ promptIds }) => promptIds.slice(1)),
  ];
  return { rows: Uint32Array.from([...completionRows, ...promptRows]), labels: Uint32Array.from(labels) };
}

/** Segments laid end to end. */
class Layout {
  readonly #segments: Segment[] = [];
  #tokens = 0;
  #sequences = 0;
  #prompt = { segment: 0, end: 0 };

  /** Lays a prompt that the completions after it share. */
  prompt(ids: readonly number[]): void {
    this.#prompt = { segment: this.#segments.length, end: this.#tokens + ids.length };
    this.#push({ ids, position: 0, prefix: this.#segments.length });
  }

  /** Lays a completion, behind its own prompt or as a continuation of the prompt laid last. */
  add(
    { promptIds, completionIds, labelMask }: EncodedCompletion,
    { shared }: { shared: boolean },
  ): Sequence {
    const learnt = [...completionIds.keys()].filter((i) => labelMask?.[i] ?? true);
    const sequence = this.#sequences++;
    // Without a prompt token nothing predicts the first completion token, and its log-prob would silently be lost.
    if (promptIds.length === 0 || completionIds.length === 0) {
      throw new RangeError(
        `Cannot pack a batch: expected prompt and completion tokens in sequence ${sequence}, ` +
          `found ${promptIds.length} and ${completionIds.length}`,
      );
    }
    if (shared) {
      const start = this.#tokens;
      this.#push({ ids: completionIds, position: promptIds.length, prefix: this.#prompt.segment });
      return { completionIds, learnt, promptEnd: this.#prompt.end - 1, start, promptIds };
    }
    const start = this.#tokens + promptIds.length;
    this.#push({ ids: [...promptIds, ...completionIds], position: 0, prefix: this.#segments.length });
    return { completionIds, learnt, promptEnd: start - 1, start, promptIds };
  }

  /** The batch, its sequences in this order; after their labels those of the prompts of `prompted`. */
  pack(sequences: readonly Sequence[], prompted?: readonly Sequence[]): PackedSequences {
    if (sequences.length === 0) throw new RangeError("Cannot pack a batch: expected sequences, found none");
    const segmentOffsets = new Uint32Array(this.#segments.length + 1);
    const inputIds = new Uint32Array(this.#tokens);
    const positions = new Uint32Array(this.#tokens);
    this.#segments.forEach(({ ids, position }, g) => {
      const start = segmentOffsets[g];
      inputIds.set(ids, start);
      for (let t = 0; t < ids.length; t++) positions[start + t] = position + t;
      segmentOffsets[g + 1] = start + ids.length;
    });
    return {
      inputIds,
      positions,
      segmentOffsets,
      prefixSegments: Uint32Array.from(this.#segments, ({ prefix }) => prefix),
      ...labelled(sequences, prompted ?? []),
      completionLengths: Uint32Array.from(sequences, ({ learnt }) => learnt.length),
      ...(prompted
        ? { promptLengths: Uint32Array.from(prompted, ({ promptIds }) => promptIds.length - 1) }
        : {}),
    };
  }

  #push(segment: Segment): void {
    this.#segments.push(segment);
    this.#tokens += segment.ids.length;
  }
}
