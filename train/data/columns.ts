/**
 * Numbers that data may have beside its texts: a margin, and log-probs under a reference.
 * @module
 */
import { DataError, formatSource, type RecordSource } from "./errors.ts";
import type { Row } from "./rows.ts";

/** Of a preference; each of all records of a file or of none. */
export interface PairColumns {
  /** By how much the preferred side is better. */
  margin?: number;
  /** Summed log-prob of the preferred completion under a reference, in nats; there with the other or not at all. */
  referenceChosen?: number;
  /** Summed log-prob of the other completion. */
  referenceRejected?: number;
}

/** Which columns are read. */
export interface ColumnOptions {
  /** The column of margins; every record must have it. By default `margin`, where records have it. */
  marginColumn?: string;
}

/** Names of a column: ours, then TRL's. */
const NAMES = {
  referenceChosen: ["reference_chosen_logps", "ref_chosen_logps"],
  referenceRejected: ["reference_rejected_logps", "ref_rejected_logps"],
};

/**
 * Make a reader of the columns of one file's rows.
 *
 * @param options which are read
 * @returns a function from a row, in the file's order, to what it holds; it throws a DataError on a value that is no
 *   finite number, a log-prob above 0, one log-prob without the other, or a column that only some rows have
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const read = createColumnReader({ marginColumn: "gap" });
 * const source = { file: "a.jsonl", line: 1 };
 * assert.deepEqual(read({ value: { gap: 0.5, margin: 9 }, source }), { margin: 0.5 });
 * ```
 */
export function createColumnReader(options: ColumnOptions = {}): (row: Row) => PairColumns {
  let first: { keys: Set<string>; source: RecordSource } | undefined;
  return (row) => {
    const columns = readColumns(row, options);
    first ??= { keys: new Set(Object.keys(columns)), source: row.source };
    for (const key of ["margin", "referenceChosen", "referenceRejected"] as const) {
      const has = columns[key] !== undefined;
      if (has === first.keys.has(key)) continue;
      const name = namesOf(key, options)[0];
      throw new DataError(
        `Cannot read ${formatSource(row.source)}: expected ${has ? "no" : "a"} "${name}" as in ${
          formatSource(first.source)
        }, found ${has ? "one" : "none"}`,
      );
    }
    return columns;
  };
}

function readColumns(row: Row, options: ColumnOptions): PairColumns {
  const margin = readNumber(row, namesOf("margin", options));
  if (margin === undefined && options.marginColumn !== undefined) {
    throw fail(row, { expected: `a number as "${options.marginColumn}"`, found: "none" });
  }
  const [referenceChosen, referenceRejected] = [NAMES.referenceChosen, NAMES.referenceRejected].map(
    (names) => {
      const logp = readNumber(row, names);
      if (logp !== undefined && logp > 0) {
        throw fail(row, { expected: `a log-prob of at most 0 as "${names[0]}"`, found: String(logp) });
      }
      return logp;
    },
  );
  if ((referenceChosen === undefined) !== (referenceRejected === undefined)) {
    const [here, missing] = referenceChosen === undefined
      ? [NAMES.referenceRejected, NAMES.referenceChosen]
      : [NAMES.referenceChosen, NAMES.referenceRejected];
    throw fail(row, { expected: `"${missing[0]}" beside "${here[0]}"`, found: "none" });
  }
  return {
    ...(margin === undefined ? {} : { margin }),
    ...(referenceChosen === undefined ? {} : { referenceChosen, referenceRejected }),
  };
}

function namesOf(key: keyof PairColumns, { marginColumn = "margin" }: ColumnOptions): readonly string[] {
  return key === "margin" ? [marginColumn] : NAMES[key];
}

function readNumber(row: Row, names: readonly string[]): number | undefined {
  const given = names.filter((name) => Object.hasOwn(row.value, name) && row.value[name] !== null);
  if (given.length === 0) return undefined;
  if (given.length > 1) throw fail(row, { expected: `one of "${given.join('", "')}"`, found: "both" });
  const value = row.value[given[0]];
  // The kernels hold it in 32 bits, where larger ones are infinite.
  if (typeof value === "number" && Number.isFinite(Math.fround(value))) return value;
  const found = typeof value === "number"
    ? String(value)
    : typeof value === "string"
    ? JSON.stringify(value)
    : typeof value;
  const expected = Number.isFinite(value) ? "a number that f32 holds" : "a finite number";
  throw fail(row, { expected: `${expected} as "${given[0]}"`, found });
}

function fail(row: Row, { expected, found }: { expected: string; found: string }): DataError {
  return new DataError(`Cannot read ${formatSource(row.source)}: expected ${expected}, found ${found}`);
}
