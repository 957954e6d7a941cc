/**
 * What became of records as they were encoded.
 * @module
 */
import type { EncodeCounts, Encoded, EncodedCompletion } from "./encoded.ts";
import { DataError, type RecordSource } from "./errors.ts";

/** Nothing counted yet. */
export function zeroCounts(): EncodeCounts {
  return {
    repairedBoundary: 0,
    truncated: 0,
    truncatedPrompt: 0,
    droppedOverlong: 0,
    droppedEmpty: 0,
    droppedIdentical: 0,
  };
}

/** Take a record or count why not, so that counts of changes speak only of what is trained on. */
export function accept(encoded: Encoded, counts: EncodeCounts): EncodedCompletion[] | undefined {
  if (encoded.kind !== "ok") {
    counts[encoded.kind === "overlong" ? "droppedOverlong" : "droppedEmpty"]++;
    return undefined;
  }
  counts.repairedBoundary += encoded.repaired;
  counts.truncated += encoded.truncated;
  counts.truncatedPrompt += encoded.truncatedPrompt;
  return encoded.completions;
}

/** Of records that are all left out. */
export function nothingLeft(
  records: readonly { source: RecordSource }[],
  found: { counts: EncodeCounts; maxLength: number },
): DataError {
  const { counts, maxLength } = found;
  const name = records.length > 0 ? records[0].source.file : "records";
  return new DataError(
    `Cannot encode ${name}: expected a usable record, found ${records.length}, of which ${counts.droppedOverlong} ` +
      `with a prompt that leaves no room in ${maxLength} tokens, ${counts.droppedEmpty} empty, ` +
      `${counts.droppedIdentical} identical as tokens`,
  );
}

/**
 * The counts that are not zero, as text for a log line.
 *
 * @param counts of encoded records
 * @returns for example `3 completions cut at the end`; empty when all are zero
 */
export function formatCounts(counts: EncodeCounts): string {
  return Object.entries(COUNT_MEANINGS)
    .map(([name, meaning]) => [counts[name as keyof EncodeCounts], meaning] as const)
    .filter(([count]) => count > 0).map(([count, meaning]) => `${count} ${meaning}`).join("; ");
}

/** What each count is of, in words. */
export const COUNT_MEANINGS: Readonly<Record<keyof EncodeCounts, string>> = {
  truncated: "completions cut at the end",
  truncatedPrompt: "prompts cut at the start",
  repairedBoundary: "boundary tokens counted as completion",
  droppedOverlong: "left out: prompt too long",
  droppedEmpty: "left out: no completion token",
  droppedIdentical: "left out: both sides the same ids",
};
