/**
 * A description of data as text for a terminal.
 * @module
 */
import { type Cell, formatTable } from "../table.ts";
import { COUNT_MEANINGS } from "./encode_counts.ts";
import type { EncodeCounts } from "./encoded.ts";
import type { DataReport } from "./inspect.ts";

/** What the items of each kind are called. */
const ITEMS = { pairs: "pairs", labelled: "labelled answers", completions: "completions" };

/**
 * A report as tables: files, records, tokens.
 *
 * @param report of {@link inspectData}
 * @returns lines, the last one ended
 */
export function formatDataReport(report: DataReport): string {
  return [
    filesTable(report),
    recordsTable(report),
    lengthsTable(report),
    ...biasTable(report),
    tokensTable(report),
    ...notes(report),
  ].join("\n");
}

function filesTable({ files, kind }: DataReport): string {
  return formatTable(["file", "form", "records", ITEMS[kind], "of an epoch", "times"], [
    ...files.map(({ path, form, records, used, share }) => {
      const total = files.reduce((sum, file) => sum + file.used, 0);
      return [path, form, records, used, percent(share), (share * total / used).toFixed(2)];
    }),
  ]);
}

function recordsTable(report: DataReport): string {
  const { records, used, desirable, skipped, counts, kind, first } = report;
  const ofRecords = (
    name: string,
    count: number,
    place = "",
  ) => [name, count, percent(count / records), place];
  const entries = Object.entries(COUNT_MEANINGS) as [keyof EncodeCounts, string][];
  const isDropped = (name: string) => name.startsWith("dropped");
  return formatTable(["records", "count", "share", "first"], [
    ofRecords("read", records),
    ...Object.entries(skipped).filter(([, count]) => count > 0)
      .map(([reason, count]) => ofRecords(`left out: ${reason}`, count, first[reason])),
    ...entries.filter(([name]) => isDropped(name) && (kind === "pairs" || name !== "droppedIdentical"))
      .map(([name, meaning]) => ofRecords(meaning, counts[name])),
    ofRecords(ITEMS[kind], used),
    ...(desirable === undefined ? [] : [["desirable", desirable, percent(desirable / used), ""]]),
    ...repetitionRows(report),
    ...entries.filter(([name]) => !isDropped(name)).map((
      [name, meaning],
    ) => [meaning, counts[name], "-", ""]),
  ]);
}

function repetitionRows(
  { kind, used, repetitions, first, maxLength, overMaxLength: { texts, share } }: DataReport,
): Cell[][] {
  const row = (meaning: string, name: "exact" | "samePrompt" | "contradictory") => [
    ...[meaning, repetitions[name], percent(repetitions[name] / used)],
    first[name] ?? "",
  ];
  const items = ITEMS[kind];
  const other = kind === "pairs" ? "in the other order" : "with the other label";
  return [
    row(`exact duplicates of earlier ${items}`, "exact"),
    row(`${items} with an earlier one's prompt`, "samePrompt"),
    ...(kind === "completions" ? [] : [row(`contradictory: also ${other}`, "contradictory")]),
    [`texts over ${maxLength} tokens`, texts, percent(share), ""],
  ];
}

function lengthsTable({ lengths }: DataReport): string {
  return formatTable(["tokens, uncut", "min", "median", "p90", "p99", "max", "mean"], [
    ...Object.entries(lengths).map(([part, { min, median, p90, p99, max, mean }]) => [
      part,
      ...[min, median, p90, p99, max],
      mean.toFixed(1),
    ]),
  ]);
}

function biasTable({ lengthBias }: DataReport): string[] {
  if (lengthBias === undefined) return [];
  const { longer, shorter, meanDifference } = lengthBias;
  const difference = `${meanDifference < 0 ? "" : "+"}${meanDifference.toFixed(1)}`;
  if (longer === undefined || shorter === undefined) {
    return [formatTable(["length bias", ""], [["desirable less undesirable, mean tokens", difference]])];
  }
  return [formatTable(["length bias", ""], [
    ["chosen is longer", percent(longer)],
    ["chosen is shorter", percent(shorter)],
    ["chosen less rejected, mean tokens", difference],
  ])];
}

function tokensTable({ tokens, kind }: DataReport): string {
  const { separate, packed, labels } = tokens;
  const rows: Cell[][] = kind === "pairs"
    ? [
      ["every text with its prompt", separate],
      ["common prompts once", packed],
      ["saved by common prompts", percent(1 - packed / separate)],
    ]
    : [["all", packed]];
  return formatTable([`tokens of all ${ITEMS[kind]}, as trained on`, ""], [...rows, ["learnt", labels]]);
}

/** What the numbers alone do not say. */
function notes({ counts }: DataReport): string[] {
  if (counts.droppedOverlong === 0) return [];
  return [
    "A record that is too long stops a run, unless it has --overlong drop or a larger --max-length.\n",
  ];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
