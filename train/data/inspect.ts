/**
 * What a data set is like before anything is trained on it: counts, repetitions, lengths.
 * @module
 */
import { createHash } from "node:crypto";
import { completionsSize, pairsSize } from "./batch.ts";
import type { DataFile, DataItems, DataKind, RecordLengths } from "./data_files.ts";
import type { EncodeCounts, EncodedCompletion, EncodedPair } from "./encoded.ts";
import { zeroCounts } from "./encode_counts.ts";
import { formatSource, type RecordSource } from "./errors.ts";
import { type MixturePart, samplesPerEpoch } from "./mixture.ts";

/** A list of numbers in short; percentiles are values of the list (nearest rank). */
export interface Distribution {
  readonly min: number;
  readonly median: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
  readonly mean: number;
}

/** What a file gives. */
export interface FileReport {
  readonly path: string;
  readonly form: string;
  /** Records of the file; of preferences read as labelled answers, answers. */
  readonly records: number;
  /** What of them is trained on. */
  readonly used: number;
  /** Of an epoch's items, 0 to 1: by weight, or as many as it has. */
  readonly share: number;
  /** Records left out as they were read, by reason. */
  readonly skipped: Readonly<Record<string, number>>;
}

/** Items that say the same, or the opposite. */
export interface Repetitions {
  /** Items that are the same tokens as one before. */
  readonly exact: number;
  /** Different prompts. */
  readonly prompts: number;
  /** Items whose prompt one before has. */
  readonly samePrompt: number;
  /** Items whose verdict is also there the other way round: two answers in both orders, one answer with both labels. */
  readonly contradictory: number;
}

/** How lengths differ between the good and the bad side, in tokens of the answer. */
export interface LengthBias {
  /** Share of pairs whose chosen answer is the longer one, and the shorter one; of labelled answers none. */
  readonly longer?: number;
  readonly shorter?: number;
  /** Mean of chosen less rejected, or mean of the desirable less mean of the undesirable. */
  readonly meanDifference: number;
}

/** A data set in short. */
export interface DataReport {
  readonly kind: DataKind;
  readonly maxLength: number;
  readonly files: readonly FileReport[];
  /** Records of all files. */
  readonly records: number;
  /** Items to train on. */
  readonly used: number;
  /** Good ones of labelled answers. */
  readonly desirable?: number;
  /** Records left out as they were read, by reason. */
  readonly skipped: Readonly<Record<string, number>>;
  /** What became of the others. */
  readonly counts: EncodeCounts;
  readonly repetitions: Repetitions;
  /** Where the first record of a reason for `skipped`, or of a count of `repetitions`, stands. */
  readonly first: Readonly<Record<string, string>>;
  /** Tokens of the texts before any is cut, by part. */
  readonly lengths: Readonly<Record<string, Distribution>>;
  /** Texts longer than the max length, of all texts. */
  readonly overMaxLength: { readonly texts: number; readonly share: number };
  readonly lengthBias?: LengthBias;
  /** Tokens of an epoch, every item once. */
  readonly tokens: {
    /** As each text has its own prompt. */
    readonly separate: number;
    /** As pairs have a common prompt once. */
    readonly packed: number;
    /** Of them learnt. */
    readonly labels: number;
  };
}

/**
 * Describe files that are trained on together.
 *
 * @param kind what they were read as
 * @param files as read, with records that are too long left out
 * @param options.maxLength of the run
 * @param options.parts the files' weights, where they have any
 * @returns counts, repetitions and lengths
 * @throws {DataError} a weight so small that an epoch has no item of its file
 */
export function inspectData<Kind extends DataKind>(
  kind: Kind,
  files: readonly DataFile<DataItems[Kind]>[],
  options: { maxLength: number; parts?: readonly MixturePart[] },
): DataReport {
  const items = files.flatMap((file) => [...file.items]);
  const lengths = files.flatMap((file) => [...file.lengths]);
  const reports = fileReports(files, options.parts);
  const texts = lengths.flatMap((record) => record.texts);
  const over = texts.filter(({ prompt, completion }) => prompt + completion > options.maxLength).length;
  const desirable = items.filter((item) => "desirable" in item && item.desirable).length;
  const bias = lengthBias(kind, lengths);
  const { repetitions, first } = findRepetitions(items);
  return {
    ...{ kind, maxLength: options.maxLength, files: reports },
    records: sum(reports.map(({ records }) => records)),
    used: items.length,
    ...(kind === "labelled" ? { desirable } : {}),
    skipped: addUp(files.map(({ skipped }) => skipped)),
    counts: { ...zeroCounts(), ...addUp(files.map(({ counts }) => ({ ...counts }))) },
    repetitions,
    first: placesOf([...files.map(({ firstSkipped }) => firstSkipped), first]),
    lengths: lengthsOf(kind, lengths),
    overMaxLength: { texts: over, share: over / Math.max(1, texts.length) },
    ...(bias ? { lengthBias: bias } : {}),
    tokens: tokensOf(items),
  };
}

function fileReports(
  files: readonly DataFile<DataItems[DataKind]>[],
  parts: readonly MixturePart[] | undefined,
): FileReport[] {
  const total = sum(files.map(({ items }) => items.length));
  const shares = parts ? samplesPerEpoch(parts, total) : files.map(({ items }) => items.length);
  return files.map(({ path, form, items, skipped, counts }, index) => {
    const { droppedOverlong, droppedEmpty, droppedIdentical } = counts;
    const dropped = sum(Object.values(skipped)) + droppedOverlong + droppedEmpty + droppedIdentical;
    return {
      ...{ path, form, skipped, used: items.length, share: shares[index] / total },
      records: items.length + dropped,
    };
  });
}

/** Tokens of a text as a key: equal keys, equal tokens. */
function keyOf(...lists: readonly (readonly number[])[]): string {
  const hash = createHash("sha256");
  for (const ids of lists) hash.update(Uint32Array.from([ids.length, ...ids]));
  return hash.digest("base64");
}

/** An item's tokens, those of its opposite, and those of its prompt. */
function keysOf(item: DataItems[DataKind]): { own: string; opposite?: string; prompt: string } {
  if ("chosen" in item) {
    const [good, bad] = [whole(item.chosen), whole(item.rejected)];
    return { own: keyOf(good, bad), opposite: keyOf(bad, good), prompt: keyOf(item.chosen.promptIds) };
  }
  const prompt = keyOf(item.promptIds);
  if (!("desirable" in item)) return { own: keyOf(whole(item)), prompt };
  const labelled = (label: boolean) => keyOf(whole(item), [Number(label)]);
  return { own: labelled(item.desirable), opposite: labelled(!item.desirable), prompt };
}

function findRepetitions(
  items: readonly DataItems[DataKind][],
): { repetitions: Repetitions; first: Record<string, RecordSource> } {
  const keys = items.map(keysOf);
  const all = new Set(keys.map(({ own }) => own));
  const seen = { items: new Set<string>(), prompts: new Set<string>() };
  const counts = { exact: 0, samePrompt: 0, contradictory: 0 };
  const first: Record<string, RecordSource> = {};
  const count = (name: keyof typeof counts, isCounted: boolean, { source }: { source: RecordSource }) => {
    if (!isCounted) return;
    counts[name]++;
    first[name] ??= source;
  };
  keys.forEach(({ own, opposite, prompt }, index) => {
    count("exact", seen.items.has(own), items[index]);
    count("samePrompt", seen.prompts.has(prompt), items[index]);
    count("contradictory", opposite !== undefined && all.has(opposite), items[index]);
    seen.items.add(own);
    seen.prompts.add(prompt);
  });
  return { repetitions: { ...counts, prompts: seen.prompts.size }, first };
}

function placesOf(firsts: readonly Readonly<Record<string, RecordSource>>[]): Record<string, string> {
  // Of several files the first one's.
  const places = Object.assign({}, ...firsts.toReversed()) as Record<string, RecordSource>;
  return Object.fromEntries(Object.entries(places).map(([name, source]) => [name, formatSource(source)]));
}

/** Wherever its prompt ends: a merge across the boundary moves that, and the text is the same. */
function whole({ promptIds, completionIds }: EncodedCompletion): number[] {
  return [...promptIds, ...completionIds];
}

function lengthsOf(kind: DataKind, records: readonly RecordLengths[]): Record<string, Distribution> {
  const of = (side: number) => records.map(({ texts }) => texts[side]);
  if (kind === "pairs") {
    return {
      prompt: distribution(of(0).map(({ prompt }) => prompt)),
      chosen: distribution(of(0).map(({ completion }) => completion)),
      rejected: distribution(of(1).map(({ completion }) => completion)),
    };
  }
  const completions = (records: readonly RecordLengths[]) =>
    distribution(records.map(({ texts: [{ completion }] }) => completion));
  return {
    prompt: distribution(of(0).map(({ prompt }) => prompt)),
    ...(kind === "completions" ? { completion: completions(records) } : {
      desirable: completions(records.filter(({ desirable }) => desirable)),
      undesirable: completions(records.filter(({ desirable }) => !desirable)),
    }),
  };
}

/**
 * A list of numbers in short.
 *
 * @param values at least one, else all is 0
 */
export function distribution(values: readonly number[]): Distribution {
  const sorted = values.toSorted((a, b) => a - b);
  const rank = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return {
    ...{ min: rank(0), median: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: rank(1) },
    mean: sum(sorted) / Math.max(1, sorted.length),
  };
}

function lengthBias(kind: DataKind, records: readonly RecordLengths[]): LengthBias | undefined {
  if (kind === "completions" || records.length === 0) return undefined;
  if (kind === "labelled") {
    const mean = (isGood: boolean) =>
      distribution(
        records.flatMap(({ texts: [{ completion }], desirable }) => desirable === isGood ? [completion] : []),
      ).mean;
    return { meanDifference: mean(true) - mean(false) };
  }
  const differences = records.map(({ texts: [chosen, rejected] }) => chosen.completion - rejected.completion);
  const share = (isCounted: (difference: number) => boolean) =>
    differences.filter(isCounted).length / differences.length;
  return {
    longer: share((difference) => difference > 0),
    shorter: share((difference) => difference < 0),
    meanDifference: sum(differences) / differences.length,
  };
}

function tokensOf(items: readonly DataItems[DataKind][]): DataReport["tokens"] {
  const pairs = items.filter((item): item is EncodedPair => "chosen" in item);
  const others = items.filter((item): item is EncodedCompletion => !("chosen" in item));
  const [separate, packed, rest] = [
    pairsSize(pairs, { sharePrompts: false }),
    pairsSize(pairs),
    completionsSize(others),
  ];
  return {
    separate: separate.tokens + rest.tokens,
    packed: packed.tokens + rest.tokens,
    labels: packed.labels + rest.labels,
  };
}

function addUp(counts: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const [name, count] of counts.flatMap(Object.entries<number>)) {
    total[name] = (total[name] ?? 0) + count;
  }
  return total;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
