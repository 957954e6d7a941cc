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

function recordsTable(
  { records, used, desirable, skipped, counts, repetitions, kind, overMaxLength, maxLength }: DataReport,
): string {
  const ofRecords = (name: string, count: number): Cell[] => [name, count, percent(count / records)];
  const ofItems = (name: string, count: number): Cell[] => [name, count, percent(count / used)];
  const entries = Object.entries(COUNT_MEANINGS) as [keyof EncodeCounts, string][];
  const isDropped = (name: string) => name.startsWith("dropped");
  const items = ITEMS[kind];
  return formatTable(["records", "count", "share"], [
    ofRecords("read", records),
    ...Object.entries(skipped).filter(([, count]) => count > 0)
      .map(([reason, count]) => ofRecords(`left out: ${reason}`, count)),
    ...entries.filter(([name]) => isDropped(name) && (kind === "pairs" || name !== "droppedIdentical"))
      .map(([name, meaning]) => ofRecords(meaning, counts[name])),
    ofRecords(items, used),
    ...(desirable === undefined ? [] : [ofItems("desirable", desirable)]),
    ofItems(`exact duplicates of earlier ${items}`, repetitions.exact),
    ofItems(`${items} with an earlier one's prompt`, repetitions.samePrompt),
    ...(kind === "completions" ? [] : [
      ofItems(
        kind === "pairs"
          ? "contradictory: also in the other order"
          : "contradictory: also with the other label",
        repetitions.contradictory,
      ),
    ]),
    [`texts over ${maxLength} tokens`, overMaxLength.texts, percent(overMaxLength.share)],
    ...entries.filter(([name]) => !isDropped(name)).map((
      [name, meaning],
    ): Cell[] => [meaning, counts[name], "-"]),
  ]);
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
