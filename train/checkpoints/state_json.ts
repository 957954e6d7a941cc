/**
 * state.json of a checkpoint: the numbers of a run's state that are on the host.
 * @module
 */
import { z } from "zod";
import { parseJson } from "./json_text.ts";
import type { RunState } from "./run_state.ts";

/** What state.json says. */
export interface SavedNumbers {
  /** Steps done. */
  readonly step: number;
  /** Bytes of metrics.jsonl that belong to them. */
  readonly metricsBytes: number;
  /** Numbers of each part of the run. */
  readonly parts: ReadonlyMap<string, Readonly<Record<string, number>>>;
}

const count = z.number("a number").refine(
  (value) => Number.isSafeInteger(value) && value >= 0,
  "a non-negative integer below 2^53",
);

const schema = z.object({
  step: count,
  metricsBytes: count,
  parts: z.record(
    z.string(),
    z.record(z.string(), z.number("a finite number"), "an object of numbers"),
    "an object of parts",
  ),
}, "an object");

/**
 * Prints the numbers of a state; every number is read back as it was.
 *
 * @param state a run's state
 * @returns the content of state.json
 * @throws {RangeError} when one is not finite
 */
export function formatNumbers({ step, metricsBytes, parts }: RunState): string {
  const lines = Object.entries(parts).map(([part, state]) => {
    const numbers = Object.entries(state.numbers()).map(([key, value]) =>
      `${JSON.stringify(key)}: ${formatNumber(value, `${part}.${key}`)}`
    );
    return `    ${JSON.stringify(part)}: {${numbers.join(", ")}}`;
  });
  const head = [["step", step], ["metricsBytes", metricsBytes]] as const;
  const rows = head.map(([key, value]) => `  "${key}": ${formatNumber(value, key)},\n`);
  return `{\n${rows.join("")}  "parts": {\n${lines.join(",\n")}\n  }\n}\n`;
}

/**
 * Parses and checks state.json.
 *
 * @param bytes its content
 * @param options.file its name, for messages
 * @throws {CheckpointError} naming the file and the key
 */
export function parseNumbers(bytes: Uint8Array, { file }: { file: string }): SavedNumbers {
  const { step, metricsBytes, parts } = parseJson(bytes, { file, schema });
  return { step, metricsBytes, parts: new Map(Object.entries(parts)) };
}

function formatNumber(value: number, name: string): string {
  if (!Number.isFinite(value)) {
    throw new RangeError(`Cannot save ${name}: expected a finite number, found ${value}`);
  }
  // JSON.stringify drops the sign of zero, JSON.parse reads it.
  return Object.is(value, -0) ? "-0" : JSON.stringify(value);
}
