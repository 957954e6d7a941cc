/**
 * Data files as items to train on: read and encoded, with everything that was changed or left out.
 * @module
 */
import { encodePairs } from "./encode.ts";
import { formatCounts } from "./encode_counts.ts";
import { encodeRecords } from "./encode_records.ts";
import type {
  EncodeCounts,
  EncodedCompletion,
  EncodedExample,
  EncodedPair,
  EncodeOptions,
  TextLength,
} from "./encoded.ts";
import { DataError, type RecordSource } from "./errors.ts";
import { readLabelled } from "./labelled_records.ts";
import { formatSkipped } from "./records.ts";
import { readPreferences } from "./preference_files.ts";
import { readCompletions } from "./sft_records.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What a file is read as. */
export type DataKind = "pairs" | "labelled" | "completions";

/** The item of each kind. */
export interface DataItems {
  /** Of preferences. */
  pairs: EncodedPair;
  /** Of answers that are good or bad each by itself. */
  labelled: EncodedExample;
  /** Of supervised data. */
  completions: EncodedCompletion;
}

/** How files are read and encoded. */
export interface DataFileOptions extends Omit<EncodeOptions, "tokenizer" | "onLengths"> {
  /** The model's. */
  readonly tokenizer: Tokenizer;
  /** Of preferences: the column of margins. */
  readonly marginColumn?: string;
  /** Of completions: learn every assistant's turn, and nothing else. */
  readonly assistantOnlyLoss?: boolean;
}

/** A file as it is trained on. */
export interface DataFile<Item> {
  readonly path: string;
  /** The form of its records. */
  readonly form: string;
  /** What is trained on, in the file's order. */
  readonly items: readonly Item[];
  /** Records left out as they were read, by reason; of preferences read as labelled answers, two each. */
  readonly skipped: Readonly<Record<string, number>>;
  /** For each of these reasons, the first record left out for it. */
  readonly firstSkipped: Readonly<Record<string, RecordSource>>;
  /** What became of the others. */
  readonly counts: EncodeCounts;
  /** Tokens of the texts of each record that was encoded, both of a pair, before any was cut. */
  readonly lengths: readonly RecordLengths[];
}

/** Tokens of a record's texts. */
export interface RecordLengths {
  /** Of one text, or of the chosen one and the rejected one. */
  readonly texts: readonly TextLength[];
  /** The verdict on a labelled answer. */
  readonly desirable?: boolean;
}

/**
 * Read and encode a file.
 *
 * @param path a file of any kind that `readRows` reads
 * @param kind what it is read as
 * @param options how
 * @returns its items and what became of its records
 * @throws {DataError} naming file, line and key
 */
export async function readDataFile<Kind extends DataKind>(
  path: string,
  kind: Kind,
  options: DataFileOptions,
): Promise<DataFile<DataItems[Kind]>> {
  const readers: { [Kind in DataKind]: () => Promise<DataFile<DataItems[Kind]>> } = {
    pairs: () => readPairs(path, options),
    labelled: () => readExamples(path, options),
    completions: () => readSupervised(path, options),
  };
  return await readers[kind]();
}

async function readPairs(path: string, options: DataFileOptions): Promise<DataFile<EncodedPair>> {
  const { marginColumn, assistantOnlyLoss: _, ...encoding } = options;
  const { records, form, skipped, firstSkipped } = await readPreferences(path, { marginColumn });
  const lengths: RecordLengths[] = [];
  const onLengths = (texts: readonly TextLength[]) => void lengths.push({ texts });
  const { pairs, counts } = encodePairs(records, { ...encoding, onLengths });
  return { path, form, items: pairs, skipped, firstSkipped, counts, lengths };
}

async function readExamples(path: string, options: DataFileOptions): Promise<DataFile<EncodedExample>> {
  const { marginColumn: _, assistantOnlyLoss: __, ...encoding } = options;
  const { records, form, skipped, firstSkipped } = await readLabelled(path);
  const lengths: RecordLengths[] = [];
  const onLengths = (texts: readonly TextLength[], index: number) =>
    void lengths.push({ texts, desirable: records[index].desirable });
  const { examples, counts } = encodeRecords(records, { ...encoding, onLengths });
  // Of preferences two answers each, like everything else that is counted here.
  const answers = form === "labelled" ? 1 : 2;
  const lost = Object.fromEntries(
    Object.entries(skipped).map(([reason, count]) => [reason, count * answers]),
  );
  return { path, form, items: examples, skipped: lost, firstSkipped, counts, lengths };
}

async function readSupervised(path: string, options: DataFileOptions): Promise<DataFile<EncodedCompletion>> {
  const { marginColumn: _, assistantOnlyLoss, ...encoding } = options;
  const { records, form, skipped, firstSkipped } = await readCompletions(path, {
    allTurns: assistantOnlyLoss,
  });
  const lengths: RecordLengths[] = [];
  const onLengths = (texts: readonly TextLength[]) => void lengths.push({ texts });
  const { examples, counts } = encodeRecords(records, {
    ...encoding,
    onLengths,
    assistantOnlyLoss,
  });
  return { path, form, items: examples, skipped, firstSkipped, counts, lengths };
}

/**
 * Names of files, joined by commas, each once.
 *
 * @param paths as the user gave them
 * @returns the files, in order
 * @throws {DataError} a file that is named twice, by whatever name
 */
export async function listFiles(paths: string): Promise<string[]> {
  const files = paths.split(",");
  const places = await Promise.all(files.map((path) => Deno.realPath(path).catch(() => path)));
  const again = places.findIndex((place, index) => places.indexOf(place) < index);
  if (again < 0) return files;
  throw new DataError(`Cannot use ${paths}: expected each file once, found ${files[again]} twice`);
}

/** What a pair may bring beside its texts. */
const COLUMNS = ["margin", "referenceChosen", "referenceRejected"] as const;

/**
 * Refuse files that do not go together: pairs of other columns than the first file's, or labelled answers of one label.
 *
 * @param files as read, of one kind
 * @throws {DataError} naming the file and what it has
 */
export function checkFilesTogether(
  files: readonly DataFile<EncodedPair | EncodedExample | EncodedCompletion>[],
): void {
  const columnsOf = ({ items: [first] }: typeof files[number]) =>
    COLUMNS.filter((name) => name in first).join() || "none";
  const other = files.find((file) => columnsOf(file) !== columnsOf(files[0]));
  if (other) {
    throw new DataError(
      `Cannot use ${other.path}: expected the columns of ${files[0].path} (${columnsOf(files[0])}), found ` +
        columnsOf(other),
    );
  }
  const labels = files.flatMap(({ items }) =>
    items.flatMap((item) => ("desirable" in item ? [item.desirable] : []))
  );
  if (labels.length === 0 || new Set(labels).size === 2) return;
  throw new DataError(
    `Cannot use ${
      files.map(({ path }) => path).join()
    }: expected answers of both labels, found ${labels.length} ` +
      `that are all ${labels[0] ? "desirable" : "undesirable"}`,
  );
}

/**
 * A file in a line: what it gives, and what was left out or cut.
 *
 * @param file as read
 */
export function describeFile({ path, items, skipped, counts }: DataFile<DataItems[DataKind]>): string {
  const notes = [formatSkipped(skipped), formatCounts(counts)].filter((note) =>
    note !== "" && note !== "nothing"
  );
  return `${path}: ${describeItems(items)}${notes.length > 0 ? ` (${notes.join("; ")})` : ""}`;
}

function describeItems(items: readonly DataItems[DataKind][]): string {
  const [first] = items;
  if ("chosen" in first) return `${items.length} pairs`;
  if (!("desirable" in first)) return `${items.length} completions`;
  const good = items.filter((item) => "desirable" in item && item.desirable).length;
  return `${good} desirable and ${items.length - good} undesirable answers`;
}
