/**
 * What data consists of before it is known what its records mean.
 * @module
 */
import type { RecordSource } from "./errors.ts";

/** One parsed JSON object of a data file, and where it stands. */
export interface Row {
  /** The object, its keys not looked at. */
  value: Record<string, unknown>;
  /** Where it stands. */
  source: RecordSource;
}
